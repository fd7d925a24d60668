/* The fast path of bce_bridge/triton_kernel/pairs.py and fast.py in C, operation for operation: loss and gradient of float32
   logits, unweighted, in pairs of float32; and its functions in plain float32. Names as there. */

#ifndef PAIRS_H
#define PAIRS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../bce.h"

#include "../bce_contract.h"

#define PAIRS_STEPS 64
#define PAIRS_ENTRIES (128 * PAIRS_STEPS + 1)
#define PAIRS_MAGIC 0x1.8p23f
#define PAIRS_LIMIT 104.5f
#define PAIRS_TERM_ERROR (0x1.6a09e6p-37f + 0x1p-44f) /* 2^-36.5 */
#define PAIRS_ROUNDING 0x1p-44f

typedef struct {
    float log1p, log1p_low, sigma, sigma_low;
} pairs_entry;

typedef struct {
    float high, low;
} pairs_pair;

static pairs_entry pairs_table[PAIRS_ENTRIES];

/* By the core's float64. False if that fails. */
static bool pairs_make_table(void)
{
    static double x[PAIRS_ENTRIES], loss[PAIRS_ENTRIES], gradient[PAIRS_ENTRIES];
    double label = 0.0;
    for (int i = 0; i < PAIRS_ENTRIES; i++)
        x[i] = -(double)i / PAIRS_STEPS;
    int64_t shape[1] = {PAIRS_ENTRIES}, contiguous[1] = {sizeof(double)}, constant[1] = {0};
    bce_array logits = {x, BCE_FLOAT64, 1, shape, contiguous}, targets = {&label, BCE_FLOAT64, 1, shape, constant};
    bce_array l = {loss, BCE_FLOAT64, 1, shape, contiguous}, g = {gradient, BCE_FLOAT64, 1, shape, contiguous};
    bce_arguments arguments = {logits, targets, NULL, NULL, 0.0, BCE_NONE, 0, NULL, NULL};
    bce_results results = {&l, &g, NULL, NULL, NULL, NULL, NULL};
    char message[BCE_MESSAGE_SIZE];
    if (bce_evaluate(&arguments, &results, message) != BCE_OK)
        return false;
    for (int i = 0; i < PAIRS_ENTRIES; i++) {
        pairs_entry *entry = &pairs_table[i];
        entry->log1p = (float)loss[i];
        entry->log1p_low = (float)(loss[i] - (double)entry->log1p);
        entry->sigma = (float)gradient[i];
        entry->sigma_low = (float)(gradient[i] - (double)entry->sigma);
    }
    return true;
}

static inline pairs_pair pairs_fast_two_sum(float a, float b)
{
    float s = a + b;
    return (pairs_pair){s, b - (s - a)};
}

static inline pairs_pair pairs_two_sum(float a, float b)
{
    float s = a + b, shadow = s - a;
    return (pairs_pair){s, (a - (s - shadow)) + (b - shadow)};
}

static inline pairs_pair pairs_positive_sum(float a, float b)
{
    return pairs_fast_two_sum(a > b ? a : b, a > b ? b : a);
}

static inline pairs_pair pairs_product(float a, float b)
{
    float p = a * b;
    return (pairs_pair){p, fmaf(a, b, -p)};
}

static inline pairs_pair pairs_product_of_pairs(pairs_pair a, pairs_pair b)
{
    pairs_pair p = pairs_product(a.high, b.high);
    return (pairs_pair){p.high, fmaf(a.high, b.low, fmaf(a.low, b.high, p.low))};
}

/* The nearest entry's number, and what is left of a. */
static inline int pairs_nearest_entry(float a, float *h)
{
    float shifted = fmaf(a, 64.0f, PAIRS_MAGIC), number = shifted - PAIRS_MAGIC;
    *h = fmaf(number, -0.015625f, a);
    return (int)number;
}

/* log(1 + e^-a) and sigma(-a). */
static inline void pairs_functions(float a, pairs_pair *log1p, pairs_pair *sigma)
{
    const float sixth = (float)(1.0 / 6), third = (float)(1.0 / 3), fourth = (float)(1.0 / 24);
    float h;
    pairs_entry at = pairs_table[pairs_nearest_entry(a, &h)];
    float m = at.sigma, h2 = h * h, q = fmaf(-m, m, m), qh2 = q * h2, e = fmaf(m, -2.0f, 1.0f), cubic = (q - sixth) * h;
    float rest = fmaf(h, fmaf(cubic, -0.25f, fmaf(m, third, -sixth)), 0.5f);
    pairs_pair p = pairs_product(m, h);
    p.low = fmaf(at.sigma_low, h, p.low);
    pairs_pair l = pairs_fast_two_sum(at.log1p, -p.high);
    *log1p = (pairs_pair){l.high, fmaf(qh2, rest, (at.log1p_low - p.low) + l.low)};
    rest = fmaf(e, fmaf(fmaf(q, -12.0f, 1.0f) * h2, fourth, 0.5f), cubic);
    pairs_pair v = pairs_product(m, p.high);
    v.low = fmaf(at.sigma_low, p.high, fmaf(m, p.low, v.low));
    pairs_pair s = pairs_fast_two_sum(m, -p.high), t = pairs_fast_two_sum(s.high, v.high);
    *sigma = (pairs_pair){t.high, fmaf(qh2, rest, ((at.sigma_low - p.low) + v.low) + (s.low + t.low))};
}

static inline void pairs_functions_in_float32(float a, float *log1p, float *sigma)
{
    float h;
    pairs_entry at = pairs_table[pairs_nearest_entry(a, &h)];
    float m = at.sigma, qh = fmaf(-m, m, m) * h;
    *log1p = fmaf(h, fmaf(qh, 0.5f, -m), at.log1p);
    *sigma = fmaf(qh, fmaf(h, 0.5f - m, -1.0f), m);
}

/* A result at both ends of the interval that its error allows: settled if they are equal. */
typedef struct {
    float above, below;
} pairs_ends;

/* Loss, and gradient times scale, for 0 <= y <= 1. */
static inline void pairs_evaluate(float x, float y, pairs_pair scale, bool exact_scale, pairs_ends *loss, pairs_ends *gradient)
{
    bool negative = signbit(x);
    float magnitude = fabsf(x), a = magnitude < PAIRS_LIMIT ? magnitude : PAIRS_LIMIT;
    pairs_pair log1p, sigma, c = pairs_fast_two_sum(1.0f, -y);
    pairs_functions(a, &log1p, &sigma);
    pairs_pair linear = negative ? (pairs_pair){y, 0.0f} : c;
    float reach = linear.high == 0.0f ? 0.0f : magnitude;
    pairs_pair v = pairs_product(linear.high, reach), l = pairs_positive_sum(v.high, log1p.high);
    l.low += log1p.low + fmaf(linear.low, reach, v.low);
    pairs_pair g = pairs_two_sum(sigma.high, -linear.high);
    g.low += sigma.low - linear.low;
    float tiny = magnitude < PAIRS_LIMIT ? 0x1p-146f : 0.0f;
    float error = fmaf(l.high, PAIRS_ROUNDING, fmaf(log1p.high, PAIRS_TERM_ERROR, tiny));
    *loss = (pairs_ends){l.high + (l.low + error), l.high + (l.low - error)};
    error = fmaf(linear.high, PAIRS_ROUNDING * scale.high, fmaf(sigma.high, PAIRS_TERM_ERROR * scale.high, tiny));
    if (exact_scale)
        g = (pairs_pair){g.high * scale.high, g.low * scale.high};
    else
        g = pairs_product_of_pairs(g, scale);
    *gradient = (pairs_ends){g.high + (g.low + error), g.high + (g.low - error)};
    if (!negative) {
        gradient->above = -gradient->above;
        gradient->below = -gradient->below;
    }
}

#endif
