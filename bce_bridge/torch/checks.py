"""What the torch layer refuses, in torch's words where torch refuses it too. Imports torch."""

import torch

from bce_bridge import _errors
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
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}: use torch.as_tensor")


def check_weights(input, **weights):
    """Raises RuntimeError if a weight does not broadcast to the input's shape. A weight may be None."""
    for name, tensor in weights.items():
        if tensor is None:
            continue
        sizes = zip(reversed(tensor.shape), reversed(input.shape))
        if tensor.dim() > input.dim() or any(size != 1 and size != wanted for size, wanted in sizes):
            raise _errors.not_broadcast(name, tensor, input)


def check_tensors(input, target, weight, pos_weight):
    for name, tensor in (("input", input), ("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if tensor is None and name in ("weight", "pos_weight"):
            continue
        check_tensor(name, tensor)
        if tensor.is_nested:
            remedy = "use to_padded_tensor(), with a weight of 0 for the padding"
            raise RuntimeError(f"{name} must be a strided tensor, got a nested tensor: {remedy}")


def check_readable(**tensors):
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.layout is not torch.strided or tensor.dtype not in DTYPES):
            raise _errors.not_readable(name, tensor)
