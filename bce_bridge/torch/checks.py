"""What the torch layer refuses, in torch's words where torch refuses it too. Imports torch."""

import numbers

import torch

from bce_bridge.torch.evaluate import DTYPES


def target_error(input, target):
    """The error for a target whose shape is not the input's, in torch's words."""
    return ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")


def check_target(input, target):
    if target.shape != input.shape:
        raise target_error(input, target)


def check_tensor(name, value):
    """Raises TypeError if value is not a tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}: use torch.as_tensor")


def check_weights(input, **weights):
    """Raises RuntimeError if a weight does not broadcast to the input's shape. A weight may be None."""
    for name, tensor in weights.items():
        if tensor is None:
            continue
        sizes = zip(reversed(tensor.shape), reversed(input.shape))
        if tensor.dim() > input.dim() or any(size != 1 and size != wanted for size, wanted in sizes):
            raise RuntimeError(
                f"{name} of shape {tuple(tensor.shape)} does not broadcast to the input's shape {tuple(input.shape)}"
            )


def check_tensors(input, target, weight, pos_weight):
    for name, tensor in (("input", input), ("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if tensor is None and name in ("weight", "pos_weight"):
            continue
        check_tensor(name, tensor)
        if tensor.is_nested:
            raise RuntimeError(
                f"{name} is a nested tensor, wants a strided one: use to_padded_tensor(), with a weight of 0 for the padding"
            )


def check_readable(**tensors):
    for name, tensor in tensors.items():
        if tensor is None or (tensor.layout is torch.strided and tensor.dtype in DTYPES):
            continue
        if tensor.layout is not torch.strided:
            remedy = "to_dense()"
        else:
            remedy = "dequantize()" if tensor.is_quantized else "its .real" if tensor.is_complex() else "float()"
        got = f"{name} is a {tensor.layout} tensor of dtype {tensor.dtype}"
        raise RuntimeError(f"{got}, wants a strided one of real numbers: use {remedy}")


def checked_label_smoothing(value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"label_smoothing is {value!r}, wants a number in [0, 1]")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"label_smoothing is {value!r}, wants a number in [0, 1]")
    return float(value)
