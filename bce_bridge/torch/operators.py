"""The loss as torch operators, and its derivatives of every order. Imports torch and the core.

    bce_bridge::loss                 the loss
    bce_bridge::loss_and_gradient    the loss and its gradient in the logits, in one pass
    bce_bridge::derivative           for each element, the derivative in its input, target, weight or pos_weight

torch.compile, torch.export, torch.func, forward-mode differentiation, fake and meta tensors see these operators. Values and
first derivatives are the core's. Second derivatives are float64 formulae in torch's operations, which torch can differentiate
again.

Arguments of all: operands and label_smoothing as in functional.py; reduction without its deprecated names; the loss's dtype;
the name of an operand; and batch, the number of leading dimensions that torch.func.vmap has added. Each of their elements is a
loss of its own.
"""

import contextlib
import functools
import math
import threading

import torch
from torch.autograd import forward_ad

from bce_bridge import _abi
from bce_bridge.torch import _private, checks, evaluate
from bce_bridge.torch._private import transforming
from bce_bridge.torch.derivatives import Formulae, scaled_first, times
from bce_bridge.torch.evaluate import DTYPES

_RESULTS = {"input": "gradient", "target": "d_targets", "weight": "d_weight", "pos_weight": "d_pos_weight"}


def _loss_and_gradient(input, target, *arguments):
    checks.check_target(input, target)
    compute = evaluate.triton_loss_and_gradient if input.is_cuda else evaluate.core_loss_and_gradient
    return compute(input, target, *arguments)


def _empty_derivative(input, target, name):
    """Of the dtype of its operand; float64 if it is still to be summed over broadcast dimensions."""
    if name == "target":
        return torch.empty_like(target)
    return torch.empty_like(input, dtype=input.dtype if name == "input" else torch.float64)


def _reduced(losses, batch, reduction, dtype):
    """The exact sum or mean of float64 losses over all but the batch dimensions, rounded once."""
    rows = losses.cpu().contiguous()
    result = torch.empty(rows.shape[:batch], dtype=dtype, device="cpu")
    n = math.prod(rows.shape[batch:])
    numbers, results = rows.data_ptr(), result.data_ptr()
    _abi.reduce_rows(numbers, result.numel(), n, reduction, DTYPES[dtype], results, result.itemsize)
    return result.to(losses.device)


def _moved_to_front(size, in_dims, operands):
    """The operands with the vmap's dimension in front. Those that broadcast get as many dimensions as the input."""
    ndim = operands[0].dim() + (in_dims[0] is None)
    moved = []
    for tensor, dim in zip(operands, in_dims):
        if tensor is not None:
            tensor = tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
            tensor = tensor[(slice(None), *[None] * (ndim - tensor.dim()))]
        moved.append(tensor)
    return *(tensor.expand(size, *tensor.shape[1:]) for tensor in moved[:2]), *moved[2:]


_LIBRARY = torch.library.Library("bce_bridge", "FRAGMENT")
_OPERANDS = "Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight"


def _register(function):
    """Make an operator of a Function, which has its schema, its kernel for any device (compute) and that for fake tensors.

    The Function is also its autograd kernel. Like those of torch's own operators it handles one level of torch.func at a time:
    the operator that its forward calls runs at the next level, in the caller's grad mode. The kernels of
    torch.library.register_autograd cannot do so: with them, Function.apply must come before the operator.
    """
    short = function.schema.partition("(")[0]
    name = f"bce_bridge::{short}"
    _LIBRARY.define(function.schema)
    _LIBRARY.impl(name, function.compute, "CompositeExplicitAutograd")
    torch.library.register_fake(name, function.fake, lib=_LIBRARY)
    torch.library.register_vmap(name, function.vmap, lib=_LIBRARY)
    operator = getattr(torch.ops.bce_bridge, short).default

    if not _private.SINGLE_LEVEL:
        torch.library.register_autograd(name, function.backward, setup_context=function.setup_context, lib=_LIBRARY)
        function.forward = staticmethod(lambda *arguments: operator(*arguments))

        def call(*arguments):
            return (function.apply if transforming() else operator)(*arguments)

        return call if _private.KNOWS_TRANSFORMS else torch.compiler.disable(call)

    caller = threading.local()

    def forward(*arguments):
        forward_mode = _private.forward_mode or contextlib.nullcontext
        with torch.set_grad_enabled(caller.grad_enabled), forward_mode(), _private.below_autograd():
            return operator(*arguments)

    def autograd(*arguments):
        caller.grad_enabled = torch.is_grad_enabled()
        with _private.allow_single_level():
            return function.apply(*arguments)

    function.forward = staticmethod(forward)
    _LIBRARY.impl(name, autograd, "Autograd")
    return operator


def _forward_mode(jvp):
    """Decorator that gives a jvp the saved operands first, without the tangents of its own level.

    That level is numbered 0 at every level of torch.func. Forward-mode differentiation is on: else the outer levels would see a
    constant.
    """
    if not _private.forward_mode:
        return torch.autograd.Function.jvp  # raises an error

    @functools.wraps(jvp)
    def run(ctx, *tangents):
        with _private.forward_mode():
            operands = [None if t is None else forward_ad.unpack_dual(t, level=0).primal for t in ctx.saved_tensors]
            return jvp(ctx, operands, *tangents)

    return run


class Loss(_private.Function):
    schema = f"loss({_OPERANDS}, str reduction, float label_smoothing, ScalarType dtype, int batch) -> Tensor"

    @staticmethod
    def compute(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch):
        if reduction == "none" or not batch:
            return _loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, dtype, False)[0]
        losses = _loss_and_gradient(input, target, weight, pos_weight, "none", label_smoothing, torch.float64, False)[0]
        return _reduced(losses, batch, reduction, dtype)

    @staticmethod
    def fake(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch):
        checks.check_target(input, target)
        checks.check_weights(input, weight=weight, pos_weight=pos_weight)
        if reduction == "none":
            return torch.empty_like(target, dtype=dtype)
        return input.new_empty(input.shape[:batch], dtype=dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, ctx.reduction, ctx.label_smoothing, ctx.dtype, ctx.batch = inputs
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)

    @staticmethod
    def backward(ctx, grad_output):
        options = ctx.reduction, ctx.label_smoothing, ctx.batch
        return *gradients(ctx.saved_tensors, ctx.needs_input_grad, grad_output, *options), None, None, None, None

    @staticmethod
    @_forward_mode
    def jvp(ctx, operands, *tangents):
        options = ctx.reduction, ctx.label_smoothing, ctx.batch
        total = sum(
            times(tangent.double(), derivative(*operands, name, *options).double())
            for name, tangent in zip(_RESULTS, tangents)
            if tangent is not None
        )
        if ctx.reduction != "none":
            total = total.reshape(*total.shape[: ctx.batch], math.prod(total.shape[ctx.batch :])).sum(-1)
        return total.to(ctx.dtype)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        *operands, reduction, label_smoothing, dtype, batch = arguments
        operands = _moved_to_front(info.batch_size, in_dims, operands)
        return loss(*operands, reduction, label_smoothing, dtype, batch + 1), 0


class LossAndGradient(_private.Function):
    schema = f"loss_and_gradient({_OPERANDS}, str reduction, float label_smoothing, ScalarType dtype) -> (Tensor, Tensor)"

    @staticmethod
    def compute(*arguments):
        return _loss_and_gradient(*arguments, True)

    @staticmethod
    def fake(*arguments):
        return Loss.fake(*arguments, 0), torch.empty_like(arguments[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, gradient = output
        *operands, reduction, label_smoothing, _ = inputs
        ctx.save_for_backward(gradient, *operands)
        ctx.mark_non_differentiable(gradient)
        ctx.options = reduction, label_smoothing

    @staticmethod
    def backward(ctx, grad_output, _):
        gradient, *operands = ctx.saved_tensors
        needed = list(ctx.needs_input_grad[:4])
        usable = needed[0] and not torch.is_grad_enabled() and not transforming()
        needed[0] = needed[0] and not usable
        first, *others = gradients(operands, needed, grad_output, *ctx.options)
        if usable:
            first = (gradient * grad_output).to(gradient.dtype)
        return first, *others, None, None, None

    @staticmethod
    def vmap(info, in_dims, *arguments):
        *operands, reduction, label_smoothing, dtype = arguments
        operands, options = _moved_to_front(info.batch_size, in_dims, operands), (reduction, label_smoothing)
        return (loss(*operands, *options, dtype, 1), derivative(*operands, "input", *options, 1)), (0, 0)


class Derivative(_private.Function):
    schema = f"derivative({_OPERANDS}, str name, str reduction, float label_smoothing, int batch) -> Tensor"

    @staticmethod
    def compute(input, target, weight, pos_weight, name, reduction, label_smoothing, batch):
        operands = input, target, weight, pos_weight
        checks.check_target(input, target)
        count = math.prod(input.shape[batch:])
        if input.is_cuda and name == "input":
            return evaluate.triton_gradient(*operands, reduction, label_smoothing, count)
        result = _empty_derivative(input, target, name)
        if input.is_cuda:
            return result.copy_(Formulae(*operands, reduction, label_smoothing, batch).first(name))
        evaluate.evaluate(*operands, reduction, label_smoothing, (_RESULTS[name],), result, count=count)
        return result

    @staticmethod
    def fake(input, target, weight, pos_weight, name, reduction, label_smoothing, batch):
        checks.check_weights(input, weight=weight, pos_weight=pos_weight)
        return _empty_derivative(input, target, name)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, ctx.name, reduction, label_smoothing, batch = inputs
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)
        ctx.options = reduction, label_smoothing, batch

    @staticmethod
    def backward(ctx, grad_output):
        formulae = Formulae(*ctx.saved_tensors, *ctx.options)
        found = []
        for other, operand, needed in zip(_RESULTS, ctx.saved_tensors, ctx.needs_input_grad):
            second = formulae.second(ctx.name, other) if needed else None
            if second is not None:
                second = times(grad_output.double(), second).sum_to_size(operand.shape).to(operand.dtype)
            found.append(second)
        return *found, None, None, None, None

    @staticmethod
    @_forward_mode
    def jvp(ctx, operands, *tangents):
        formulae = Formulae(*operands, *ctx.options)
        result = _empty_derivative(*operands[:2], ctx.name)
        total = torch.zeros_like(result, dtype=torch.float64)
        for other, tangent in zip(_RESULTS, tangents):
            second = None if tangent is None else formulae.second(ctx.name, other)
            if second is not None:
                total = total + times(tangent.double(), second)
        return total.to(result.dtype)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        *operands, name, reduction, label_smoothing, batch = arguments
        operands = _moved_to_front(info.batch_size, in_dims, operands)
        return derivative(*operands, name, reduction, label_smoothing, batch + 1), 0


def gradients(operands, needed, grad_output, reduction, label_smoothing, batch=0):
    """The gradients in those operands that need one, differentiable again; None for the others."""
    input, target, weight, pos_weight = operands
    options = reduction, label_smoothing, batch
    scale = grad_output
    if reduction != "none" and batch:
        scale = scale[(..., *[None] * (input.dim() - batch))]
    found = []
    for name, operand, need in zip(_RESULTS, operands, needed):
        if not need:
            gradient = None
        elif name in ("input", "target") and scaled_first(operand.dtype, scale.dtype):
            scaled = scale if weight is None else weight.double() * scale.double()
            gradient = derivative(input, target, scaled, pos_weight, name, *options)
        else:
            gradient = derivative(input, target, weight, pos_weight, name, *options)
            gradient = gradient * scale if name == "input" else times(scale.to(gradient.dtype), gradient)
            gradient = gradient.sum_to_size(operand.shape).to(operand.dtype)
        found.append(gradient)
    return found


loss, loss_and_gradient, derivative = map(_register, (Loss, LossAndGradient, Derivative))


def _decompose(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch=0):
    """(the loss, its gradient in the input) in elementary operations that ONNX has for float64.

    With t = e^-|x|, log(1 + t) is t - t^2 / 2 where 1 + t would lose t. Either way the relative error is below 2^-34.
    """
    formulae = Formulae(input, target, weight, pos_weight, reduction, label_smoothing, batch)
    x = input.double()
    t = torch.exp(-x.abs())
    log = torch.where(t < 1e-5, t - 0.5 * t * t, torch.log(1 + t))
    negative, positive = formulae.w * formulae.complement / formulae.n, formulae.w * formulae.p * formulae.y / formulae.n
    losses = times(negative, torch.where(x > 0, x, 0.0) + log) + times(positive, torch.where(x < 0, -x, 0.0) + log)
    plus, minus = torch.where(x > 0, 1.0, t) / (1 + t), torch.where(x > 0, t, 1.0) / (1 + t)
    gradient = negative * plus - positive * minus
    if reduction != "none":
        losses = losses.flatten(batch).sum(-1) if losses.dim() > batch else losses
    return losses.to(dtype), gradient.to(input.dtype)


# torch.onnx.export cannot run our operators.
_private.register_decomposition(torch.ops.bce_bridge.loss.default)(lambda *arguments: _decompose(*arguments)[0])
_private.register_decomposition(torch.ops.bce_bridge.loss_and_gradient.default)(_decompose)
