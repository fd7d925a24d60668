/* Exact sums: a fixed-point number of 2,176 bits that holds any sum of float64, and its one rounding.

   This is the long accumulator of U. Kulisch, "Computer Arithmetic and Validity", de Gruyter, 2013, in the form of R. M. Neal's
   small superaccumulator, "Fast exact summation using small and large superaccumulators", arXiv:1505.05571, 2015: limbs of 32
   bits in 64, so that carries are due only now and then. */

#include "bce_internal.h"

#define LIMBS BCE_PARTIAL_LIMBS
#define LOW_32 UINT64_C(0xffffffff)

static uint64_t to_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A partial sum from outside may hold anything: its last limb and its counts wrap rather than overflow. */
static int64_t wrapping_sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

void bce_partial_deposit(bce_partial *partial, double number)
{
    uint64_t bits = to_bits(number), mantissa = bits & ((UINT64_C(1) << 52) - 1);
    int exponent = (int)(bits >> 52 & 0x7ff);
    if (exponent > 0)
        mantissa |= UINT64_C(1) << 52;
    int position = exponent > 0 ? exponent - 1 : 0;  /* number = mantissa 2^(position - 1074) */
    int64_t *limb = partial->limbs + position / 32;
    int shift = position % 32;
    int64_t low = (int64_t)(mantissa << shift & LOW_32);
    int64_t middle = (int64_t)(mantissa >> (32 - shift) & LOW_32);
    int64_t high = (int64_t)(mantissa >> 32 >> (32 - shift));
    if (bits >> 63) {
        limb[0] -= low;
        limb[1] -= middle;
        limb[2] -= high;
    } else {
        limb[0] += low;
        limb[1] += middle;
        limb[2] += high;
    }
}

static int64_t low_32(int64_t limb)
{
    return (int64_t)((uint64_t)limb & LOW_32);
}

/* The carry is added to the limb's low half only: added to the whole limb it could overflow. */
void bce_partial_normalize(bce_partial *partial)
{
    const int64_t base = (int64_t)1 << 32;
    int64_t carry = 0;
    uint64_t any = 0;
    for (int i = 0; i < LIMBS - 1; i++)
        any |= (uint64_t)partial->limbs[i];
    if (any <= LOW_32)
        return;
    for (int i = 0; i < LIMBS - 1; i++) {
        int64_t limb = partial->limbs[i], digit = low_32(limb), sum = digit + carry;
        partial->limbs[i] = low_32(sum);
        carry = (limb - digit) / base + (sum - low_32(sum)) / base;
    }
    partial->limbs[LIMBS - 1] = wrapping_sum(partial->limbs[LIMBS - 1], carry);
}

bce_status bce_partial_add(bce_partial *partial, const double *numbers, size_t n)
{
    if (partial == NULL || (numbers == NULL && n > 0))
        return BCE_ERROR_ARGUMENT;
    bce_partial_normalize(partial);
    for (size_t i = 0; i < n; i++) {
        double number = numbers[i];
        if (number != number)
            partial->nan = wrapping_sum(partial->nan, 1);
        else if (number > DBL_MAX)
            partial->plus_infinity = wrapping_sum(partial->plus_infinity, 1);
        else if (number < -DBL_MAX)
            partial->minus_infinity = wrapping_sum(partial->minus_infinity, 1);
        else
            bce_partial_deposit(partial, number);
        if ((i + 1) % ((size_t)1 << 30) == 0)
            bce_partial_normalize(partial);
    }
    partial->count = wrapping_sum(partial->count, (int64_t)n);
    bce_partial_normalize(partial);
    return BCE_OK;
}

bce_status bce_partial_merge(bce_partial *partial, const bce_partial *other)
{
    if (partial == NULL || other == NULL)
        return BCE_ERROR_ARGUMENT;
    bce_partial term = *other;
    bce_partial_normalize(&term);
    bce_partial_normalize(partial);
    for (int i = 0; i < LIMBS; i++)
        partial->limbs[i] = wrapping_sum(partial->limbs[i], term.limbs[i]);
    partial->count = wrapping_sum(partial->count, term.count);
    partial->nan = wrapping_sum(partial->nan, term.nan);
    partial->plus_infinity = wrapping_sum(partial->plus_infinity, term.plus_infinity);
    partial->minus_infinity = wrapping_sum(partial->minus_infinity, term.minus_infinity);
    bce_partial_normalize(partial);
    return BCE_OK;
}

/* (mantissa + something below 1 if sticky) 2^exponent, mantissa >= 2^63, as a float64. to_odd: an inexact value becomes the
   neighbour whose last bit is 1; rounding that to any format of at most 51 bits is then no double rounding
   (S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd",
   IEEE Trans. Comput. 57, 2008). */
static double assemble(uint64_t mantissa, bool sticky, int exponent, bool to_odd)
{
    int binade = exponent + 63;
    int drop = binade >= -1022 ? 11 : 11 + (-1022 - binade);
    if (drop > 64)
        return to_odd ? 0x1p-1074 : 0.0;
    uint64_t kept = drop == 64 ? 0 : mantissa >> drop;
    uint64_t rest = drop == 64 ? mantissa : mantissa & ((UINT64_C(1) << drop) - 1);
    uint64_t half = UINT64_C(1) << (drop - 1);
    if (to_odd)
        kept |= rest != 0 || sticky;
    else if (rest > half || (rest == half && (sticky || kept & 1)))
        kept++;
    if (binade < -1022)
        return from_bits(kept);  /* a carry makes it the least normal number */
    if (binade > 1023)
        return HUGE_VAL;
    return from_bits(kept + ((uint64_t)(binade + 1022) << 52));
}

/* Bits position to position + n - 1 of a number, n <= 32; those below bit 0 are 0. */
static uint64_t bits_at(const uint32_t *digits, int position, int n)
{
    uint64_t window = 0;
    for (int i = 1; i >= 0; i--) {
        int at = (position + 32 * LIMBS) / 32 - LIMBS + i;  /* rounded down */
        window = window << 32 | (at >= 0 && at <= LIMBS ? digits[at] : 0);
    }
    return window >> (position & 31) & ((UINT64_C(1) << n) - 1);
}

/* The sum divided by divisor. Long division: each step takes as many bits as fit in 64 beside a remainder, until the quotient
   has 64. */
static double quotient(const bce_partial *partial, uint64_t divisor, bool to_odd)
{
    bce_partial magnitude = *partial;
    bce_partial_normalize(&magnitude);
    bool negative = magnitude.limbs[LIMBS - 1] < 0;
    if (negative) {
        for (int i = 0; i < LIMBS; i++)
            magnitude.limbs[i] = (int64_t)-(uint64_t)magnitude.limbs[i];
        bce_partial_normalize(&magnitude);
    }
    uint32_t digits[LIMBS + 1];
    for (int i = 0; i < LIMBS; i++)
        digits[i] = (uint32_t)magnitude.limbs[i];
    digits[LIMBS] = (uint32_t)((uint64_t)magnitude.limbs[LIMBS - 1] >> 32);
    int top = LIMBS;
    while (top >= 0 && digits[top] == 0)
        top--;
    if (top < 0)
        return 0.0;
    int step = 1;
    while (step < 32 && divisor >> (63 - step) == 0)
        step++;
    uint64_t mantissa = 0, remainder = 0, part = 0;
    int position = 32 * (top + 1), bits = 0, left = 0;
    while (bits < 64) {
        position -= step;
        remainder = remainder << step | bits_at(digits, position, step);
        part = remainder / divisor;
        remainder %= divisor;
        int size = step;  /* part's bits; leading zeros of the quotient do not count */
        while (bits == 0 && size > 0 && part >> (size - 1) == 0)
            size--;
        left = size > 64 - bits ? size - (64 - bits) : 0;
        mantissa = mantissa << (size - left) | part >> left;
        bits += size - left;
    }
    uint64_t rest = remainder | (part & ((UINT64_C(1) << left) - 1));
    int whole = position > 0 ? position / 32 : 0;
    for (int i = 0; i < whole; i++)
        rest |= digits[i];
    if (position > 0)
        rest |= bits_at(digits, 32 * whole, position % 32);
    double result = assemble(mantissa, rest != 0, position + left - 1074, to_odd);
    return negative ? -result : result;
}

static double round_partial(const bce_partial *partial, bce_reduction reduction, bool to_odd)
{
    if (partial->nan > 0 || (partial->plus_infinity > 0 && partial->minus_infinity > 0))
        return NAN;
    if (reduction == BCE_MEAN && partial->count == 0)
        return NAN;
    if (partial->plus_infinity > 0)
        return HUGE_VAL;
    if (partial->minus_infinity > 0)
        return -HUGE_VAL;
    return quotient(partial, reduction == BCE_MEAN ? (uint64_t)partial->count : 1, to_odd);
}

bce_status bce_partial_round(const bce_partial *partial, bce_reduction reduction, bce_dtype dtype, void *result)
{
    if (partial == NULL || result == NULL || (reduction != BCE_MEAN && reduction != BCE_SUM) || partial->count < 0)
        return BCE_ERROR_ARGUMENT;
    if (dtype < BCE_FLOAT64 || dtype > BCE_BFLOAT16)
        return BCE_ERROR_DTYPE;
    double number = round_partial(partial, reduction, dtype != BCE_FLOAT64);
    bce_store_number(dtype, number, result);
    return BCE_OK;
}
