/* fma() in integers, for C libraries whose own rounds twice: MinGW's computes in the x87's 64 bits unless the compiler makes an
   instruction of it. */

#ifndef BCE_FMA_H
#define BCE_FMA_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef unsigned __int128 bce_wide;

/* The magnitude of a finite x is the integer returned times 2^*exponent. */
static inline uint64_t bce_integer_of(double x, int *exponent)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int biased = (int)(bits >> 52 & 0x7ff);
    *exponent = (biased == 0 ? 1 : biased) - 1075;
    return (bits & 0xfffffffffffff) | (uint64_t)(biased != 0) << 52;
}

static inline int bce_highest_bit(bce_wide x)
{
    uint64_t high = (uint64_t)(x >> 64);
    return high != 0 ? 127 - __builtin_clzll(high) : 63 - __builtin_clzll((uint64_t)x);
}

/* x 2^-n; should a bit of it be lost, the last bit is 1. */
static inline bce_wide bce_shift_right(bce_wide x, int n)
{
    if (n == 0)
        return x;
    if (n > 127)
        return x != 0;
    return x >> n | (x << (128 - n) != 0);
}

/* a b + c, rounded once to nearest, ties to even.

   Product and c are brought to integers whose highest bit is the 125th and whose 20 lowest are 0. The smaller one is shifted
   right by the difference of the exponents: by 20 at most, no bit is lost, and by more, the difference of the two keeps its
   highest bit above the 123rd, so that what a lost bit stands for is far below the 53 bits that are kept. */
static inline double bce_software_fma(double a, double b, double c)
{
    if (!isfinite(a) || !isfinite(b) || a == 0.0 || b == 0.0)
        return a * b + c;
    if (!isfinite(c))
        return c;
    if (c == 0.0)
        return a * b;
    int exponent_a, exponent_b, exponent_c;
    uint64_t integer_a = bce_integer_of(a, &exponent_a), integer_b = bce_integer_of(b, &exponent_b);
    bce_wide product = (bce_wide)integer_a * integer_b, addend = bce_integer_of(c, &exponent_c);
    int up = 125 - bce_highest_bit(product), up_c = 125 - bce_highest_bit(addend);
    int exponent = exponent_a + exponent_b - up;
    product <<= up;
    addend <<= up_c;
    exponent_c -= up_c;
    if (exponent >= exponent_c) {
        addend = bce_shift_right(addend, exponent - exponent_c);
    } else {
        product = bce_shift_right(product, exponent_c - exponent);
        exponent = exponent_c;
    }
    bool negative = signbit(a) != signbit(b);
    if (negative == (signbit(c) != 0)) {
        product += addend;
    } else if (product >= addend) {
        product -= addend;
    } else {
        product = addend - product;
        negative = !negative;
    }
    if (product == 0)
        return 0.0;
    int last = bce_highest_bit(product) + exponent - 52;  /* the exponent of the result's last bit */
    if (last < -1074)
        last = -1074;
    int lost = last - exponent;
    if (lost <= 0) {
        product <<= -lost;
    } else if (lost > 127) {
        product = 0;
    } else {
        bce_wide rest = product << (128 - lost), half = (bce_wide)1 << 127;
        product >>= lost;
        product += rest > half || (rest == half && (product & 1));
    }
    double magnitude = ldexp((double)(uint64_t)product, last);
    return negative ? -magnitude : magnitude;
}

#endif
