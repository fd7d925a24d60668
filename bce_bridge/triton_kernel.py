"""Loss and gradient of CUDA tensors in one pass, by Triton: the C core's formulae, operation for operation, and its exact sums.

Imports torch and Triton; ImportError if that is older than 3.4. Functions are named as in c_src/, where the derivations and
error bounds stand: bce_math.h (formulae), bce_kernel.inc (tails and settling), bce_accurate.c (pairs), bce_convert.inc and
bce_partial.c (rounding). All arithmetic is in float64, with each fused multiply-add written out and contraction off: hence the
core's bits.

Nothing here has been run or timed on a GPU. The tests run it under Triton's interpreter, and compile it for sm_80, sm_90 and
sm_100.
"""

import torch
import triton
import triton.language as tl

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 4):
    raise ImportError(f"bce_bridge.triton_kernel wants Triton 3.4 or newer, got {triton.__version__}")

BLOCK = 512
NUM_WARPS = 4

# A partial sum is a few rows, to be added up, each with the fields of bce_partial: blocks add to different rows, so as not to
# queue for one. Integer additions have no order, so that the total is the same whenever each comes.
LIMBS = tl.constexpr(68)
COUNT, NAN, PLUS_INFINITY, MINUS_INFINITY = tl.constexpr(68), tl.constexpr(69), tl.constexpr(70), tl.constexpr(71)
FIELDS = tl.constexpr(128)
ROWS = tl.constexpr(32)
# Each element adds less than 2^32 to a limb of its row, which holds less than 2^63.
MAX_ELEMENTS = 2**31 * ROWS.value


def _coefficients(text):
    return tl.constexpr(tuple(map(float.fromhex, text.split())))


# Those of c_src/bce_polynomials.inc, the lowest coefficient first.
LN2_HIGH = tl.constexpr(float.fromhex("0x1.62e42fefa39efp-1"))
LN2_LOW = tl.constexpr(float.fromhex("0x1.abc9e3b39803fp-56"))
LOG2_E = tl.constexpr(float.fromhex("0x1.71547652b82fep+0"))
EXP_POLYNOMIAL = _coefficients("""
    0x1.000000000000ap-1 0x1.5555555555500p-3 0x1.55555555506b5p-5 0x1.1111111126354p-7 0x1.6c16c18478b2fp-10
    0x1.a01a01328c2c5p-13 0x1.a019995b0f5a1p-16 0x1.71df1336ba67fp-19 0x1.28adffa03fbf3p-22 0x1.ad9bc7c69d61ep-26
""")
LOG1P_POLYNOMIAL = _coefficients("""
    -0x1.0000000000006p-1 0x1.5555555555700p-2 -0x1.ffffffffffd11p-3 0x1.9999999964195p-3 -0x1.555555547842fp-3
    0x1.24924936f8132p-3 -0x1.00000076a4982p-3 0x1.c71c6c7db8dbep-4 -0x1.9999666820af7p-4 0x1.745d4854c9f95p-4
    -0x1.555acaace03a2p-4 0x1.3b1bd424acec2p-4 -0x1.244c8f02784dap-4 0x1.10143015451ddp-4 -0x1.00b35297d5410p-4
    0x1.f5004ea6e8205p-5 -0x1.e6b9038885a31p-5 0x1.92c3392571069p-5 -0x1.c3559df044e6ap-6 0x1.e0253c9e09182p-8
""")
LN2_LOWEST = tl.constexpr(float.fromhex("0x1.7b57a079a1934p-111"))  # ln(2) - LN2_HIGH - LN2_LOW
TO_INTEGER = tl.constexpr(1.5 * 2**52 + (1023 + 54))
TAIL = tl.constexpr(700.0)

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATING, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


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
    q = tl.fma(COEFFICIENTS[COUNT - 1], x, COEFFICIENTS[COUNT - 2])
    for k in tl.static_range(COUNT - 4, -1, -2):
        q = tl.fma(q, square, tl.fma(COEFFICIENTS[k + 1], x, COEFFICIENTS[k]))
    return q


@triton.jit
def _exp_minus_abs(x):
    """e^-|x| rounded, what is missing to it, and e^-|x| - 1."""
    a = tl.abs(x)
    a = tl.where(a > 746.0, 746.0, a)
    shifted = tl.fma(a, -LOG2_E, TO_INTEGER)
    k = shifted - TO_INTEGER
    r = tl.fma(k, -LN2_HIGH, -a)
    r = tl.fma(k, -LN2_LOW, r)
    above_1 = tl.fma(r * r, _polynomial(r, EXP_POLYNOMIAL, 10), r)
    mantissa = above_1 + 1.0
    power = _from_bits(_bits(shifted) << 52) * 2.0**-54
    return mantissa * power, (above_1 - (mantissa - 1.0)) * power, tl.fma(above_1, power, power - 1.0)


@triton.jit
def _log1p(t, t_less_1):
    v = tl.where(t > 0.5, 0.5 * t_less_1, t)
    log_base = tl.where(t > 0.5, tl.full(t.shape, LN2_HIGH, tl.float64), 0.0)
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
    n = tl.floor(0.5 - a / LN2_HIGH)
    product = -n * LN2_LOW
    low, lowest = _add(product, tl.fma(-n, LN2_LOW, n * LN2_LOW), -n * LN2_LOWEST, zero)
    r, r_low = _add(tl.fma(-n, LN2_HIGH, -a), zero, low, lowest)
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

    With coefficient (hi + lo) = m 2^e, 1 <= m < 2, m 2^-1000 is exact and so is 2^(e + k + 1000), with e + k < 24: only their
    product rounds. The least power taken makes it 0.
    """
    number = tl.fma(coefficient, hi, coefficient * lo)
    bits = _bits(number)
    exponent = (bits >> 52) & 0x7FF
    mantissa = _from_bits((bits & ~(0x7FF << 52)) | ((1023 - 1000) << 52))
    power = _from_bits(tl.maximum(exponent + k + 1000, 1) << 52)
    scaled = tl.where(exponent == 0x7FF, number, mantissa * power)
    # A subnormal number times 2^k is 0.
    scaled = tl.where(exponent == 0, number * 0.0, scaled)
    return tl.where((a > 4000.0) | (coefficient == 0.0), coefficient * 0.0, scaled)


@triton.jit
def _round_to_odd(hi, lo):
    bits = _bits(hi)
    step = tl.where((lo > 0.0) == (hi > 0.0), 1, -1)
    return _from_bits(tl.where((lo == 0.0) | ((bits & 1) == 1), bits, bits + step))


@triton.jit
def _accurate(x, y):
    """Loss and gradient for w = p = 1 and finite operands, each rounded to odd: rounding them to float32 rounds once."""
    zero = tl.zeros_like(x)
    one = zero + 1.0
    t, t_low, k = _exp_minus(tl.minimum(tl.abs(x), 4000.0))
    power = _from_bits(tl.maximum(k + 1023, 0) << 52)  # 0 for a subnormal one
    # Of what is as small as this only matters that it is not 0.
    small = t * power < 2.0**-1000
    t = tl.where(small, 2.0**-1000, t * power)
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
def _load(pointer, offsets, mask):
    number = tl.load(pointer + offsets, mask, other=0)
    if pointer.dtype.element_ty == tl.bfloat16:
        number = (number.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return number.to(tl.float64)


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
def _evaluate(
    input,
    target,
    weight,
    pos_weight,
    loss,
    gradient,
    partial,
    n,
    shape,
    input_strides,
    target_strides,
    weight_strides,
    pos_weight_strides,
    loss_strides,
    gradient_strides,
    keep: tl.float64,
    add: tl.float64,
    divisor: tl.float64,
    SMOOTH: tl.constexpr,
    MULTIPLY: tl.constexpr,
    TAILS: tl.constexpr,
    SETTLE_LOSS: tl.constexpr,
    SETTLE_GRADIENT: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of elements: the losses if loss is given, the gradient if that is, and their sum added to partial if that is."""
    element = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    mask = element < n
    x = _load(input, _offsets(element, shape, input_strides), mask)
    y = _load(target, _offsets(element, shape, target_strides), mask)
    if SMOOTH:
        y = tl.fma(y, keep, add)
    negative = 1.0 - y
    positive = y
    if pos_weight is not None:
        p = _load(pos_weight, _offsets(element, shape, pos_weight_strides), mask)
        positive = _silent_product(p, y)
    if weight is not None:
        w = _load(weight, _offsets(element, shape, weight_strides), mask)
        negative = _silent_product(w, negative)
        positive = _silent_product(w, positive)
    sum = negative + positive
    linear = tl.where(_negative(x), positive, negative)

    t, t_low, t_less_1 = _exp_minus_abs(x)
    losses = tl.fma(sum, _log1p(t, t_less_1), tl.where(linear == 0.0, 0.0, linear * tl.abs(x)))
    gradients = losses
    if gradient is not None:
        WIDE: tl.constexpr = gradient.dtype.element_ty == tl.float64
        gradients = tl.fma(_minus(sum), _sigma_minus(t, t_low, WIDE), linear)
        gradients = tl.where(_negative(x), _minus(gradients), gradients)
        if MULTIPLY:
            gradients = gradients * (1.0 / divisor)
        else:
            gradients = gradients / divisor

    if TAILS:
        a = tl.abs(x)
        tail = (a > TAIL) & (a < float("inf"))
        if tl.max(tail.to(tl.int32), 0) > 0:
            hi, lo, k = _exp_minus(tl.minimum(a, 4000.0))
            beside = tl.where(x > 0.0, negative, positive)
            losses = tl.where(tail, _silent_product(beside, a) + _times_exp_minus(sum, a, hi, lo, k), losses)
            if gradient is not None:
                other = tl.where(x > 0.0, positive, negative)
                g = beside - _times_exp_minus(other, a, hi, lo, k)
                gradients = tl.where(tail, tl.where(x > 0.0, g, _minus(g)) / divisor, gradients)
    if partial is not None:
        _deposit(partial + tl.program_id(0) % ROWS * FIELDS, losses, mask)
    if SETTLE_LOSS or SETTLE_GRADIENT:
        unsettled_losses = _unsettled(losses) & SETTLE_LOSS
        unsettled_gradients = _unsettled(gradients) & SETTLE_GRADIENT
        if tl.max((mask & (unsettled_losses | unsettled_gradients)).to(tl.int32), 0) > 0:
            accurate_losses, accurate_gradients = _accurate(x, y)
            losses = tl.where(unsettled_losses, accurate_losses, losses)
            gradients = tl.where(unsettled_gradients, accurate_gradients, gradients)
    if loss is not None:
        tl.store(loss + _offsets(element, shape, loss_strides), _rounded(losses, loss.dtype.element_ty), mask)
    if gradient is not None:
        tl.store(gradient + _offsets(element, shape, gradient_strides), _rounded(gradients, gradient.dtype.element_ty), mask)


@triton.jit
def _low(x):
    """x less a multiple of 2^32, in [-2^31, 2^31)."""
    return ((x & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


@triton.jit
def _carry(x):
    return (x - _low(x)) >> 32


@triton.jit
def _sums_of_rows(partial, j):
    """The limbs j of the sum of all rows, each below 2^38 in magnitude."""
    at = partial + tl.arange(0, ROWS)[:, None] * FIELDS + j[None, :]
    here = tl.load(at, ((j >= 0) & (j < LIMBS))[None, :], other=0)
    below = tl.load(at - 1, ((j > 0) & (j <= LIMBS))[None, :], other=0)
    return tl.sum(_low(here) + _carry(below), 0)


@triton.jit
def _limb(limbs, j, i):
    return tl.sum(tl.where(j == i, limbs, 0), 0)


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


@triton.jit(do_not_specialize=["divisor", "shift"])
def _round_partial(partial, loss, divisor: tl.int64, shift):
    """Store the partial sum, times 2^shift over divisor in [2^46, 2^47), rounded once.

    With digits in about [-2^31, 2^31], got by carrying twice, the first that is not 0 has the sign of the sum. It and the next
    four, less 1 if the rest is negative, have 127 bits or more, of which the first 106 are divided: 46, then 15 at a time.
    """
    j = tl.arange(0, FIELDS)
    limbs = _low(_sums_of_rows(partial, j)) + _carry(_sums_of_rows(partial, j - 1))
    top = tl.max(tl.where(limbs != 0, j, -1), 0)
    sign = tl.where(_limb(limbs, j, top) < 0, -1, 1).to(tl.int64)
    below = sign * _limb(limbs, j, tl.max(tl.where((limbs != 0) & (j < top - 4), j, -1), 0))
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
    result = _assemble(quotient, sticky, exponent, loss.dtype.element_ty != tl.float64)
    result = tl.where(top < 0, 0.0, tl.where(sign < 0, _minus(result), result))

    rows = partial + tl.arange(0, ROWS) * FIELDS
    nan = tl.sum(tl.load(rows + NAN), 0) > 0
    plus = tl.sum(tl.load(rows + PLUS_INFINITY), 0) > 0
    minus = tl.sum(tl.load(rows + MINUS_INFINITY), 0) > 0
    result = tl.where(plus, float("inf"), tl.where(minus, -float("inf"), result))
    result = tl.where(nan | (plus & minus), float("nan"), result)
    tl.store(loss, _rounded(result, loss.dtype.element_ty))


def _expanded(name, tensor, input):
    """The tensor in the input's shape, by strides of 0."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES:
        raise RuntimeError(f"{name} is a {tensor.layout} tensor of dtype {tensor.dtype}, wants a strided one of real numbers")
    if tensor.device != input.device:
        raise RuntimeError(f"{name} is on {tensor.device}, wants the input's device {input.device}")
    try:
        return tensor.resolve_neg().expand(input.shape)
    except RuntimeError:
        shape, wanted = tuple(tensor.shape), tuple(input.shape)
        raise RuntimeError(f"{name} of shape {shape} does not broadcast to the input's shape {wanted}") from None


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


def _layout(tensors):
    """The common shape and each tensor's strides, as _offsets takes them, in the order of the first one's memory."""
    first = tensors[0]
    order = sorted((d for d in range(first.ndim) if first.shape[d] != 1), key=lambda d: -first.stride(d))
    shape = [first.shape[d] for d in order]
    shape, strides = _merged(shape, [[tensor.stride(d) for d in order] for tensor in tensors])
    alone = [_merged(shape, [steps])[1][0] for steps in strides]
    return shape, [own if len(own) == 1 else steps for own, steps in zip(alone, strides)]


def _checked(input, target, weight, pos_weight, label_smoothing):
    """The operands in the input's shape, None where there is none; errors as in loss_and_gradient."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing is {label_smoothing!r}, wants a number in [0, 1]")
    if input.dtype not in FLOATING:
        raise RuntimeError(f"input has dtype {input.dtype}, wants a floating one")
    if target.shape != input.shape:
        raise RuntimeError(f"target of shape {tuple(target.shape)} must have the input's shape {tuple(input.shape)}")
    if input.numel() > MAX_ELEMENTS:
        raise RuntimeError(f"input has {input.numel()} elements, wants at most {MAX_ELEMENTS}")
    given = {"input": input, "target": target, "weight": weight, "pos_weight": pos_weight}
    return [None if tensor is None else _expanded(name, tensor, input) for name, tensor in given.items()]


def _rows(input):
    """An empty partial sum."""
    return torch.zeros((ROWS.value, FIELDS.value), dtype=torch.int64, device=input.device)


def _launch(operands, label_smoothing, losses, gradient, partial, divisor=1, wide_sum=False):
    """Fill the losses and the gradient, and add to the partial sum, of those that are not None; wide_sum: for float64."""
    input, _, weight, pos_weight = operands
    n = input.numel()
    weighted = weight is not None or pos_weight is not None
    wide = gradient is not None and gradient.dtype == torch.float64
    narrow = [result is not None and result.dtype == torch.float32 and not weighted for result in (losses, gradient)]
    tensors = *operands, losses, gradient
    shape, strides = _layout([input if tensor is None else tensor for tensor in tensors])
    with torch.cuda.device_of(input):
        _evaluate[(triton.cdiv(n, BLOCK),)](
            *tensors,
            partial,
            n,
            shape,
            *strides,
            keep=1.0 - label_smoothing,
            add=0.5 * label_smoothing,
            divisor=float(divisor),
            SMOOTH=label_smoothing != 0.0,
            # A reciprocal is another rounding, which only a float64 result would show, and no power of 2 has.
            MULTIPLY=not wide or divisor & (divisor - 1) == 0,
            TAILS=weighted and (wide or wide_sum or (losses is not None and losses.dtype == torch.float64)),
            SETTLE_LOSS=narrow[0],
            SETTLE_GRADIENT=narrow[1] and divisor == 1,
            INDEX=tl.int32 if n < 2**31 - BLOCK else tl.int64,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )


def loss_and_gradient(input, target, weight, pos_weight, reduction, label_smoothing, with_gradient):
    """(loss, gradient with respect to the input or None), in one pass over the operands and without waiting for the device.

    input       floating CUDA tensor of any shape and strides, as are all: logits
    target      tensor of the same shape on the same device; integer and boolean ones too
    weight      such a tensor that broadcasts to the input's shape, or None
    pos_weight  likewise
    reduction   "none", "mean" or "sum"
    label_smoothing     e in [0, 1]: targets y become y (1 - e) + e / 2
    with_gradient       whether to compute the gradient; under "mean" it is that of the mean

    The loss is like the target (of the input's dtype, if the target is integer or boolean), but 0-d unless reduction is "none";
    the gradient is like the input. The sum is exact and rounded once: no result depends on the order of the elements.

    Raises ValueError for another reduction or a label_smoothing outside [0, 1], RuntimeError for dtypes, devices and shapes
    that do not fit and for more than 2^36 elements.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}, wants 'none', 'mean' or 'sum'")
    operands = _checked(input, target, weight, pos_weight, label_smoothing)
    n = input.numel()
    dtype = target.dtype if target.dtype.is_floating_point else input.dtype
    gradient = torch.empty_like(input) if with_gradient else None
    divisor = n if reduction == "mean" else 1
    if reduction == "none":
        losses = torch.empty_like(target, dtype=dtype)
        if n:
            _launch(operands, label_smoothing, losses, gradient, None)
        return losses, gradient
    loss = torch.empty((), dtype=dtype, device=input.device)
    if n == 0:
        return loss.fill_(float("nan") if reduction == "mean" else 0.0), gradient
    partial = _rows(input)
    _launch(operands, label_smoothing, None, gradient, partial, divisor, dtype == torch.float64)
    shift = 47 - divisor.bit_length()
    with torch.cuda.device_of(input):
        _round_partial[(1,)](partial, loss, divisor << shift, shift, num_warps=8, enable_fp_fusion=False)
    return loss, gradient


def gradient(input, target, weight, pos_weight, reduction, label_smoothing, count):
    """The gradient alone, under "mean" divided by count, or by the number of elements if that is 0.

    Other arguments and errors are those of loss_and_gradient.
    """
    operands = _checked(input, target, weight, pos_weight, label_smoothing)
    result, n = torch.empty_like(input), input.numel()
    if n:
        _launch(operands, label_smoothing, None, result, None, (count or n) if reduction == "mean" else 1)
    return result


def partial_sums(input, target, weight, pos_weight, label_smoothing):
    """Lists of the fields of bce_partial, whose sums together are that of the losses: exact, and waited for.

    Arguments and errors are those of loss_and_gradient.
    """
    operands = _checked(input, target, weight, pos_weight, label_smoothing)
    partial = _rows(input)
    if input.numel():
        _launch(operands, label_smoothing, None, None, partial, wide_sum=True)
    partial[0, COUNT.value] = input.numel()
    return partial[:, : MINUS_INFINITY.value + 1].tolist()
