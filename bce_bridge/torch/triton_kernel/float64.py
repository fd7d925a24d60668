"""The C core's float64 formulae, operation for operation.

Functions are named as in c_src/, where the derivations and error bounds stand: bce_math.h (formulae), bce_kernel.inc (tails and
settling), bce_accurate.c (double-double).

Constants that are no float32 come from their bits: Triton 3.4 to 3.8 round a float that is an argument of tl.fma or tl.where,
an element of a tuple or a negation to float32. An integer arrives whole.
"""

import struct

import triton
import triton.language as tl

from bce_bridge.torch.triton_kernel import constants


def bits_of(*numbers):
    """The bits of these float64, for _constant; a tuple if there are several."""
    bits = struct.unpack(f"{len(numbers)}q", struct.pack(f"{len(numbers)}d", *numbers))
    return tl.constexpr(bits if len(bits) > 1 else bits[0])


def _bits_of_hex(*texts):
    return bits_of(*map(float.fromhex, texts))


LN2_HIGH = _bits_of_hex(constants.LN2_HIGH)
LN2_LOW = _bits_of_hex(constants.LN2_LOW)
LN2_LOWEST = _bits_of_hex(constants.LN2_LOWEST)
LOG2_E = _bits_of_hex(constants.LOG2_E)
EXP_POLYNOMIAL = _bits_of_hex(*constants.EXP_POLYNOMIAL)
LOG1P_POLYNOMIAL = _bits_of_hex(*constants.LOG1P_POLYNOMIAL)
TO_INTEGER = bits_of(1.5 * 2**52 + (1023 + 54))
SMALLEST = bits_of(2.0**-1000)
TAIL = tl.constexpr(700.0)


@triton.jit
def _constant(BITS: tl.constexpr):
    return tl.full((), BITS, tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _bits(x):
    return x.to(tl.int64, bitcast=True)


@triton.jit
def _from_bits(bits):
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def _negative(x):
    return _bits(x) < 0


@triton.jit
def _minus(x):
    """-x, for which some versions of Triton compute 0 - x, losing the sign of a zero."""
    return x * -1.0


@triton.jit
def _polynomial(x, COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr):
    square = x * x
    q = tl.fma(_constant(COEFFICIENTS[COUNT - 1]), x, _constant(COEFFICIENTS[COUNT - 2]))
    for k in tl.static_range(COUNT - 4, -1, -2):
        q = tl.fma(q, square, tl.fma(_constant(COEFFICIENTS[k + 1]), x, _constant(COEFFICIENTS[k])))
    return q


@triton.jit
def _exp_minus_abs(x):
    """e^-|x| rounded, its rounding error, and e^-|x| - 1."""
    a = tl.abs(x)
    a = tl.where(a > 746.0, 746.0, a)
    to_integer = _constant(TO_INTEGER)
    shifted = tl.fma(_minus(a), _constant(LOG2_E), to_integer)
    k = to_integer - shifted
    r = tl.fma(k, _constant(LN2_HIGH), _minus(a))
    r = tl.fma(k, _constant(LN2_LOW), r)
    above_1 = tl.fma(r * r, _polynomial(r, EXP_POLYNOMIAL, 10), r)
    mantissa = above_1 + 1.0
    power = _from_bits(_bits(shifted) << 52) * 2.0**-54
    return mantissa * power, (above_1 - (mantissa - 1.0)) * power, tl.fma(above_1, power, power - 1.0)


@triton.jit
def _log1p(t, t_less_1):
    v = tl.where(t > 0.5, 0.5 * t_less_1, t)
    log_base = tl.where(t > 0.5, _constant(LN2_HIGH), 0.0)
    return log_base + tl.fma(v * v, _polynomial(v, LOG1P_POLYNOMIAL, 20), v)


@triton.jit
def _sigma_minus(t, low, WIDE: tl.constexpr):
    sum = t + 1.0
    if WIDE:
        rest = (t - (sum - 1.0)) + low
        r = 1.0 / sum
        error = r * tl.fma(-r, rest, tl.fma(-r, sum, 1.0))
        return tl.fma(t, r, tl.fma(t, error, low * r))
    return t / sum


@triton.jit
def _silent_product(a, b):
    """a b, where a zero silences an infinity."""
    product = a * b
    return tl.where((product != product) & (a == a) & (b == b), 0.0, product)


@triton.jit
def _sum_of(a, b):
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


@triton.jit
def _add(a, a_low, b, b_low):
    s, s_low = _sum_of(a, b)
    t, t_low = _sum_of(a_low, b_low)
    s, s_low = _sum_of(s, s_low + t)
    return _sum_of(s, s_low + t_low)


@triton.jit
def _multiply(a, a_low, b, b_low):
    p = a * b
    return _sum_of(p, tl.fma(a, b, -p) + (a * b_low + a_low * b))


@triton.jit
def _divide(a, a_low, b, b_low):
    first = a / b
    zero = tl.zeros_like(first)
    p, p_low = _multiply(-first, zero, b, b_low)
    rest, rest_low = _add(a, a_low, p, p_low)
    second = rest / b
    p, p_low = _multiply(-second, zero, b, b_low)
    rest, rest_low = _add(rest, rest_low, p, p_low)
    s, s_low = _sum_of(first, second)
    return _sum_of(s, s_low + rest / b)


@triton.jit
def _exp_minus(a):
    """e^-a = 2^k (hi + lo) for 0 <= a <= 4000: hi, lo, k."""
    zero = tl.zeros_like(a)
    n = tl.floor(0.5 - a / _constant(LN2_HIGH))
    product = _minus(n) * _constant(LN2_LOW)
    rest = tl.fma(_minus(n), _constant(LN2_LOW), _minus(product))
    low, lowest = _add(product, rest, _minus(n) * _constant(LN2_LOWEST), zero)
    r, r_low = _add(tl.fma(_minus(n), _constant(LN2_HIGH), _minus(a)), zero, low, lowest)
    r *= 2.0**-10
    r_low *= 2.0**-10
    s = zero
    s_low = zero
    for i in range(0, 9):
        t, t_low = _add(zero + 1.0, zero, s, s_low)
        t, t_low = _multiply(r, r_low, t, t_low)
        s, s_low = _divide(t, t_low, zero + (9 - i), zero)
    for _ in range(0, 10):
        t, t_low = _multiply(s, s_low, s, s_low)
        s, s_low = _add(s * 2.0, s_low * 2.0, t, t_low)
    hi, lo = _add(zero + 1.0, zero, s, s_low)
    return hi, lo, n.to(tl.int64)


@triton.jit
def _times_exp_minus(coefficient, a, hi, lo, k):
    """coefficient e^-a, rounded as one number, given _exp_minus of a > TAIL.

    With coefficient (hi + lo) / 2 = m 2^e, 1 <= m < 2, m 2^-1000 is exact and so is 2^(e + k + 1001), with e + k < 23: only
    their product rounds. The least power taken makes it 0.
    """
    # Halved, or the product could overflow.
    number = tl.fma(coefficient, hi * 0.5, coefficient * (lo * 0.5))
    bits = _bits(number)
    exponent = (bits >> 52) & 0x7FF
    mantissa = _from_bits((bits & ~(0x7FF << 52)) | ((1023 - 1000) << 52))
    power = _from_bits(tl.maximum(exponent + k + 1001, 1) << 52)
    scaled = tl.where(exponent == 0x7FF, number, mantissa * power)
    # A subnormal number times 2^k is 0.
    scaled = tl.where(exponent == 0, number * 0.0, scaled)
    scaled = tl.where((a > 4000.0) | (coefficient == 0.0), coefficient * 0.0, scaled)
    return tl.where(tl.abs(coefficient) < float("inf"), scaled, coefficient)


@triton.jit
def _round_to_odd(hi, lo):
    bits = _bits(hi)
    step = tl.where((lo > 0.0) == (hi > 0.0), 1, -1)
    return _from_bits(tl.where((lo == 0.0) | ((bits & 1) == 1), bits, bits + step))


@triton.jit
def _accurate(x, y, complement, SMOOTH: tl.constexpr):
    """Loss and gradient for w = p = 1 and finite operands, each rounded to odd: rounding them to float32 rounds once.

    complement is what to take for 1 - y if SMOOTH.
    """
    zero = tl.zeros_like(x)
    one = zero + 1.0
    t, t_low, k = _exp_minus(tl.minimum(tl.abs(x), 4000.0))
    power = _from_bits(tl.maximum(k + 1023, 0) << 52)  # 0 for a subnormal one
    # Below 2^-1000 only t != 0 matters.
    small = t * power < _constant(SMALLEST)
    t = tl.where(small, _constant(SMALLEST), t * power)
    t_low = tl.where(small, 0.0, t_low * power)
    d, d_low = _add(one * 2.0, zero, t, t_low)
    s, s_low = _divide(t, t_low, d, d_low)
    square, square_low = _multiply(s, s_low, s, s_low)
    log1p = zero
    log1p_low = zero
    for i in range(0, 37):
        log1p, log1p_low = _multiply(log1p, log1p_low, square, square_low)
        d, d_low = _divide(one, zero, zero + (73 - 2 * i), zero)
        log1p, log1p_low = _add(log1p, log1p_low, d, d_low)
    log1p, log1p_low = _multiply(s * 2.0, s_low * 2.0, log1p, log1p_low)
    d, d_low = _add(one, zero, t, t_low)
    plus, plus_low = _divide(one, zero, d, d_low)
    minus, minus_low = _divide(t, t_low, d, d_low)
    negative, negative_low = _sum_of(one, -y)
    if SMOOTH:
        negative = complement
        negative_low = zero
    positive = x > 0.0
    loss, loss_low = _add(tl.where(positive, x, 0.0), zero, log1p, log1p_low)
    loss, loss_low = _multiply(negative, negative_low, loss, loss_low)
    term, term_low = _add(tl.where(positive, 0.0, -x), zero, log1p, log1p_low)
    term, term_low = _multiply(y, zero, term, term_low)
    loss, loss_low = _add(loss, loss_low, term, term_low)
    gradient, gradient_low = _multiply(
        negative, negative_low, tl.where(positive, plus, minus), tl.where(positive, plus_low, minus_low)
    )
    term, term_low = _multiply(-y, zero, tl.where(positive, minus, plus), tl.where(positive, minus_low, plus_low))
    gradient, gradient_low = _add(gradient, gradient_low, term, term_low)
    return _round_to_odd(loss, loss_low), _round_to_odd(gradient, gradient_low)


@triton.jit
def _unsettled(x):
    """Whether x is so close to the midpoint of two float32 that its error might decide the rounding."""
    below = (x * (1.0 - 2.0**-48)).to(tl.float32)
    above = (x * (1.0 + 2.0**-48)).to(tl.float32)
    return (below != above) & (x == x)
