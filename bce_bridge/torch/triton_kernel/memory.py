"""Operands in the device's memory: where their elements lie, and how they become float64 or float32 and back."""

import functools

import torch
import triton
import triton.language as tl

from bce_bridge import _errors
from bce_bridge.torch.triton_kernel.float64 import _bits

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATING, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
# Each element adds less than 2^32 to a limb of its row of a partial sum, which holds less than 2^63.
MAX_ELEMENTS = 2**36


@triton.jit
def _offsets(element, shape, strides):
    """Where the elements lie, given a stride for each dimension, or one if they lie as in one dimension."""
    rest = element
    offsets = tl.zeros_like(element).to(tl.int64)
    for d in tl.static_range(len(strides) - 1, 0, -1):
        offsets += (rest % shape[d]).to(tl.int64) * strides[d]
        rest = rest // shape[d]
    return offsets + rest.to(tl.int64) * strides[0]


@triton.jit
def _load(pointer, offsets, mask, dtype: tl.constexpr, OTHER: tl.constexpr = 0):
    number = tl.load(pointer + offsets, mask, other=OTHER)
    if pointer.dtype.element_ty == tl.bfloat16:
        number = (number.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return number.to(dtype)


@triton.jit
def _to_16_bits(x, FRACTION: tl.constexpr, BIAS: tl.constexpr):
    """The bits, in an int16, of x rounded once to a format of that many fraction bits and exponent bias.

    By integers, since conversion in hardware goes through float32 and would round twice. Adding half a unit, less one where
    the last kept bit is even, carries exactly when a normal number is to be rounded up. Adding the power of two whose unit in
    the last place is the format's least number rounds a subnormal one, and leaves it in the low bits.
    """
    DROPPED: tl.constexpr = 52 - FRACTION
    SHIFT: tl.constexpr = 2.0 ** (53 - BIAS - FRACTION)
    magnitude = tl.abs(x)
    bits = _bits(magnitude)
    half = (1 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1)
    normal = ((bits + half) >> DROPPED) - ((1023 - BIAS) << FRACTION)
    subnormal = _bits(magnitude + SHIFT) - ((1023 + 53 - BIAS - FRACTION) << 52)
    infinity: tl.constexpr = (2 * BIAS + 1) << FRACTION
    rounded = tl.minimum(tl.where(magnitude < 2.0 ** (1 - BIAS), subnormal, normal), infinity)
    rounded = tl.where(x == x, rounded, infinity | (1 << (FRACTION - 1)))
    return (rounded | ((_bits(x) >> 63) << 15)).to(tl.int16)


@triton.jit
def _rounded(x, dtype: tl.constexpr):
    if dtype == tl.float16:
        return _to_16_bits(x, 10, 15).to(tl.float16, bitcast=True)
    if dtype == tl.bfloat16:
        return _to_16_bits(x, 7, 127).to(tl.bfloat16, bitcast=True)
    return x.to(dtype)


def _expanded(name, tensor, input):
    """The tensor in the input's shape, by strides of 0."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES:
        raise _errors.not_readable(name, tensor)
    if tensor.device != input.device:
        raise RuntimeError(f"{name} must be on the input's device {input.device}, got {tensor.device}")
    try:
        tensor = tensor.resolve_neg()
        return tensor if tensor.shape == input.shape else tensor.expand(input.shape)
    except RuntimeError:
        raise _errors.not_broadcast(name, tensor, input) from None


def _merged(shape, strides):
    """The strides of all tensors for the shape with neighbouring dimensions merged wherever all of them allow it."""
    sizes, merged = [1], [[0] for _ in strides]
    for size, *steps in zip(shape, *strides):
        if sizes[-1] == 1 or all(outer[-1] == size * step for outer, step in zip(merged, steps)):
            sizes[-1] *= size
            for outer, step in zip(merged, steps):
                outer[-1] = step
        else:
            sizes.append(size)
            for outer, step in zip(merged, steps):
                outer.append(step)
    return tuple(sizes), [tuple(outer) for outer in merged]


@functools.lru_cache(256)  # to find it again takes longer than the loss of a thousand elements
def common_layout(shape, *strides):
    """The shape of all tensors and their strides, as _offsets takes them, in the order of the first one's memory."""
    order = sorted((d for d in range(len(shape)) if shape[d] != 1), key=lambda d: -strides[0][d])
    shape = [shape[d] for d in order]
    shape, strides = _merged(shape, [[steps[d] for d in order] for steps in strides])
    alone = [_merged(shape, [steps])[1][0] for steps in strides]
    return shape, [own if len(own) == 1 else steps for own, steps in zip(alone, strides)]


def checked(input, target, weight, pos_weight, label_smoothing):
    """The operands in the input's shape, None where there is none; errors as in loss_and_gradient."""
    _errors.checked_label_smoothing(label_smoothing)
    if input.dtype not in FLOATING:
        raise _errors.not_floating(input)
    if target.shape != input.shape:
        raise RuntimeError(f"target must have the input's shape {tuple(input.shape)}, got shape {tuple(target.shape)}")
    if input.numel() > MAX_ELEMENTS:
        raise RuntimeError(f"input must have at most {MAX_ELEMENTS} elements, got {input.numel()}")
    given = {"input": input, "target": target, "weight": weight, "pos_weight": pos_weight}
    return [None if tensor is None else _expanded(name, tensor, input) for name, tensor in given.items()]
