"""The loss of plain tensors in eager mode, as one autograd function. Imports torch and the operators."""

import torch

from bce_bridge.torch import _private, operators
from bce_bridge.torch.derivatives import scaled_first
from bce_bridge.torch.evaluate import has_memory

_INPUT_ALONE = (True, *[False] * 7)


class EagerLoss(_private.Function):
    """Loss and gradient in one pass. Keeps the gradient, and its operands for the other derivatives.

    The gradient is not a saved tensor: the first backward takes it. That backward is its last user, so it may modify the
    gradient and return it. Another backward of the same graph computes the gradient again.
    """

    @staticmethod
    def forward(ctx, input, target, weight, pos_weight, reduction, label_smoothing, dtype, evaluate):
        # A float16 gradient needs grad_output first: see scaled_first.
        with_gradient = ctx.needs_input_grad[0] and input.dtype is not torch.float16
        loss, gradient = evaluate(input, target, weight, pos_weight, reduction, label_smoothing, dtype, with_gradient)
        ctx.save_for_backward(input, target, weight, pos_weight)
        ctx.options = reduction, label_smoothing
        ctx.gradient = gradient
        return loss

    @staticmethod
    def backward(ctx, grad_output):
        operands = ctx.saved_tensors
        needed = ctx.needs_input_grad
        if (
            torch.compiler.is_compiling()
            or torch.is_grad_enabled()
            or _private.transforming()
            or type(grad_output) is not torch.Tensor
            or not ((one := _is_one(grad_output)) or has_memory(grad_output))
        ):
            return *operators.gradients(operands, needed, grad_output, *ctx.options), None, None, None, None
        gradient = None
        if needed[0]:
            gradient = vars(ctx).pop("gradient", None)  # atomic: two threads may be here
            if not one and scaled_first(operands[0].dtype, grad_output.dtype):
                gradient = None
            if gradient is None:
                gradient, *_ = operators.gradients(operands, _INPUT_ALONE, grad_output, *ctx.options)
            elif not one:
                gradient.mul_(grad_output)
        if needed == _INPUT_ALONE:
            return gradient, None, None, None, None, None, None, None
        _, *others = operators.gradients(operands, (False, *needed[1:4]), grad_output, *ctx.options)
        return gradient, *others, None, None, None, None


def _is_one(tensor):
    """Whether all elements are known to be the same 1, as after loss.backward() and loss.sum().backward().

    Only CPU tensors are read, since reading from a device would stall it.
    """
    if not tensor.is_cpu:
        return False
    if tensor.dim():
        if any(tensor.stride()) or not tensor.numel():
            return False
        tensor = tensor[(0,) * tensor.dim()]
    try:
        return tensor.item() == 1.0
    except RuntimeError:
        return False  # a batch, under is_grads_batched
