"""torch.nn.functional.binary_cross_entropy_with_logits on the C core. Imports torch and the core.

CPU tensors go to the core; tensors on other devices, and any with backend="aten", go to libtorch's own operator.
"""

import torch
from torch.nn import _reduction

from bce_bridge import _abi

BACKENDS = ("auto", "core", "aten")


def binary_cross_entropy_with_logits(
    input,
    target,
    weight=None,
    size_average=None,
    reduce=None,
    reduction="mean",
    pos_weight=None,
    *,
    label_smoothing=0.0,
    backend="auto",
):
    """Binary cross entropy between logits and targets, as torch.nn.functional's function of this name.

    l = w [(1 - y) log(1 + e^x) + p y log(1 + e^-x)] for each logit x, target y, weight w and pos_weight p.

    input       floating tensor of any shape: logits
    target      tensor of the same shape: probabilities; integer and boolean targets are taken in the input's dtype
    weight      tensor that broadcasts to the input's shape, or None
    pos_weight  likewise: the weight of the positive term; of shape (C,) for C classes in the last dimension
    size_average, reduce    deprecated, as in torch
    reduction   "mean" (over all elements, also with weights), "sum" or "none"
    label_smoothing         e in [0, 1]: targets y become y (1 - e) + e / 2
    backend     "auto": the core for CPU tensors, else libtorch; "core"; "aten": libtorch's own operator and bits

    Returns a tensor of the target's dtype (of the input's, if the target is integer or boolean), 0-d unless reduction is
    "none". Differentiable once in the input.

    Raises ValueError for an unknown reduction or backend, for a label_smoothing outside [0, 1] and for a target of another
    shape than the input's, RuntimeError for a weight that does not broadcast and for dtypes that hold no real numbers,
    TypeError for what is no tensor.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    _reduction.get_enum(reduction)  # torch's own error and warning
    if reduction == "elementwise_mean":
        reduction = "mean"
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, wants one of {', '.join(map(repr, BACKENDS))}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing!r}, wants a number in [0, 1]")
    tensors = {"input": input, "target": target, "weight": weight, "pos_weight": pos_weight}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) and not (tensor is None and name in ("weight", "pos_weight")):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}: use torch.as_tensor")
    if target.size() != input.size():
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    given = [tensor for tensor in tensors.values() if tensor is not None]
    on_cpu = all(tensor.device.type == "cpu" for tensor in given)
    if backend == "core" and not on_cpu:
        raise RuntimeError(f"backend 'core' wants CPU tensors, got {[str(tensor.device) for tensor in given]}")
    if backend == "aten" or not on_cpu:
        return _aten(input, target, weight, pos_weight, reduction, label_smoothing)
    for name in ("target", "weight", "pos_weight"):
        if tensors[name] is not None and tensors[name].requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"{name} requires grad, for which the core has no derivative: detach it, or use backend='aten'")
    return _Loss.apply(input, target, weight, pos_weight, reduction, float(label_smoothing))


def _aten(input, target, weight, pos_weight, reduction, label_smoothing):
    if not target.dtype.is_floating_point:
        target = target.to(input.dtype)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return torch.nn.functional.binary_cross_entropy_with_logits(
        input, target, weight, reduction=reduction, pos_weight=pos_weight
    )


class _Loss(torch.autograd.Function):
    """Loss and gradient in one pass when a gradient is wanted; only the gradient is kept."""

    @staticmethod
    def forward(ctx, input, target, weight, pos_weight, reduction, label_smoothing):
        loss, gradient = _evaluate(
            input, target, weight, pos_weight, reduction, label_smoothing, ctx.needs_input_grad[0]
        )
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None, None, None


def _describe(name, tensor):
    if tensor is None:
        return None
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or dtype not in _abi.DTYPES:
        raise RuntimeError(f"{name} is a {tensor.layout} tensor of dtype {tensor.dtype}, wants a strided one of real numbers")
    size = tensor.element_size()
    return _abi.Array(tensor.data_ptr(), dtype, tuple(tensor.shape), tuple(s * size for s in tensor.stride()))


def _evaluate(input, target, weight, pos_weight, reduction, label_smoothing, with_gradient):
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"input has dtype {input.dtype}, wants a floating one")
    # A view of an imaginary part may hold the numbers negated.
    input, target, weight, pos_weight = (
        tensor.resolve_neg() if tensor is not None else None for tensor in (input, target, weight, pos_weight)
    )
    dtype = target.dtype if target.dtype.is_floating_point else input.dtype
    loss = torch.empty_like(input, dtype=dtype) if reduction == "none" else torch.empty((), dtype=dtype)
    gradient = torch.empty_like(input) if with_gradient else None
    operands = [
        _describe(name, tensor)
        for name, tensor in (("input", input), ("target", target), ("weight", weight), ("pos_weight", pos_weight))
    ]
    try:
        _abi.evaluate(
            *operands,
            label_smoothing,
            reduction,
            loss=_describe("loss", loss),
            gradient=_describe("gradient", gradient),
        )
    except (TypeError, ValueError) as error:
        raise RuntimeError(str(error)) from None
    return loss, gradient
