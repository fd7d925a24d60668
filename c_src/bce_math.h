/* The functions of one element: formulae, error bounds and witnesses.

   Included once per instruction set, inside its target region, so it includes nothing but its polynomials. Every function is straight-line
   code that a compiler turns into vector code, with each fma() written out: the same operations on every machine, hence the
   same bits. Contraction must be off. ULP are float64's. */

static inline double bce_from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint64_t bce_to_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

#include "bce_polynomials.inc"

/* e^-a underflows to 0 from here on: e^-746 < 2^-1076. */
#define BCE_EXP_LIMIT 746.0

/* t = e^-a rounded, with two things that the rounding would lose: low, what is missing to t, and t_less_1, which is e^-a - 1
   rounded. */
typedef struct {
    double t, low, t_less_1;
} bce_exp;

/* For 0 <= a <= BCE_EXP_LIMIT; NaN for NaN.

   -a = k ln(2) + r with |r| <= ln(2) / 2, e^-a = 2^k (1 + (r + r^2 q(r))). The first step of the reduction is exact: where k
   is not 0, both k LN2_HIGH and a are multiples of 2^-54, and so is the difference, which is below 2^-1. The second rounds by
   at most 2^-55, as does the sum in the brackets. 2^k is made with an exponent 54 too large and scaled back, so that the
   subnormal results are rounded once too. */
static inline bce_exp bce_exp_negative(double a)
{
    const double to_integer = 0x1.8p52;
    double shifted = fma(a, -BCE_LOG2_E, to_integer);
    double k = shifted - to_integer;
    double r = fma(k, -BCE_LN2_HIGH, -a);
    r = fma(k, -BCE_LN2_LOW, r);
    double above_1 = fma(r * r, bce_exp_polynomial(r), r);
    double mantissa = 1.0 + above_1;
    double power = bce_from_bits((bce_to_bits(shifted) + 1023 + 54) << 52) * 0x1p-54;
    bce_exp result;
    result.t = mantissa * power;
    result.low = (above_1 - (mantissa - 1.0)) * power;
    result.t_less_1 = fma(above_1, power, power - 1.0);
    return result;
}

/* log(1 + t) for t = e^-a: as log(1 + v) with v = t up to 1/2, as log(2) + log(1 + v) with v = (t - 1) / 2 from there on.
   So |v| is small, and its polynomial a small correction to it. */
static inline double bce_log1p(double t, double t_less_1)
{
    bool upper = t > 0.5;
    double v = upper ? 0.5 * t_less_1 : t;
    double log_base = upper ? BCE_LN2_HIGH : 0.0;
    return log_base + fma(v * v, bce_log1p_polynomial(v), v);
}

/* sigma_plus = 1 / (1 + t) = sigma(|x|) and sigma_minus = t / (1 + t) = sigma(-|x|) for t + low = e^-|x|.

   sum + rest = 1 + t + low but for 2^-106. With r = 1 / sum rounded, the error of r as a reciprocal of sum + rest is
   r (1 - r sum - r rest), whose first two terms an fma gives exactly; both results are rounded after adding that error. */
static inline void bce_sigmoids(double t, double low, double *sigma_plus, double *sigma_minus)
{
    double sum = 1.0 + t;
    double rest = (t - (sum - 1.0)) + low;
    double r = 1.0 / sum;
    double error = r * fma(-r, rest, fma(-r, sum, 1.0));
    *sigma_plus = r + error;
    *sigma_minus = fma(t, r, fma(t, error, low * r));
}

/* a b, where a zero silences the other factor unless that is NaN. */
static inline double bce_silent_product(double a, double b)
{
    double product = a * b;
    return (a == 0.0 && b == b) || (b == 0.0 && a == a) ? 0.0 : product;
}
