"""Tensors to the core or to the Triton kernel, for values and first derivatives. Imports torch and the C interface."""

import functools

import torch

from bce_bridge import _abi, _errors

DTYPES = {getattr(torch, name): name for name in _abi.DTYPES}

_PLAIN = torch.Tensor, torch.nn.Parameter
_strided = torch.strided


class _Scalars(dict):
    """A 0-d tensor of each dtype. Made when first asked for, which never happens in a mode that would change it."""

    def __missing__(self, dtype):
        self[dtype] = tensor = torch.empty((), dtype=dtype, device="cpu")
        return tensor


_SCALARS = _Scalars()


def readable(input, target, weight, pos_weight):
    """Whether the core can read these tensors: plain, strided, in the CPU's memory, of DTYPES, without a pending negation.

    A weight may be None.
    """
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
                and (tensor.data_ptr() or not tensor.numel())  # 0 for a ZeroTensor, which has no storage
            ):
                return False
    except RuntimeError:
        return False
    return True


def has_memory(tensor):
    """False for a batched tensor, such as grad_output under torch.autograd.grad(is_grads_batched=True)."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def describe(tensor):
    """Describe a tensor for the core. None gives None."""
    if tensor is None:
        return None
    strides = [tensor.itemsize * stride for stride in tensor.stride()]
    return _abi.Array(tensor.data_ptr(), DTYPES[tensor.dtype], tensor.shape, strides)


@functools.lru_cache(256)
def _idle_calls(*description):
    """Calls of the core on tensors of this description that no thread is making just now.

    Describing the tensors again would take longer than the loss of a thousand elements.
    """
    return []


def evaluate(input, target, weight, pos_weight, reduction, label_smoothing, names, *results, count=0):
    """Have the core compute the named results of bce_results into these tensors, all on the CPU and of DTYPES.

    Results of more than 0 dimensions are as torch.empty_like makes them: of the target for loss and d_targets, else of the
    input. All but the first also have that tensor's dtype. Under "mean" derivatives are divided by count, or by the number of
    elements if count is 0. Raises RuntimeError for a weight that does not broadcast.
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
        raise RuntimeError(_errors.renamed(error, "input", "target")) from None
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
    from bce_bridge.torch import triton_kernel

    # The kernel takes the loss's dtype from a floating target, else from the input.
    if target.is_floating_point() or dtype != input.dtype:
        target = target.to(dtype)
    operands = _for_triton(input, target, weight, pos_weight)
    return triton_kernel.loss_and_gradient(*operands, reduction, label_smoothing, with_gradient)


def triton_gradient(input, target, weight, pos_weight, reduction, label_smoothing, count):
    """The gradient of CUDA tensors. Under "mean" it is divided by count, or by the number of elements if count is 0."""
    from bce_bridge.torch import triton_kernel

    return triton_kernel.gradient(*_for_triton(input, target, weight, pos_weight), reduction, label_smoothing, count)


def triton_partial_sums(input, target, weight, pos_weight, label_smoothing):
    """Lists of bce_partial's fields whose sum is the exact sum of the losses of CUDA tensors."""
    from bce_bridge.torch import triton_kernel

    return triton_kernel.partial_sums(*_for_triton(input, target, weight, pos_weight), label_smoothing)


def _for_triton(input, *others):
    # A 0-d weight may be on the CPU. A view of an imaginary part may be lazily negated.
    return [None if tensor is None else tensor.to(input.device).resolve_neg() for tensor in (input, *others)]
