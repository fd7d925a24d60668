/* What the programs here share: random bits, and elements of every type read and written with no help from the core. */

#ifndef BCE_VERIFY_ELEMENTS_H
#define BCE_VERIFY_ELEMENTS_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "../bce.h"

enum { FLOATING_DTYPES = BCE_BFLOAT16 + 1, DTYPES = BCE_BOOL + 1 };

/* xorshift64*: G. Marsaglia, "Xorshift RNGs", J. Stat. Softw. 8, 2003; multiplier by S. Vigna. The state is not 0. */
static inline uint64_t random_bits(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline int64_t random_below(uint64_t *state, int64_t n)
{
    return (int64_t)(random_bits(state) >> 1) % n;
}

/* In [0, 1), a multiple of 2^-53. */
static inline double random_unit(uint64_t *state)
{
    return (double)(random_bits(state) >> 11) * 0x1p-53;
}

static inline uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double number_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline size_t element_size(bce_dtype dtype)
{
    static const size_t sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};
    return sizes[dtype];
}

/* Significant bits, and the exponents of the least subnormal and of the least number too large. */
typedef struct {
    int precision, least, limit;
} float_format;

static inline float_format format_of(bce_dtype dtype)
{
    static const float_format formats[] = {{53, -1074, 1024}, {24, -149, 128}, {11, -24, 16}, {8, -133, 128}};
    return formats[dtype];
}

static inline double element_read(bce_dtype dtype, const void *element)
{
    double f64;
    float f32;
    uint16_t u16;
    int64_t i64;
    int32_t i32;
    int16_t i16;
    switch (dtype) {
    case BCE_FLOAT64: memcpy(&f64, element, 8); return f64;
    case BCE_FLOAT32: memcpy(&f32, element, 4); return (double)f32;
    case BCE_FLOAT16:
    case BCE_BFLOAT16: {
        memcpy(&u16, element, 2);
        int precision = format_of(dtype).precision, least = format_of(dtype).least;
        int field = (u16 & 0x7fff) >> (precision - 1), fraction = u16 & ((1 << (precision - 1)) - 1);
        double magnitude;
        if (field == 0x7fff >> (precision - 1))
            magnitude = fraction != 0 ? (double)NAN : HUGE_VAL;
        else
            magnitude = ldexp(field > 0 ? fraction + (1 << (precision - 1)) : fraction, least + (field > 0 ? field - 1 : 0));
        return u16 >> 15 ? -magnitude : magnitude;
    }
    case BCE_INT64: memcpy(&i64, element, 8); return (double)i64;
    case BCE_INT32: memcpy(&i32, element, 4); return i32;
    case BCE_INT16: memcpy(&i16, element, 2); return i16;
    case BCE_INT8: return *(const signed char *)element;
    case BCE_UINT8: return *(const unsigned char *)element;
    case BCE_BOOL: return *(const unsigned char *)element != 0;
    }
    return NAN;
}

/* The number cut towards 0 to what the type can hold; it must be in an integer type's range. */
static inline void element_write(bce_dtype dtype, double number, void *element)
{
    if (dtype == BCE_FLOAT64) {
        memcpy(element, &number, 8);
    } else if (dtype == BCE_FLOAT32) {
        float f32 = (float)number;
        memcpy(element, &f32, 4);
    } else if (dtype == BCE_FLOAT16 || dtype == BCE_BFLOAT16) {
        float_format format = format_of(dtype);
        double magnitude = fabs(number);
        int fraction_bits = format.precision - 1, exponent;
        uint16_t u16;
        if (number != number) {
            u16 = (uint16_t)(0x7fff & ~((1 << (fraction_bits - 1)) - 1));
        } else if (magnitude >= ldexp(1.0, format.limit)) {
            u16 = (uint16_t)(0x7fff >> fraction_bits << fraction_bits);
        } else {
            frexp(magnitude, &exponent);
            int unit = exponent - format.precision;
            if (magnitude == 0.0 || unit < format.least)
                unit = format.least;
            int digits = (int)ldexp(magnitude, -unit);
            u16 = (uint16_t)(digits + ((unit - format.least) << fraction_bits));
        }
        u16 |= (uint16_t)(signbit(number) ? 0x8000 : 0);
        memcpy(element, &u16, 2);
    } else {
        int64_t i64 = dtype == BCE_BOOL ? number != 0.0 : (int64_t)number;
        int32_t i32 = (int32_t)i64;
        int16_t i16 = (int16_t)i64;
        int8_t i8 = (int8_t)i64;
        memcpy(element, element_size(dtype) == 8   ? (void *)&i64
                        : element_size(dtype) == 4 ? (void *)&i32
                        : element_size(dtype) == 2 ? (void *)&i16
                                                   : (void *)&i8,
               element_size(dtype));
    }
}

#endif
