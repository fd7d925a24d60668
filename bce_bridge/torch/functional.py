"""torch.nn.functional.binary_cross_entropy_with_logits on the C core. Imports torch, the operators and the core.

CPU tensors go to the core and CUDA tensors to the Triton kernel. Tensors on other devices, and any with backend="aten", go to
libtorch's own operator. Plain tensors in eager mode take the shortest way, EagerLoss; everything else goes through the
operators of operators.py.
"""

import functools
import importlib
import importlib.metadata
import os
import sys
import warnings

import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic

from bce_bridge import _errors
from bce_bridge.torch import _private, checks, evaluate, operators
from bce_bridge.torch.autograd import EagerLoss
from bce_bridge.torch.derivatives import scaled_first

BACKENDS = ("auto", "core", "triton", "aten")


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
    """Compute the binary cross entropy of logits and targets, as torch.nn.functional's function of this name.

    Parameters
    ----------
    input : Tensor
        Logits: a floating tensor of any shape.
    target : Tensor
        Probabilities: a tensor of the input's shape. Integer and boolean targets are taken in the input's dtype.
    weight : Tensor, optional
        Broadcasts to the input's shape.
    size_average, reduce : bool, optional
        Deprecated, as in torch.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements, also with weights.
    pos_weight : Tensor, optional
        Weight of the positive term; broadcasts to the input's shape. For C classes in the last dimension its shape is (C,).
    label_smoothing : float, default 0.0
        e in [0, 1]: targets y become y (1 - e) + e / 2.
    backend : {"auto", "core", "triton", "aten"}, default "auto"
        "auto" takes the C core for CPU tensors, the Triton kernel for CUDA tensors, and libtorch for others. "aten" is
        libtorch's own operator, with its bits.

    Returns
    -------
    Tensor
        0-d unless reduction is "none". The dtype is the target's, or the input's if the target is integer or boolean; autocast
        makes a narrower one float32. Differentiable any number of times in input, target, weight and pos_weight. Gradients have
        the dtype and shape of what they belong to.

    Raises
    ------
    TypeError
        If an operand is not a tensor or label_smoothing is not a number.
    ValueError
        If reduction or backend is unknown, label_smoothing is outside [0, 1], or the target's shape is not the input's.
    RuntimeError
        If a weight does not broadcast to the input's shape, the input is not floating, or the core does not read a dtype or
        layout.

    Notes
    -----
    For each logit x, target y, weight w and pos_weight p

        l = w [(1 - y) log(1 + e^x) + p y log(1 + e^-x)]

    Examples
    --------
    >>> import torch
    >>> from bce_bridge import binary_cross_entropy_with_logits
    >>> logits = torch.tensor([2.0, -1.0], requires_grad=True)
    >>> loss = binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0]), reduction="sum")
    >>> loss.backward()
    >>> round(loss.item(), 4), logits.grad
    (0.4402, tensor([-0.1192,  0.2689]))
    """
    if has_torch_function_variadic(input, target, weight, pos_weight):
        return handle_torch_function(
            binary_cross_entropy_with_logits,
            (input, target, weight, pos_weight),
            input,
            target,
            weight=weight,
            size_average=size_average,
            reduce=reduce,
            reduction=reduction,
            pos_weight=pos_weight,
            label_smoothing=label_smoothing,
            backend=backend,
        )
    if size_average is not None or reduce is not None:
        reduction = torch.nn.BCEWithLogitsLoss(None, size_average, reduce).reduction  # with torch's own warning
    elif reduction not in ("mean", "sum", "none"):
        reduction = _deprecated_mean(reduction)
    compiling = torch.compiler.is_compiling()
    plain = not compiling and evaluate.readable(input, target, weight, pos_weight)
    if not plain:
        checks.check_tensors(input, target, weight, pos_weight)
    if target.size() != input.size():
        raise checks.target_error(input, target)
    if type(label_smoothing) is not float or not 0.0 <= label_smoothing <= 1.0:
        label_smoothing = _errors.checked_label_smoothing(label_smoothing)
    kernel = "core" if plain and backend in ("auto", "core") else kernel_for(backend, input, target, weight, pos_weight)
    if kernel == "aten":
        return _aten(input, target, weight, pos_weight, reduction, label_smoothing)
    if not plain:
        checks.check_readable(input=input, target=target, weight=weight, pos_weight=pos_weight)
    if not input.is_floating_point():
        raise _errors.not_floating(input)

    dtype = loss_dtype(input, target, "cpu" if plain or input.is_meta else input.device.type)
    differentiable = torch.is_grad_enabled() and (
        input.requires_grad
        or target.requires_grad
        or (weight is not None and weight.requires_grad)
        or (pos_weight is not None and pos_weight.requires_grad)
    )
    arguments = input, target, weight, pos_weight, reduction, label_smoothing, dtype
    if kernel == "operator" or compiling or _private.intercepted():
        return _operator(differentiable, *arguments)
    compute = evaluate.triton_loss_and_gradient if kernel == "triton" else evaluate.core_loss_and_gradient
    return EagerLoss.apply(*arguments, compute) if differentiable else compute(*arguments, False)[0]


def _deprecated_mean(reduction):
    if reduction != "elementwise_mean":
        raise ValueError(f"{reduction} is not a valid value for reduction")  # torch's words
    warnings.warn("reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.", stacklevel=3)
    return "mean"


def loss_dtype(input, target, device_type):
    """Dtype of the loss, elementwise or reduced, in the current autocast mode of this type of device."""
    dtype = target.dtype if target.is_floating_point() else input.dtype
    if dtype is not torch.float64 and torch.is_autocast_enabled(device_type):
        return torch.float32
    return dtype


@_private.constant_when_compiled  # torch 2.11 would trace even into a cached function
def _triton_problem(device):
    """Why the CUDA kernels do not work on this device, or None."""
    return _find_triton_problem(device)


@functools.cache
def _find_triton_problem(device):
    try:
        triton_kernel = importlib.import_module("bce_bridge.torch.triton_kernel")
    except ImportError as error:  # Triton is missing or too old
        return f"the package triton, 3.4 or newer, is needed ({error}): pip install triton"
    if not triton_kernel.gives_the_cores_bits(device):
        version = importlib.metadata.version("triton")
        return f"with Triton {version} the kernels do not give the C core's bits on {device}: use another Triton"
    return None


@functools.cache
def _warn_of_aten(problem):
    warnings.warn(f"CUDA tensors go to libtorch's own loss: {problem}", RuntimeWarning, stacklevel=4)


def kernel_for(backend, input, target, weight, pos_weight):
    """What computes the loss: "core", "triton", "aten", or "operator" if the operators of operators.py choose."""
    if backend not in BACKENDS:
        raise _errors.choice("backend", BACKENDS, backend)
    if backend == "aten":
        return backend
    given = [tensor for tensor in (input, target, weight, pos_weight) if tensor is not None]
    on_cpu = all(tensor.is_cpu for tensor in given)
    plain = all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in given)
    # As in torch, a 0-d tensor may stay on the CPU.
    on_cuda = (
        input.is_cuda
        and torch.version.hip is None
        and all(tensor.device == input.device or (tensor.is_cpu and not tensor.dim()) for tensor in given)
    )
    if backend == "auto":
        if on_cpu or all(tensor.is_meta for tensor in given):
            return "operator"
        if not on_cuda:
            return "aten"
        if problem := _triton_problem(input.device):
            if not torch.compiler.is_compiling():
                _warn_of_aten(problem)
            return "aten"
        return "triton" if plain else "operator"
    devices = [str(tensor.device) for tensor in given]
    if backend == "core":
        if not on_cpu:
            raise RuntimeError(f"tensors must be on the CPU for backend 'core', got {devices}")
        return "operator"
    if not on_cuda and not (on_cpu and os.environ.get("TRITON_INTERPRET") == "1"):
        remedy = "move them, or set TRITON_INTERPRET=1 to interpret the kernel"
        raise RuntimeError(f"tensors must be on a CUDA device for backend 'triton', got {devices}: {remedy}")
    if problem := _triton_problem(input.device):
        raise RuntimeError(f"backend must not be 'triton' on {input.device}: {problem}")
    return "triton" if plain else "operator"


def _aten(input, target, weight, pos_weight, reduction, label_smoothing):
    if not target.dtype.is_floating_point:
        target = target.to(input.dtype)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return torch.nn.functional.binary_cross_entropy_with_logits(
        input, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def _operator(differentiable, input, target, weight, pos_weight, reduction, label_smoothing, dtype):
    """The loss by the operators of operators.py."""
    operands = input, target, weight, pos_weight
    if torch.jit.is_tracing():  # a TorchScript graph cannot hold an operator written in Python
        return _aten(*operands, reduction, label_smoothing)
    if distributed := sys.modules.get("torch.distributed.tensor"):
        if any(isinstance(tensor, distributed.DTensor) for tensor in operands):
            from bce_bridge.torch.distributed import dtensor_loss

            return dtensor_loss(*operands, reduction, label_smoothing)
    if differentiable and input.requires_grad and not scaled_first(input.dtype, dtype) and not _private.transforming():
        return operators.loss_and_gradient(*operands, reduction, label_smoothing, dtype)[0]
    return operators.loss(*operands, reduction, label_smoothing, dtype, 0)
