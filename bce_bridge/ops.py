"""The loss as torch operators, and its derivatives of every order. Imports torch and the core.

    bce_bridge::loss                 the loss
    bce_bridge::loss_and_gradient    the loss and its gradient in the logits, in one pass
    bce_bridge::derivative           for each element, the derivative in its input, target, weight or pos_weight

are what torch.compile, torch.export, torch.func, forward-mode differentiation, fake and meta tensors see. Values and first
derivatives are the core's. Second derivatives are float64 formulae of torch's operations, and so differentiable themselves.

Arguments of all: the operands and label_smoothing as in functional.py, reduction without its deprecated names, dtype of the
loss, name of an operand, and batch, the number of leading dimensions that torch.func.vmap has added: each of their elements
is a loss of its own.
"""

import contextlib
import functools
import math
import threading

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from bce_bridge import _abi, _torch_private
from bce_bridge._torch_private import transforming

DTYPES = {getattr(torch, name): name for name in _abi.DTYPES}
_RESULTS = {"input": "gradient", "target": "d_targets", "weight": "d_weight", "pos_weight": "d_pos_weight"}

_PLAIN = torch.Tensor, torch.nn.Parameter
_strided = torch.strided


class _Scalars(dict):
    """A 0-d tensor of each dtype, made when it is first asked for, which is never in a mode that would change it."""

    def __missing__(self, dtype):
        self[dtype] = tensor = torch.empty((), dtype=dtype, device="cpu")
        return tensor


_SCALARS = _Scalars()


def readable(input, target, weight, pos_weight):
    """Whether these are tensors in the CPU's memory and nothing more: no wrapper, layout or pending negation; and of DTYPES.
    A weight may be None."""
    if input is None or target is None:
        return False
    try:
        for tensor in (input, target, weight, pos_weight):
            if tensor is not None and not (
                type(tensor) in _PLAIN
                and tensor.is_cpu
                and tensor.layout is _strided
                and tensor.dtype in DTYPES
                and not tensor.is_neg()
                and not tensor.is_nested
                and (tensor.data_ptr() or not tensor.numel())  # 0 for a tensor that is only known to be 0
            ):
                return False
    except RuntimeError:
        return False
    return True


def has_memory(tensor):
    """False for a tensor that stands for many, as grad_output does under torch.autograd.grad(is_grads_batched=True)."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def describe(tensor):
    """The tensor as the core wants it, None as None."""
    if tensor is None:
        return None
    strides = [tensor.itemsize * stride for stride in tensor.stride()]
    return _abi.Array(tensor.data_ptr(), DTYPES[tensor.dtype], tensor.shape, strides)


@functools.lru_cache(256)
def _idle_calls(*description):
    """The calls of the core, on tensors of this description, that no thread is making just now: to describe the tensors
    again would take longer than the loss of a thousand elements."""
    return []


def evaluate(input, target, weight, pos_weight, reduction, label_smoothing, names, *results, count=0):
    """Have the core compute the results of these names in bce_results into these tensors, all on the CPU and of DTYPES.

    Those of more than 0 dimensions are as torch.empty_like makes them: of the target for loss and d_targets, else of the input;
    but for the first, they have its dtype too. Under "mean" derivatives are divided by count, or without one by the number of
    elements. Raises RuntimeError for a weight that does not broadcast.
    """
    idle = _idle_calls(
        reduction,
        label_smoothing,
        input.dtype,
        input.shape,
        input.stride(),
        target.dtype,
        target.stride(),
        weight is not None and (weight.dtype, weight.shape, weight.stride()),
        pos_weight is not None and (pos_weight.dtype, pos_weight.shape, pos_weight.stride()),
        names,
        results[0].dtype,
        count,
    )
    try:
        call = idle.pop()
    except IndexError:
        described = map(describe, (input, target, weight, pos_weight))
        call = _abi.Call(*described, label_smoothing, reduction, None, count, **dict(zip(names, map(describe, results))))
    addresses = [input.data_ptr(), target.data_ptr()]
    for tensor in (weight, pos_weight, *results):
        if tensor is not None:
            addresses.append(tensor.data_ptr())
    try:
        call(*addresses)
    except ValueError as error:
        # torch's name for them
        raise RuntimeError(str(error).replace("logits'", "input's").replace("logits", "input")) from None
    idle.append(call)


def core_loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, dtype, with_gradient):
    """(the loss in this dtype, the gradient in the logits or None) of CPU tensors."""
    # empty_like takes half the time of empty.
    loss = torch.empty_like(target, dtype=dtype) if reduction == "none" else torch.empty_like(_SCALARS[dtype])
    if not with_gradient:
        evaluate(input, target, weight, pos_weight, reduction, label_smoothing, ("loss",), loss)
        return loss, None
    gradient = torch.empty_like(input)
    evaluate(input, target, weight, pos_weight, reduction, label_smoothing, ("loss", "gradient"), loss, gradient)
    return loss, gradient


def triton_loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, dtype, with_gradient):
    """The same of CUDA tensors."""
    from bce_bridge import triton_kernel

    # The kernel's loss has the dtype of a floating target, else of the input.
    if target.is_floating_point() or dtype != input.dtype:
        target = target.to(dtype)
    operands = _for_triton(input, target, weight, pos_weight)
    return triton_kernel.loss_and_gradient(*operands, reduction, label_smoothing, with_gradient)


def triton_gradient(input, target, weight, pos_weight, reduction, label_smoothing, count):
    """The gradient of CUDA tensors; under "mean" divided by count, or without one by the number of elements."""
    from bce_bridge import triton_kernel

    return triton_kernel.gradient(*_for_triton(input, target, weight, pos_weight), reduction, label_smoothing, count)


def triton_partial_sums(input, target, weight, pos_weight, label_smoothing):
    """Fields of bce_partial, list after list, whose sums together are that of the losses of CUDA tensors."""
    from bce_bridge import triton_kernel

    return triton_kernel.partial_sums(*_for_triton(input, target, weight, pos_weight), label_smoothing)


def _for_triton(input, *others):
    # A 0-d weight may be on the CPU; a view of an imaginary part may hold the numbers negated.
    return [None if tensor is None else tensor.to(input.device).resolve_neg() for tensor in (input, *others)]


def _loss_and_gradient(input, *arguments):
    _check_target(input, arguments[0])
    return (triton_loss_and_gradient if input.is_cuda else core_loss_and_gradient)(input, *arguments)


def target_error(input, target):
    """What a target of another shape than the input's is refused with, in torch's words."""
    return ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")


def _check_target(input, target):
    if target.shape != input.shape:
        raise target_error(input, target)


def check_tensor(name, value):
    """Raise TypeError for what is no tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}: use torch.as_tensor")


def _empty_derivative(input, target, name):
    """Of the dtype of what it is a derivative in; float64 where it is still to be summed over broadcast dimensions."""
    if name == "target":
        return torch.empty_like(target)
    return torch.empty_like(input, dtype=input.dtype if name == "input" else torch.float64)


def _times(a, b):
    """a b, where an a of 0 silences an infinite b."""
    return a * torch.where((a == 0) & b.isinf(), 0.0, b)


class Formulae:
    """The derivatives of one element, in float64, from operations that torch can differentiate. Operands as in the operators.

    With k = 1 - label_smoothing, the smoothed target y k + (1 - k) / 2 in place of y, and all divided by n under "mean".
    """

    def __init__(self, input, target, weight, pos_weight, reduction, label_smoothing, batch):
        x = input.double()
        one = x.new_ones(())
        self.k = k = 1.0 - label_smoothing
        y = target.double()
        self.y, self.complement = y * k + 0.5 * label_smoothing, (1 - y) * k + 0.5 * label_smoothing
        self.w, self.p = (one if tensor is None else tensor.double() for tensor in (weight, pos_weight))
        self.n = math.prod(input.shape[batch:]) if reduction == "mean" else 1
        self.plus, self.minus = x.sigmoid(), (-x).sigmoid()
        self.softplus, self.softminus = -F.logsigmoid(-x), -F.logsigmoid(x)  # log(1 + e^x), log(1 + e^-x)

    def first(self, name):
        k, y, complement, w, p = self.k, self.y, self.complement, self.w, self.p
        if name == "target":
            value = w * k * (_times(p, self.softminus) - self.softplus)
        elif name == "weight":
            value = _times(complement, self.softplus) + _times(p * y, self.softminus)
        else:
            value = _times(w * y, self.softminus)
        return value / self.n

    def second(self, name, other):
        """None where it is 0."""
        k, y, complement, w, p, plus, minus = self.k, self.y, self.complement, self.w, self.p, self.plus, self.minus
        match sorted((name, other)):
            case ["input", "input"]:
                value = w * (complement + p * y) * plus * minus
            case ["input", "target"]:
                value = -w * k * (plus + p * minus)
            case ["input", "weight"]:
                value = complement * plus - p * y * minus
            case ["input", "pos_weight"]:
                value = -w * y * minus
            case ["target", "weight"]:
                value = k * (_times(p, self.softminus) - self.softplus)
            case ["pos_weight", "target"]:
                value = k * _times(w, self.softminus)
            case ["pos_weight", "weight"]:
                value = _times(y, self.softminus)
            case _:
                return None
        return value / self.n


def check_weights(input, **weights):
    """Raise RuntimeError for one that does not broadcast to the input's shape; None is none."""
    for name, tensor in weights.items():
        if tensor is None:
            continue
        sizes = zip(reversed(tensor.shape), reversed(input.shape))
        if tensor.dim() > input.dim() or any(size != 1 and size != wanted for size, wanted in sizes):
            raise RuntimeError(
                f"{name} of shape {tuple(tensor.shape)} does not broadcast to the input's shape {tuple(input.shape)}"
            )


def _reduced(losses, batch, reduction, dtype):
    """The exact sum or mean of float64 losses over all but the batch dimensions, rounded once."""
    rows = losses.cpu().contiguous()
    result = torch.empty(rows.shape[:batch], dtype=dtype, device="cpu")
    n = math.prod(rows.shape[batch:])
    numbers, results = rows.data_ptr(), result.data_ptr()
    _abi.reduce_rows(numbers, result.numel(), n, reduction, DTYPES[dtype], results, result.itemsize)
    return result.to(losses.device)


def _moved_to_front(size, in_dims, operands):
    """The operands with the dimension of a vmap in front, those that broadcast with as many dimensions as the input."""
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
    """Make an operator of a Function that has its schema, its kernel for any device (compute) and for fake tensors.

    Its autograd kernel is the Function's, and as those of torch's own operators it serves one level of torch.func at a time:
    the operator that its forward calls is in the next one, in the grad mode that the caller had set. The kernels that
    torch.library.register_autograd makes cannot do so: with them, Function.apply has to come before the operator.
    """
    short = function.schema.partition("(")[0]
    name = f"bce_bridge::{short}"
    _LIBRARY.define(function.schema)
    _LIBRARY.impl(name, function.compute, "CompositeExplicitAutograd")
    torch.library.register_fake(name, function.fake, lib=_LIBRARY)
    torch.library.register_vmap(name, function.vmap, lib=_LIBRARY)
    operator = getattr(torch.ops.bce_bridge, short).default

    if not _torch_private.SINGLE_LEVEL:
        torch.library.register_autograd(name, function.backward, setup_context=function.setup_context, lib=_LIBRARY)
        function.forward = staticmethod(lambda *arguments: operator(*arguments))

        def call(*arguments):
            return (function.apply if transforming() else operator)(*arguments)

        return call if _torch_private.KNOWS_TRANSFORMS else torch.compiler.disable(call)

    caller = threading.local()

    def forward(*arguments):
        forward_mode = _torch_private.forward_mode or contextlib.nullcontext
        with torch.set_grad_enabled(caller.grad_enabled), forward_mode(), _torch_private.below_autograd():
            return operator(*arguments)

    def autograd(*arguments):
        caller.grad_enabled = torch.is_grad_enabled()
        with _torch_private.allow_single_level():
            return function.apply(*arguments)

    function.forward = staticmethod(forward)
    _LIBRARY.impl(name, autograd, "Autograd")
    return operator


def _forward_mode(jvp):
    """Decorator of a jvp, which is given the saved operands first, without the tangents of this level (0 at every level of
    torch.func); forward-mode differentiation is on, so that the levels around its own see more than a constant."""
    if not _torch_private.forward_mode:
        return torch.autograd.Function.jvp  # which refuses

    @functools.wraps(jvp)
    def run(ctx, *tangents):
        with _torch_private.forward_mode():
            operands = [None if t is None else forward_ad.unpack_dual(t, level=0).primal for t in ctx.saved_tensors]
            return jvp(ctx, operands, *tangents)

    return run


class Loss(_torch_private.Function):
    schema = f"loss({_OPERANDS}, str reduction, float label_smoothing, ScalarType dtype, int batch) -> Tensor"

    @staticmethod
    def compute(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch):
        if reduction == "none" or not batch:
            return _loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, dtype, False)[0]
        losses = _loss_and_gradient(input, target, weight, pos_weight, "none", label_smoothing, torch.float64, False)[0]
        return _reduced(losses, batch, reduction, dtype)

    @staticmethod
    def fake(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch):
        _check_target(input, target)
        check_weights(input, weight=weight, pos_weight=pos_weight)
        if reduction == "none":
            return torch.empty_like(target, dtype=dtype)
        return input.new_empty(input.shape[:batch], dtype=dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.reduction, ctx.label_smoothing, ctx.dtype, ctx.batch = inputs[4:]

    @staticmethod
    def backward(ctx, grad_output):
        options = ctx.reduction, ctx.label_smoothing, ctx.batch
        return *gradients(ctx.saved_tensors, ctx.needs_input_grad, grad_output, *options), None, None, None, None

    @staticmethod
    @_forward_mode
    def jvp(ctx, operands, *tangents):
        options = ctx.reduction, ctx.label_smoothing, ctx.batch
        total = sum(
            _times(tangent.double(), derivative(*operands, name, *options).double())
            for name, tangent in zip(_RESULTS, tangents)
            if tangent is not None
        )
        if ctx.reduction != "none":
            total = total.reshape(*total.shape[: ctx.batch], math.prod(total.shape[ctx.batch :])).sum(-1)
        return total.to(ctx.dtype)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        *options, batch = arguments[4:]
        return loss(*_moved_to_front(info.batch_size, in_dims, arguments[:4]), *options, batch + 1), 0


class LossAndGradient(_torch_private.Function):
    schema = f"loss_and_gradient({_OPERANDS}, str reduction, float label_smoothing, ScalarType dtype) -> (Tensor, Tensor)"

    @staticmethod
    def compute(*arguments):
        return _loss_and_gradient(*arguments, True)

    @staticmethod
    def fake(*arguments):
        return Loss.fake(*arguments, 0), torch.empty_like(arguments[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1], *inputs[:4])
        ctx.mark_non_differentiable(output[1])
        ctx.options = inputs[4:6]

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
        *options, dtype = arguments[4:]
        operands = _moved_to_front(info.batch_size, in_dims, arguments[:4])
        return (loss(*operands, *options, dtype, 1), derivative(*operands, "input", *options, 1)), (0, 0)


class Derivative(_torch_private.Function):
    schema = f"derivative({_OPERANDS}, str name, str reduction, float label_smoothing, int batch) -> Tensor"

    @staticmethod
    def compute(input, target, weight, pos_weight, name, reduction, label_smoothing, batch):
        operands = input, target, weight, pos_weight
        _check_target(input, target)
        count = math.prod(input.shape[batch:])
        if input.is_cuda and name == "input":
            return triton_gradient(*operands, reduction, label_smoothing, count)
        result = _empty_derivative(input, target, name)
        if input.is_cuda:
            return result.copy_(Formulae(*operands, reduction, label_smoothing, batch).first(name))
        evaluate(*operands, reduction, label_smoothing, (_RESULTS[name],), result, count=count)
        return result

    @staticmethod
    def fake(input, target, weight, pos_weight, name, reduction, label_smoothing, batch):
        check_weights(input, weight=weight, pos_weight=pos_weight)
        return _empty_derivative(input, target, name)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.name, *ctx.options = inputs[4:]

    @staticmethod
    def backward(ctx, grad_output):
        formulae = Formulae(*ctx.saved_tensors, *ctx.options)
        found = []
        for other, operand, needed in zip(_RESULTS, ctx.saved_tensors, ctx.needs_input_grad):
            second = formulae.second(ctx.name, other) if needed else None
            if second is not None:
                second = _times(grad_output.double(), second).sum_to_size(operand.shape).to(operand.dtype)
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
                total = total + _times(tangent.double(), second)
        return total.to(result.dtype)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        *options, batch = arguments[4:]
        return derivative(*_moved_to_front(info.batch_size, in_dims, arguments[:4]), *options, batch + 1), 0


def scaled_first(dtype, incoming):
    """Whether a gradient of this dtype is multiplied by a grad_output of dtype incoming before it is rounded: where it might
    underflow though a GradScaler's grad_output would lift it, and where grad_output would itself be rounded to dtype."""
    return dtype is torch.float16 or (dtype is torch.bfloat16 and incoming.itemsize > 2)


def gradients(operands, needed, grad_output, reduction, label_smoothing, batch=0):
    """The gradients in those operands for which it is needed, differentiable again; None for the others."""
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
            gradient = gradient * scale if name == "input" else _times(scale.to(gradient.dtype), gradient)
            gradient = gradient.sum_to_size(operand.shape).to(operand.dtype)
        found.append(gradient)
    return found


loss, loss_and_gradient, derivative = map(_register, (Loss, LossAndGradient, Derivative))


def _decompose(input, target, weight, pos_weight, reduction, label_smoothing, dtype, batch=0):
    """(the loss, its gradient in the input) in elementary operations, all of which ONNX has for float64.

    With t = e^-|x|, log(1 + t) is t - t^2 / 2 where 1 + t would lose t: either way the relative error is below 2^-34.
    """
    formulae = Formulae(input, target, weight, pos_weight, reduction, label_smoothing, batch)
    x = input.double()
    t = torch.exp(-x.abs())
    log = torch.where(t < 1e-5, t - 0.5 * t * t, torch.log(1 + t))
    negative, positive = formulae.w * formulae.complement / formulae.n, formulae.w * formulae.p * formulae.y / formulae.n
    losses = _times(negative, torch.where(x > 0, x, 0.0) + log) + _times(positive, torch.where(x < 0, -x, 0.0) + log)
    plus, minus = torch.where(x > 0, 1.0, t) / (1 + t), torch.where(x > 0, t, 1.0) / (1 + t)
    gradient = negative * plus - positive * minus
    if reduction != "none":
        losses = losses.flatten(batch).sum(-1) if losses.dim() > batch else losses
    return losses.to(dtype), gradient.to(input.dtype)


# For torch.onnx.export, which has no way to run an operator of ours.
_torch_private.register_decomposition(torch.ops.bce_bridge.loss.default)(lambda *arguments: _decompose(*arguments)[0])
_torch_private.register_decomposition(torch.ops.bce_bridge.loss_and_gradient.default)(_decompose)
