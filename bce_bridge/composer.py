"""Composer's binary cross entropy with logits, computed by bce_bridge. Imports torch and the functional layer, not Composer.

In place of composer.loss.binary_cross_entropy_with_logits:

    from bce_bridge.composer import binary_cross_entropy_with_logits
"""

import warnings

import torch

from bce_bridge.torch import checks, functional

__all__ = ["binary_cross_entropy_with_logits"]


def binary_cross_entropy_with_logits(
    input,
    target,
    weight=None,
    size_average=None,
    reduce=None,
    reduction="sum",
    pos_weight=None,
    scale_by_batch_size=True,
):
    """composer.loss.binary_cross_entropy_with_logits, computed by bce_bridge.binary_cross_entropy_with_logits.

    Parameters
    ----------
    input : Tensor
        Logits of C classes: a floating tensor of shape (N, C) or (N, C, d1, ..., dK).
    target : Tensor
        Class indices: an integer tensor of shape (N) or (N, d1, ..., dK). A negative index stands for no class and gives a
        UserWarning. Or probabilities, of the input's shape.
    weight, pos_weight : Tensor, optional
        Broadcast to the input's shape from its last dimension, as in torch. One number a class has shape (C,) under (N, C), and
        (C, 1, ..., 1) with K ones under (N, C, d1, ..., dK).
    size_average, reduce : bool, optional
        Deprecated, as in torch. Composer 0.14 and newer lack them and take reduction fourth. Here pass reduction by name: a
        string as size_average is refused.
    reduction : {"sum", "mean", "none"}, default "sum"
        "mean" divides by the number of elements.
    scale_by_batch_size : bool, default True
        Divide the result of any reduction by N, which is input.shape[0].

    Returns
    -------
    Tensor
        float32, 0-d unless reduction is "none". The sum is correctly rounded, and the division rounds once more.

    Raises
    ------
    TypeError
        If input or target is not a tensor, or size_average is a string.
    RuntimeError
        If the target's number of dimensions fits neither form.
    ValueError
        If the indices are not integers, an index is C or larger, or the target's sizes do not fit.
    IndexError
        If the input lacks the dimensions N and C that indices need.
    Exception
        Else whatever `bce_bridge.binary_cross_entropy_with_logits` raises.

    Examples
    --------
    >>> import torch
    >>> from bce_bridge.composer import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(torch.tensor([[2.0, -1.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    tensor(0.7233)
    """
    if isinstance(size_average, str):
        raise TypeError(f"size_average must be a bool or None, got {size_average!r}: write reduction={size_average!r}")
    for name, tensor in (("input", input), ("target", target)):
        checks.check_tensor(name, tensor)
    if input.shape != target.shape:
        target = _one_hot(input, target)
    # The loss takes its dtype from floating targets, else from the input. Composer's is float32.
    if target.dtype.is_floating_point or input.dtype != torch.float32:
        target = target.float()
    loss = functional.binary_cross_entropy_with_logits(input, target, weight, size_average, reduce, reduction, pos_weight)
    return loss / input.shape[0] if scale_by_batch_size else loss


def _one_hot(input, indices):
    """Boolean targets, which take a quarter of the memory of float32 ones and are read as fast."""
    if input.ndim != indices.ndim + 1:
        raise RuntimeError(
            f"Unable to infer indices or one_hot. Targets has shape {indices.shape} and the inputs to cross entropy has shape "
            f"{input.shape}. For one_hot, expect targets.shape == inputs.shape. For indices, expect inputs.ndim == "
            "targets.ndim + 1"
        )
    if indices.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(f"tensor must be integer type, current type: {indices.dtype}")
    if input.ndim < 2:
        raise IndexError(f"input must have shape (N, C) or (N, C, d1, ..., dK), got shape {tuple(input.shape)}")
    classes = input.shape[1]
    indices = indices.long()
    least, largest = map(int, indices.aminmax()) if indices.numel() else (0, -1)
    if largest >= classes:
        raise ValueError(f"num_classes must be greater than or equal to tensor.max() + 1: {classes} < {largest + 1}")
    present = True
    if least < 0:
        warnings.warn("Negative label indices are being ignored in conversion to one-hot labels", stacklevel=3)
        present = (indices >= 0).unsqueeze(1)
        indices = indices.clamp(min=0)
    shape = (*indices.shape[:1], classes, *indices.shape[1:])
    return torch.zeros(shape, dtype=torch.bool, device=indices.device).scatter_(1, indices.unsqueeze(1), present)
