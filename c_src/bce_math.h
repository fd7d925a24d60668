/* The formulae, their error bounds and witnesses: first for one element, then for a vector of them.

   Included once per instruction set, after bce_simd.h. Every function is straight-line code with each fused multiply-add
   written out: the same operations on every machine, hence the same bits (except the quick formulae, see there). Contraction
   must be off. ULP are float64's; a witness is the worst input that a search of some 10^8 found (docs/accuracy.md). */

#ifndef BCE_REFERENCE
#define BCE_REFERENCE

/* The reference, for the reader and for c_src/verify/test_values.c. Everything below computes the same, but faster, more
   accurately, and for all numbers. */
static inline void bce_reference(double x, double y, double w, double p, double *loss, double *gradient, double *curvature)
{
    double t = exp(-fabs(x)), log1p_t = log1p(t);
    double softplus = fmax(x, 0.0) + log1p_t, softplus_minus = fmax(-x, 0.0) + log1p_t;          /* of x, of -x */
    double sigma = (x > 0.0 ? 1.0 : t) / (1.0 + t), sigma_minus = (x > 0.0 ? t : 1.0) / (1.0 + t);
    *loss = w * ((1.0 - y) * softplus + p * y * softplus_minus);
    *gradient = w * ((1.0 - y) * sigma - p * y * sigma_minus);
    *curvature = w * (1.0 - y + p * y) * sigma * sigma_minus;
}

#endif

#include "bce_constants.h"
#include "bce_polynomials.inc"

/* e^-a underflows to 0 from here on: e^-746 < 2^-1076. */
#define BCE_EXP_LIMIT 746.0

/* e^-|x| in three forms: t is rounded; low is t's rounding error; t_less_1 is e^-|x| - 1, rounded. */
typedef struct {
    bce_vec t, low, t_less_1;
} bce_exp;

/* NaN for NaN.

   With a = |x|, -a = k ln(2) + r for |r| <= ln(2) / 2, and e^-a = 2^k (1 + (r + r^2 q(r))). The first step of the reduction
   is exact: where k is not 0, both k LN2_HIGH and a are multiples of 2^-54, and so is their difference, which is below 2^-1.
   The second step rounds by at most 2^-55, as does the sum in the brackets. Adding 1.5 2^52 rounds to an integer in the low
   bits; adding 1023 + 54 too makes it the exponent field of 2^(k + 54), scaled back by 2^-54 since 2^k may be subnormal. */
BCE_INLINE bce_exp bce_exp_minus_abs(bce_vec x)
{
    const bce_vec one = bce_all(1.0), to_integer = bce_all(0x1.8p52 + (1023 + 54));
    bce_vec a = bce_min(bce_all(BCE_EXP_LIMIT), bce_abs(x));
    bce_vec shifted = bce_fma(a, bce_all(-BCE_LOG2_E), to_integer);
    bce_vec k = shifted - to_integer;
    bce_vec r = bce_fma(k, bce_all(-BCE_LN2_HIGH), -a);
    r = bce_fma(k, bce_all(-BCE_LN2_LOW), r);
    bce_vec above_1 = bce_fma(r * r, bce_exp_polynomial(r), r);
    bce_vec mantissa = one + above_1;
    bce_vec power = bce_shift_to_exponent(shifted) * bce_all(0x1p-54);
    bce_exp result;
    result.t = mantissa * power;
    result.low = (above_1 - (mantissa - one)) * power;
    result.t_less_1 = bce_fma(above_1, power, power - one);
    return result;
}

/* log(1 + t) for t = e^-a. Up to t = 1/2 it is log(1 + v) with v = t; above, log(2) + log(1 + v) with v = (t - 1) / 2. So |v|
   is small, and the polynomial is a small correction to v. */
BCE_INLINE bce_vec bce_log1p(bce_vec t, bce_vec t_less_1)
{
    const bce_vec half = bce_all(0.5);
    bce_vec v = bce_if_greater(t, half, half * t_less_1, t);
    bce_vec log_base = bce_if_greater(t, half, bce_all(BCE_LN2_HIGH), bce_all(0.0));
    return log_base + bce_fma(v * v, bce_log1p_polynomial(v), v);
}

/* sigma(|x|) = 1 / (1 + t) and sigma(-|x|) = t / (1 + t) for t = e^-|x|. */
typedef struct {
    bce_vec plus, minus;
} bce_sigmoids;

/* For t + low, each to 1.1 ULP.

   sum + rest = 1 + t + low to within 2^-106. With r = 1 / sum rounded, the error of r as a reciprocal of sum + rest is
   r (1 - r sum - r rest). An fma gives the first two terms exactly, and both results are rounded after adding this error. */
BCE_INLINE bce_sigmoids bce_sigmoids_wide(bce_vec t, bce_vec low)
{
    const bce_vec one = bce_all(1.0);
    bce_vec sum = one + t;
    bce_vec rest = (t - (sum - one)) + low;
    bce_vec r = one / sum;
    bce_vec error = r * bce_fma(-r, rest, bce_fma(-r, sum, one));
    bce_sigmoids result = {r + error, bce_fma(t, r, bce_fma(t, error, low * r))};
    return result;
}

/* sigma(-|x|) with a relative error of up to 2^-50: enough for a result that is rounded to float32. */
BCE_INLINE bce_vec bce_sigma_minus_narrow(bce_vec t)
{
    return t / (bce_all(1.0) + t);
}

/* a b, but 0 for 0 times infinity, the only NaN product of two numbers: the zero silences the infinity. */
BCE_INLINE bce_vec bce_silent_product(bce_vec a, bce_vec b)
{
    return bce_zero_if_indefinite(a * b, a, b);
}

/* The coefficients of softplus(x) and softplus(-x): w (1 - y) and w p y. */
typedef struct {
    bce_vec negative, positive;
} bce_coefficients;

/* complement is 1 - y. */
BCE_INLINE bce_coefficients bce_coefficients_of(bce_vec y, bce_vec complement, bce_vec w, bce_vec p, bool weighted)
{
    bce_coefficients c = {complement, y};
    if (weighted) {
        c.negative = bce_silent_product(w, complement);
        c.positive = bce_silent_product(w, bce_silent_product(p, y));
    }
    return c;
}

/* With L = log(1 + e^-|x|), softplus(x) = max(x, 0) + L and softplus(-x) = max(-x, 0) + L. So for the coefficients a of the
   first and b of the second
       a softplus(x) + b softplus(-x) = (a + b) L + (a if x > 0 else b) |x|.
   Of L and |x| only |x| can be infinite: it is left out where its coefficient is zero (NaN comes through L). 1.84 ULP at hard
   labels: y = 0 at -0x1.be1fda6edb654p-2; 3.62 for y in [0, 1] and weights. */
BCE_INLINE bce_vec bce_loss(bce_vec x, bce_vec log1p, bce_coefficients c)
{
    bce_vec linear = bce_if_negative(x, c.positive, c.negative);
    return bce_fma(c.negative + c.positive, log1p, bce_product_unless_zero(linear, bce_abs(x)));
}

/* a sigma(x) - b sigma(-x) = -sign(x) [(a + b) sigma(-|x|) - (a if x > 0 else b)], since sigma(|x|) = 1 - sigma(-|x|) (at least
   1/2). In this order a gradient that underflows keeps its sign. 1.02 ULP at hard labels: y = 0 at -0x1.a193e1870575dp+8. */
BCE_INLINE bce_vec bce_gradient(bce_vec x, bce_vec sigma_minus, bce_coefficients c)
{
    bce_vec linear = bce_if_negative(x, c.positive, c.negative);
    return bce_multiply_by_sign(bce_fma(c.negative + c.positive, sigma_minus, -linear), -x);
}

/* (a + b) sigma(x) sigma(-x); the product of the sigmoids is a double-double, which saves a rounding. 1.96 ULP at hard labels,
   3.86 for y in [0, 1] and weights. */
BCE_INLINE bce_vec bce_curvature(bce_sigmoids s, bce_coefficients c)
{
    bce_vec sum = c.negative + c.positive, product = s.plus * s.minus;
    return bce_fma(sum, product, sum * bce_fma(s.plus, s.minus, -product));
}

/* w [p softplus(-x) - softplus(x)] = w [(p - 1) L + (-|x| if x > 0 else p |x|)]. For p = 1 nothing cancels; otherwise the error
   is that of 4 roundings of the terms, 4 2^-53 times the sum of their magnitudes. */
BCE_INLINE bce_vec bce_d_targets(bce_vec x, bce_vec log1p, bce_vec w, bce_vec p)
{
    const bce_vec one = bce_all(1.0);
    bce_vec linear = bce_if_negative(x, p, -one);
    return bce_silent_product(w, bce_fma(p - one, log1p, bce_product_unless_zero(linear, bce_abs(x))));
}

/* w y softplus(-x). 3.02 ULP. */
BCE_INLINE bce_vec bce_d_pos_weight(bce_vec x, bce_vec log1p, bce_vec y, bce_vec w)
{
    bce_vec reach = bce_if_negative(x, bce_abs(x), bce_all(0.0));
    return bce_silent_product(bce_silent_product(w, y), reach + log1p);
}

/* The quick formulae: softplus and sigma in half the operations. They serve results rounded to float32 or narrower, wherever
   their error cannot flip the rounding.

   At y = 0 they are softplus(z) and sigma(z) for z = x, at y = 1 softplus(z) and -sigma(z) for z = -x. With t = e^-|z|,
       softplus(z) = max(z, 0) + 2 atanh(s), s = t / (2 + t);    sigma(z) = (1 if z > 0 else t) / (1 + t).
   One division gives both quotients. A sum over many elements needs no logarithm for each, since
       sum of log(1 + t) = log(product of (1 + t)).
   They hold for |x| <= BCE_QUICK_LIMIT, where 2^k is a normal number. The largest error found is 2^-43.15
   (c_src/verify/quick_error.c). AVX-512 has a formula of its own for t: here the bits depend on the instruction set. */
#define BCE_QUICK_LIMIT 700.0

#if defined(BCE_SIMD_AVX512)

/* With a = |x|, -a = n ln(2) / 16 + r, and e^-a = 2^(n / 16) e^r: a permutation is the table of 16 numbers. */
BCE_INLINE bce_vec bce_quick_exp_minus_abs(bce_vec x)
{
    const bce_vec to_integer = bce_all(0x1.8p52);
    bce_vec a = bce_abs(x);
    bce_vec shifted = bce_fma(a, bce_all(-16 * BCE_LOG2_E), to_integer);
    bce_vec r = bce_fma(shifted - to_integer, bce_all(-BCE_LN2_HIGH / 16), -a);
    return bce_quick_exp_polynomial(r) * bce_exp2_of_sixteenths(shifted, bce_exp2_sixteenths);
}

#else

BCE_INLINE bce_vec bce_quick_exp_minus_abs(bce_vec x)
{
    const bce_vec to_integer = bce_all(0x1.8p52 + 1023);
    bce_vec a = bce_abs(x);
    bce_vec shifted = bce_fma(a, bce_all(-BCE_LOG2_E), to_integer);
    bce_vec r = bce_fma(shifted - to_integer, bce_all(-BCE_LN2_HIGH), -a);
    return bce_quick_exp_polynomial(r) * bce_shift_to_exponent(shifted);
}

#endif

/* log(1 + t) and sigma(-|x|). */
typedef struct {
    bce_vec log1p, sigma_minus;
} bce_quick;

BCE_INLINE bce_quick bce_quick_of(bce_vec t)
{
    const bce_vec one = bce_all(1.0);
    bce_vec one_plus = one + t, two_plus = bce_all(2.0) + t;
    bce_vec t_over = t * (one / (one_plus * two_plus)), s = one_plus * t_over;
    bce_quick result = {s * bce_quick_atanh_polynomial(s * s), two_plus * t_over};
    return result;
}

/* scale sigma(z). */
BCE_INLINE bce_vec bce_quick_sigma(bce_vec z, bce_vec t, bce_vec scale)
{
    const bce_vec one = bce_all(1.0);
    return scale / (one + t) * bce_if_negative(z, t, one);
}

/* (1 + q) (1 + t) - 1, for q of any size: 1 + t itself would lose a small t. */
BCE_INLINE bce_vec bce_multiply_in(bce_vec q, bce_vec t)
{
    return bce_fma(q, t, q + t);
}
