"""Exact sums, as in c_src/bce_partial.c: fixed-point numbers that blocks add to in any order, and their one rounding."""

import triton
import triton.language as tl

from bce_bridge.torch.triton_kernel.float64 import _bits, _from_bits, _minus
from bce_bridge.torch.triton_kernel.memory import _rounded

# A partial sum is a few rows, to be added up, each with the fields of bce_partial: blocks add to different rows, so as not to
# queue for one. Integer additions have no order, so that the total is the same whenever each comes.
LIMBS = tl.constexpr(68)
COUNT, NAN, PLUS_INFINITY, MINUS_INFINITY = tl.constexpr(68), tl.constexpr(69), tl.constexpr(70), tl.constexpr(71)
FIELDS = tl.constexpr(128)
ROWS = tl.constexpr(32)
SIZE = tl.constexpr(32 * 128)


@triton.jit
def _row(partial):
    """This program's row of a partial sum."""
    return partial + tl.program_id(0) % ROWS * FIELDS


@triton.jit
def _deposit(partial, numbers, mask):
    """Add the numbers to a row of the partial sum, exactly: those under the mask, limb by limb."""
    bits = _bits(numbers)
    exponent = (bits >> 52) & 0x7FF
    finite = mask & (exponent != 0x7FF)
    mantissa = (bits & ((1 << 52) - 1)) | (tl.where(exponent > 0, 1, 0).to(tl.int64) << 52)
    mantissa = tl.where(finite, mantissa, 0)
    position = tl.maximum(exponent - 1, 0)  # number = mantissa 2^(position - 1074)
    limb = (position >> 5).to(tl.int32)
    first = tl.min(tl.where(mantissa != 0, limb, LIMBS), 0)
    last = tl.max(tl.where(mantissa != 0, limb + 2, -1), 0)
    for j in range(first, last + 1):
        # What lies between 2^(32 j) and 2^(32 j + 32): a shift by 32 or by 63 leaves nothing of it.
        left = position - 32 * j
        digits = (mantissa << tl.minimum(tl.maximum(left, 0), 32)) >> tl.minimum(tl.maximum(-left, 0), 63)
        digits = digits & 0xFFFFFFFF
        tl.atomic_add(partial + j, tl.sum(tl.where(bits < 0, -digits, digits), 0), sem="relaxed")
    if tl.max((mask & (exponent == 0x7FF)).to(tl.int32), 0) > 0:
        tl.atomic_add(partial + NAN, tl.sum((mask & (numbers != numbers)).to(tl.int64), 0), sem="relaxed")
        tl.atomic_add(partial + PLUS_INFINITY, tl.sum((mask & (numbers == float("inf"))).to(tl.int64), 0), sem="relaxed")
        tl.atomic_add(partial + MINUS_INFINITY, tl.sum((mask & (numbers == -float("inf"))).to(tl.int64), 0), sem="relaxed")


@triton.jit
def _deposit_interval(partial, total, low, error, units, UNIT_LIMB: tl.constexpr):
    """Add the float32 total + low, less and plus the error and so many units of 2^(32 UNIT_LIMB - 1051), to the two partial
    sums that are the ends of an interval: each number's two digits, by one instruction."""
    k = tl.arange(0, 16)
    upper = k >> 3
    which = k & 7
    number = tl.where(which < 2, total, low + tl.where(upper == 1, error, error * -1.0))
    bits = number.to(tl.int32, bitcast=True)
    exponent = (bits >> 23) & 0xFF
    mantissa = ((bits & 0x7FFFFF) | (tl.where(exponent > 0, 1, 0) << 23)).to(tl.int64)
    position = tl.maximum(exponent, 1) + (1074 - 150)  # number = mantissa 2^(position - 1074)
    digits = mantissa << (position & 31).to(tl.int64)
    digit = tl.where((which & 1) == 1, digits >> 32, digits & 0xFFFFFFFF)
    digit = tl.where(bits < 0, 0 - digit, digit)
    limb = (position >> 5) + (which & 1)
    digit = tl.where(which == 4, tl.where(upper == 1, units, 0 - units) << 23, digit)
    limb = tl.where(which == 4, UNIT_LIMB, limb)
    tl.atomic_add(_row(partial) + upper * SIZE + limb, digit, which < 5, sem="relaxed")


@triton.jit
def _low(x):
    """x less a multiple of 2^32, in [-2^31, 2^31)."""
    return ((x & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


@triton.jit
def _carry(x):
    return (x - _low(x)) >> 32


@triton.jit
def _sums_of_rows(partial, j, COPIES: tl.constexpr):
    """The limbs j of the sum of all rows, each below 2^38 in magnitude, of so many partial sums."""
    rows = tl.arange(0, COPIES)[:, None, None] * SIZE + tl.arange(0, ROWS)[None, :, None] * FIELDS
    at = partial + rows + j[None, None, :]
    here = tl.load(at, ((j >= 0) & (j < LIMBS))[None, None, :], other=0, cache_modifier=".cg")
    below = tl.load(at - 1, ((j > 0) & (j <= LIMBS))[None, None, :], other=0, cache_modifier=".cg")
    return tl.sum(_low(here) + _carry(below), 1)


@triton.jit
def _limb(limbs, j, i):
    return tl.sum(tl.where(j[None, :] == i[:, None], limbs, 0), 1)


@triton.jit
def _assemble(mantissa, sticky, exponent, ODD: tl.constexpr):
    """(mantissa + something below 1 if sticky) 2^exponent for 2^59 <= mantissa < 2^60, rounded to nearest even or to odd."""
    binade = exponent + 59
    drop = tl.minimum(7 + tl.maximum(-1022 - binade, 0), 61).to(tl.int64)
    kept = mantissa >> drop
    rest = mantissa - (kept << drop)
    half = tl.full((), 1, tl.int64) << (drop - 1)
    if ODD:
        kept |= ((rest != 0) | sticky).to(tl.int64)
    else:
        kept += ((rest > half) | ((rest == half) & (sticky | ((kept & 1) == 1)))).to(tl.int64)
    bits = kept + (tl.maximum(binade + 1022, 0).to(tl.int64) << 52)
    return tl.where(binade > 1023, float("inf"), _from_bits(bits))


@triton.jit
def _rounded_sums(partial, divisor, shift, COPIES: tl.constexpr, ODD: tl.constexpr):
    """So many partial sums times 2^shift over divisor in [2^46, 2^47), as float64 rounded to nearest even or to odd.

    With digits in about [-2^31, 2^31], got by carrying twice, the first that is not 0 has the sign of the sum. It and the next
    four, less 1 if the rest is negative, have 127 bits or more, of which the first 106 are divided: 46, then 15 at a time.
    """
    j = tl.arange(0, FIELDS)
    limbs = _low(_sums_of_rows(partial, j, COPIES)) + _carry(_sums_of_rows(partial, j - 1, COPIES))
    top = tl.max(tl.where(limbs != 0, j[None, :], -1), 1)
    sign = tl.where(_limb(limbs, j, top) < 0, -1, 1).to(tl.int64)
    below = sign * _limb(limbs, j, tl.max(tl.where((limbs != 0) & (j[None, :] < top[:, None] - 4), j[None, :], -1), 1))
    a4 = sign * _limb(limbs, j, top - 4) - (below < 0).to(tl.int64)
    a3 = sign * _limb(limbs, j, top - 3) + (a4 >> 32)
    a2 = sign * _limb(limbs, j, top - 2) + (a3 >> 32)
    a1 = sign * _limb(limbs, j, top - 1) + (a2 >> 32)
    a0 = sign * _limb(limbs, j, top) + (a1 >> 32)
    a1 = a1 & 0xFFFFFFFF
    a2 = a2 & 0xFFFFFFFF
    a3 = a3 & 0xFFFFFFFF
    a4 = a4 & 0xFFFFFFFF

    # Shift the leading bit, one of the first 34, to the front. The 43 bits that find it are exact in float64.
    leading = 1065 - (_bits(((a0 << 11) | (a1 >> 21)).to(tl.float64)) >> 52)
    leading = tl.minimum(leading, 33)
    whole = leading >= 32
    b0 = tl.where(whole, a1, a0)
    b1 = tl.where(whole, a2, a1)
    b2 = tl.where(whole, a3, a2)
    b3 = tl.where(whole, a4, a3)
    b4 = tl.where(whole, 0, a4)
    left = leading & 31
    c0 = ((b0 << left) | (b1 >> (32 - left))) & 0xFFFFFFFF
    c1 = ((b1 << left) | (b2 >> (32 - left))) & 0xFFFFFFFF
    c2 = ((b2 << left) | (b3 >> (32 - left))) & 0xFFFFFFFF
    c3 = ((b3 << left) | (b4 >> (32 - left))) & 0xFFFFFFFF

    remainder = (c0 << 14) | (c1 >> 18)
    digits = ((c1 & 0x3FFFF) << 42) | (c2 << 10) | (c3 >> 22)
    quotient = remainder // divisor
    for k in tl.static_range(4):
        remainder = (remainder << 15) | ((digits >> (45 - 15 * k)) & 0x7FFF)
        quotient = (quotient << 15) + remainder // divisor
        remainder = remainder % divisor
    sticky = (remainder != 0) | ((c3 & 0x3FFFFF) != 0) | (((b4 << left) & 0xFFFFFFFF) != 0) | (below != 0)
    exponent = 54 - leading + 32 * (top - 4) + shift - 1074
    short = quotient < (1 << 59)
    quotient = tl.where(short, quotient << 1, quotient)
    exponent = tl.where(short, exponent - 1, exponent)
    result = _assemble(quotient, sticky, exponent, ODD)
    result = tl.where(top < 0, 0.0, tl.where(sign < 0, _minus(result), result))

    rows = partial + tl.arange(0, COPIES)[:, None] * SIZE + tl.arange(0, ROWS)[None, :] * FIELDS
    nan = tl.sum(tl.load(rows + NAN, cache_modifier=".cg"), 1) > 0
    plus = tl.sum(tl.load(rows + PLUS_INFINITY, cache_modifier=".cg"), 1) > 0
    minus = tl.sum(tl.load(rows + MINUS_INFINITY, cache_modifier=".cg"), 1) > 0
    result = tl.where(plus, float("inf"), tl.where(minus, -float("inf"), result))
    result = tl.where(nan | (plus & minus), float("nan"), result)
    return result


@triton.jit
def _store_rounded_sum(partial, sum, divisor, shift):
    """Store the partial sum times 2^shift over divisor, rounded once."""
    ODD: tl.constexpr = sum.dtype.element_ty != tl.float64
    rounded = _rounded(_rounded_sums(partial, divisor, shift, 1, ODD), sum.dtype.element_ty)
    tl.store(sum + tl.arange(0, 1), rounded)


@triton.jit
def _store_upper_end(interval, sum, divisor, shift):
    """Store the upper of two partial sums, rounded, and return 0 if the other rounds to the same bits."""
    k = tl.arange(0, 2)
    ends = _rounded(_rounded_sums(interval, divisor, shift, 2, True), sum.dtype.element_ty)
    tl.store(sum + k * 0, ends, k == 1)
    if sum.dtype.element_ty == tl.float32:
        bits = ends.to(tl.int32, bitcast=True)
    else:
        bits = ends.to(tl.int16, bitcast=True).to(tl.int32)
    return tl.sum((bits != tl.min(bits, 0)).to(tl.int32), 0)


@triton.jit(do_not_specialize=["divisor", "shift"])
def _round_partial(partial, sum, divisor: tl.int64, shift):
    _store_rounded_sum(partial, sum, divisor, shift)
