/* Double-double arithmetic, accurate rather than fast, for the few elements that need more than float64: results so near a tie
   of float32 that float64 cannot decide the rounding, about one in ten million, and a weight times e^-a where e^-a is
   subnormal or 0.

   The pairs hi + lo and their operations are those of T. J. Dekker, "A floating-point technique for extending the available
   precision", Numer. Math. 18, 1971, with fma for the products; the error of each is a few 2^-104. */

#include "bce_constants.h"
#include "bce_internal.h"

#include "bce_contract.h"

typedef struct {
    double hi, lo;
} pair;

static pair sum_of(double a, double b)
{
    double s = a + b, shadow = s - a;
    pair result = {s, (a - (s - shadow)) + (b - shadow)};
    return result;
}

static pair add(pair a, pair b)
{
    pair s = sum_of(a.hi, b.hi), t = sum_of(a.lo, b.lo);
    s = sum_of(s.hi, s.lo + t.hi);
    return sum_of(s.hi, s.lo + t.lo);
}

static pair multiply(pair a, pair b)
{
    double p = a.hi * b.hi;
    return sum_of(p, fma(a.hi, b.hi, -p) + (a.hi * b.lo + a.lo * b.hi));
}

static pair divide(pair a, pair b)
{
    double first = a.hi / b.hi;
    pair minus = {-first, 0.0};
    pair rest = add(a, multiply(minus, b));
    double second = rest.hi / b.hi;
    minus.hi = -second;
    rest = add(rest, multiply(minus, b));
    pair result = sum_of(first, second);
    return sum_of(result.hi, result.lo + rest.hi / b.hi);
}

static pair of(double x)
{
    pair result = {x, 0.0};
    return result;
}

static pair times_power_of_2(pair a, double power)
{
    pair result = {a.hi * power, a.lo * power};
    return result;
}

/* Returns e^-a / 2^k for 0 <= a <= 4000: e^-a = 2^k (1 + s)^1024 with 1 + s = e^(r / 1024), squared ten times by
   (1 + s)^2 = 1 + (2 s + s^2). Nine terms of the series leave 2^-120; the squarings multiply the error by 2^10. */
static pair exp_minus(double a, int *k)
{
    const double ln2[3] = {BCE_LN2_HIGH, BCE_LN2_LOW, BCE_LN2_LOWEST};
    double n = floor(0.5 - a / ln2[0]);
    pair product = {-n * ln2[1], fma(-n, ln2[1], n * ln2[1])};
    pair r = add(of(fma(-n, ln2[0], -a)), add(product, of(-n * ln2[2])));
    r = times_power_of_2(r, 0x1p-10);
    pair s = of(0.0);
    for (int term = 9; term >= 1; term--)
        s = divide(multiply(r, add(of(1.0), s)), of(term));
    for (int i = 0; i < 10; i++)
        s = add(times_power_of_2(s, 2.0), multiply(s, s));
    *k = (int)n;
    return add(of(1.0), s);
}

double bce_times_exp_minus(double coefficient, double a)
{
    if (!(fabs(coefficient) <= DBL_MAX))
        return coefficient;
    if (a > 4000.0 || coefficient == 0.0)
        return coefficient * 0.0;
    int k;
    pair mantissa = exp_minus(a, &k);
    /* Halve the mantissa: otherwise the product could overflow before 2^k makes it small. */
    return ldexp(fma(coefficient, 0.5 * mantissa.hi, coefficient * (0.5 * mantissa.lo)), k + 1);
}

/* log(1 + t) = 2 artanh(t / (2 + t)) for 0 <= t <= 1. The argument is at most 1/3: 37 terms leave less than 2^-114. */
static pair log1p_of(pair t)
{
    pair s = divide(t, add(of(2.0), t)), square = multiply(s, s), series = of(0.0);
    for (int n = 36; n >= 0; n--)
        series = add(multiply(series, square), divide(of(1.0), of(2 * n + 1)));
    return times_power_of_2(multiply(s, series), 2.0);
}

/* Rounded to odd, so that rounding to float32 is no double rounding: see bce_partial.c. hi is the sum rounded to nearest. If
   the sum is inexact, it lies between hi and hi's neighbour towards lo, and the odd one of the two is the result. */
static double round_to_odd(pair a)
{
    uint64_t bits;
    memcpy(&bits, &a.hi, sizeof bits);
    if (a.lo == 0.0 || bits & 1)
        return a.hi;
    return nextafter(a.hi, a.lo > 0.0 ? HUGE_VAL : -HUGE_VAL);
}

void bce_accurate(double x, double y, const double *complement, double *loss, double *gradient)
{
    int k;
    pair mantissa = exp_minus(fmin(fabs(x), 4000.0), &k);
    pair t = times_power_of_2(mantissa, ldexp(1.0, k)), one = of(1.0);
    /* Below 2^-1000 only t != 0 matters: clamp. */
    if (t.hi < 0x1p-1000)
        t = of(0x1p-1000);
    pair log1p_t = log1p_of(t);
    pair sigma_plus = divide(one, add(one, t)), sigma_minus = divide(t, add(one, t));
    pair negative = complement != NULL ? of(*complement) : sum_of(1.0, -y), positive = of(y);
    pair softplus = add(of(x > 0.0 ? x : 0.0), log1p_t), softplus_minus = add(of(x > 0.0 ? 0.0 : -x), log1p_t);
    *loss = round_to_odd(add(multiply(negative, softplus), multiply(positive, softplus_minus)));
    pair minus_y = of(-y);
    *gradient = round_to_odd(add(multiply(negative, x > 0.0 ? sigma_plus : sigma_minus),
                                 multiply(minus_y, x > 0.0 ? sigma_minus : sigma_plus)));
}
