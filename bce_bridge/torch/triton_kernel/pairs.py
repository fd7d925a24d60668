"""The loss and its gradient in pairs of float32, for cards on which float64 is slow: the fast path.

A number is hi + lo, lo some 2^-24 of hi. Sums and products are those of T. J. Dekker, "A floating-point technique for extending
the available precision", Numer. Math. 18, 1971; bounds of such arithmetic are proved by M. Joldes, J.-M. Muller, V. Popescu,
"Tight and rigorous error bounds for basic building blocks of double-word arithmetic", ACM Trans. Math. Softw. 44, 2017.
Every operation is an IEEE one, so that c_src/verify/pairs.c, the same in C, checks all float32 logits.

A result is settled if it rounds alike at both ends of the interval that its error allows. The others, one in some 2^13 float32,
are left to the float64 formulae. So no error here shows in a bit.
"""

import triton
import triton.language as tl

# With a = |x| next to j / 64, the table gives L = log(1 + e^-a) and m = sigma(-a) at j / 64, and the Taylor series the rest.
# With q = m (1 - m) and e = 1 - 2 m the derivatives are L' = -m, L'' = q, L''' = -q e, L'''' = q (1 - 6 q), and those of m the
# same one order up with the other sign; the fifth is q e (1 - 12 q).
STEPS = 64
MAGIC = tl.constexpr(1.5 * 2**23)  # a float32 this large is an integer, in the low bits
MAGIC_BITS = 0x4B400000
# Beyond the limit L and m are below 2^-150, half the least float32: 0. Weights of at most 2^32 make no more of them
# beyond 128, where the table ends.
LIMIT, WEIGHTED_LIMIT = tl.constexpr(104.5), tl.constexpr(128.0)
ENTRIES = 128 * STEPS + 1

# What subnormal low parts may lose, as bits of a float32: 2^-146.
TINY_BITS = tl.constexpr(8)


@triton.jit
def _minus(x):
    """-x, for which some versions of Triton compute 0 - x."""
    return x * -1.0


@triton.jit
def _fast_two_sum(a, b):
    """a + b rounded, and its error, for |a| >= |b|."""
    s = a + b
    return s, b - (s - a)


@triton.jit
def _two_sum(a, b):
    s = a + b
    shadow = s - a
    return s, (a - (s - shadow)) + (b - shadow)


@triton.jit
def _positive_sum(a, b):
    """_two_sum for a, b >= 0."""
    return _fast_two_sum(tl.maximum(a, b), tl.minimum(a, b))


@triton.jit
def _product(a, b):
    p = a * b
    return p, tl.fma(a, b, _minus(p))


@triton.jit
def _product_of_pairs(a, a_low, b, b_low):
    p, p_low = _product(a, b)
    return p, tl.fma(a, b_low, tl.fma(a_low, b, p_low))


@triton.jit
def _sum_of_pairs(a, a_low, b, b_low):
    """For a, b >= 0."""
    s, s_low = _positive_sum(a, b)
    return s, s_low + (a_low + b_low)


@triton.jit
def _nearest_entry(a):
    """What is left of a, and the nearest entry's number."""
    shifted = tl.fma(a, 64.0, MAGIC)
    return tl.fma(shifted - MAGIC, -0.015625, a), shifted.to(tl.int32, bitcast=True).to(tl.int64)


@triton.jit
def _halves(x):
    """The two float32 in an int64."""
    return x.to(tl.int32).to(tl.float32, bitcast=True), (x >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _entry(address, DEVICE: tl.constexpr):
    """L and m as pairs, by one load: Triton itself makes two of it."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "ld.global.nc.v4.f32 {$0, $1, $2, $3}, [$4];",
            "=f,=f,=f,=f,l",
            [address],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    pointer = address.to(tl.pointer_type(tl.int64))
    log1p, log1p_low = _halves(tl.load(pointer))
    sigma, sigma_low = _halves(tl.load(pointer + 1))
    return log1p, log1p_low, sigma, sigma_low


@triton.jit
def _functions(a, table, DEVICE: tl.constexpr):
    """L and m as pairs, for 0 <= a <= 128; table is the address of an entry 0x4B400000 before the first."""
    h, number = _nearest_entry(a)
    log1p, log1p_low, sigma, sigma_low = _entry(table + number * 16, DEVICE)
    h2 = h * h
    q = tl.fma(_minus(sigma), sigma, sigma)
    qh2 = q * h2
    e = tl.fma(sigma, -2.0, 1.0)
    third = (q - 0.16666666666666666) * h  # -(1 - 6 q) h / 6
    # L = l - m h + q h^2 [1/2 + h (-e / 6 + (1 - 6 q) h / 24)]; the linear term exactly, the rest, below 2^-15 q, in float32.
    rest = tl.fma(h, tl.fma(third, -0.25, tl.fma(sigma, 0.3333333333333333, -0.16666666666666666)), 0.5)
    p, p_low = _product(sigma, h)
    p_low = tl.fma(sigma_low, h, p_low)
    log1p, error = _fast_two_sum(log1p, _minus(p))
    log1p_low = tl.fma(qh2, rest, (log1p_low - p_low) + error)
    # m = m - q h + q h^2 [e / 2 - (1 - 6 q) h / 6 + e (1 - 12 q) h^2 / 24], with q h = p - m p.
    rest = tl.fma(e, tl.fma(tl.fma(q, -12.0, 1.0) * h2, 0.041666666666666664, 0.5), third)
    v, v_low = _product(sigma, p)
    v_low = tl.fma(sigma_low, p, tl.fma(sigma, p_low, v_low))
    s, error = _fast_two_sum(sigma, _minus(p))
    s, second = _fast_two_sum(s, v)
    return log1p, log1p_low, s, tl.fma(qh2, rest, ((sigma_low - p_low) + v_low) + (error + second))


@triton.jit
def _functions_in_float32(a, table):
    """L and m in float32; table likewise, of entries of two float32."""
    h, number = _nearest_entry(a)
    log1p, sigma = _halves(tl.load((table + number * 8).to(tl.pointer_type(tl.int64))))
    qh = tl.fma(_minus(sigma), sigma, sigma) * h
    log1p = tl.fma(h, tl.fma(qh, 0.5, _minus(sigma)), log1p)
    return log1p, tl.fma(qh, tl.fma(h, tl.fma(sigma, -1.0, 0.5), -1.0), sigma)


@triton.jit
def _narrowed(x, dtype: tl.constexpr, DEVICE: tl.constexpr):
    """A float32 in the dtype; the interpreter cuts off where it should round to bfloat16."""
    if dtype == tl.bfloat16 and not DEVICE:
        bits = x.to(tl.int32, bitcast=True)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return x.to(dtype)


@triton.jit
def _ends(r, r_low, error, negate, dtype: tl.constexpr, DEVICE: tl.constexpr):
    """r + r_low in the dtype, with the other sign where negate is set, and whether all within the error of it round alike.

    For a narrower dtype than float32 the error must be 2^-22 of r at least, so that the numbers rounded to float32 on the way
    lie outside the interval.
    """
    above = r + (r_low + error)
    below = r + (r_low - error)
    if dtype == tl.float32:
        return tl.where(negate, _minus(above), above), above == below
    above = _narrowed(tl.where(negate, _minus(above), above), dtype, DEVICE)
    agree = above == _narrowed(tl.where(negate, _minus(below), below), dtype, DEVICE)
    if not DEVICE:
        agree &= r == r  # the interpreter compares the bits of bfloat16
    return above, agree
