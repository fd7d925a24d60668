/* Exact sums: a fixed-point number of 2,176 bits that holds any sum of float64, and its one rounding. */

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

/* A partial sum that comes from outside may hold anything: beyond the last limb and the counts it wraps. */
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

/* The carry meets the limb's low half only: the sum with all of it need not fit. */
void bce_partial_normalize(bce_partial *partial)
{
    const int64_t base = (int64_t)1 << 32;
    int64_t carry = 0;
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

/* (mantissa + something below 1 if sticky) 2^exponent, mantissa >= 2^63, as a float64. Rounded to odd, that is to the
   neighbour whose last bit is 1 unless exact, it can be rounded again to any format of at most 51 bits as if once
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

/* The sum over divisor: long division by bits from the first that is set, until 64 bits of the quotient are there. */
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
    int top = LIMBS - 1;
    while (top >= 0 && magnitude.limbs[top] == 0)
        top--;
    if (top < 0)
        return 0.0;
    uint64_t mantissa = 0, remainder = 0;
    int bits = 0, position = 64 * LIMBS;
    for (int i = top; bits < 64; i--) {
        uint64_t limb = i >= 0 ? (uint64_t)magnitude.limbs[i] : 0;
        for (int b = i == LIMBS - 1 ? 63 : 31; b >= 0 && bits < 64; b--) {
            remainder = remainder << 1 | (limb >> b & 1);
            bool one = remainder >= divisor;
            remainder -= one ? divisor : 0;
            mantissa = mantissa << 1 | one;
            bits += bits > 0 || one;
            position = 32 * i + b;
        }
    }
    bool sticky = remainder != 0;
    for (int k = 0; k < position; k += 32) {
        uint64_t limb = (uint64_t)magnitude.limbs[k / 32];
        int width = position - k;
        sticky |= (width < 32 ? limb & ((UINT64_C(1) << width) - 1) : limb) != 0;
    }
    double result = assemble(mantissa, sticky, position - 1074, to_odd);
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
