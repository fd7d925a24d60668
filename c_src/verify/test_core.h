/* What the tests of the core share: checks, memory, and arrays as the core wants them. */

#ifndef BCE_VERIFY_TEST_CORE_H
#define BCE_VERIFY_TEST_CORE_H

#include <stdio.h>
#include <stdlib.h>

#include "elements.h"

/* Count a check; the first failures of a group are printed. */
void check(bool good, const char *what, const char *file, int line);

#define CHECK(condition) check(condition, #condition, __FILE__, __LINE__)

static inline void *allocate(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL) {
        fputs("test_core: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

/* One dimension, contiguous. */
static inline bce_array vector(void *data, bce_dtype dtype, const int64_t *n, const int64_t *stride)
{
    bce_array array = {data, dtype, 1, n, stride};
    return array;
}

static const int64_t strides_of[DTYPES] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};

static inline bce_array contiguous(void *data, bce_dtype dtype, const int64_t *n)
{
    return vector(data, dtype, n, &strides_of[dtype]);
}

static inline bce_array number(double *x)
{
    bce_array array = {x, BCE_FLOAT64, 0, NULL, NULL};
    return array;
}

static inline bce_arguments arguments_of(bce_array logits, bce_array targets, const bce_array *weight,
                                         const bce_array *pos_weight, bce_reduction reduction)
{
    bce_arguments arguments = {logits, targets, weight, pos_weight, 0.0, reduction, 0, NULL, NULL};
    return arguments;
}

static const bce_results no_results = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};

enum { LOSS, GRADIENT, CURVATURE, D_TARGETS, D_WEIGHT, D_POS_WEIGHT, RESULTS };

/* Dense, small, log-spaced, in both tails, subnormal; no result of the dtype need be normal. */
static inline double random_logit(uint64_t *state, bce_dtype dtype)
{
    double sign = random_bits(state) >> 63 ? 1.0 : -1.0, u = random_unit(state);
    double reach = dtype == BCE_FLOAT64 ? 745.0 : dtype == BCE_FLOAT16 ? 17.0 : 104.0, x;
    switch (random_below(state, 5)) {
    case 0: x = sign * u * 5.0; break;
    case 1: x = sign * u * 0x1p-7; break;
    case 2: x = sign * ldexp(u, -(int)random_below(state, dtype == BCE_FLOAT64 ? 300 : 30)); break;
    case 3: x = sign * u * reach; break;
    default: x = sign * floor(u * 60.0) * 0x1.62e42fefa39efp-1; break;
    }
    element_write(dtype, x, &x);
    return element_read(dtype, &x);
}

typedef struct {
    int64_t n;
    unsigned char *operands[4], *results[RESULTS];
    bce_array arrays[4], wanted[RESULTS];
} problem;

static inline void problem_init(problem *problem, int64_t n)
{
    problem->n = n;
    for (int k = 0; k < 4; k++)
        problem->operands[k] = allocate(8 * (size_t)n);
    for (int k = 0; k < RESULTS; k++)
        problem->results[k] = allocate(8 * (size_t)n);
}

static inline void problem_free(problem *problem)
{
    for (int k = 0; k < 4; k++)
        free(problem->operands[k]);
    for (int k = 0; k < RESULTS; k++)
        free(problem->results[k]);
}

static inline void problem_fill(problem *problem, bce_dtype dtype, bool hard, uint64_t *state)
{
    for (int64_t i = 0; i < problem->n; i++) {
        size_t at = (size_t)i * element_size(dtype);
        double y = random_unit(state);
        element_write(dtype, random_logit(state, dtype), problem->operands[0] + at);
        element_write(dtype, hard ? (double)(y < 0.5) : y, problem->operands[1] + at);
        element_write(dtype, hard ? 1.0 : random_unit(state) * 5.0, problem->operands[2] + at);
        element_write(dtype, hard ? 1.0 : random_unit(state) * 20.0, problem->operands[3] + at);
    }
    for (int k = 0; k < 4; k++)
        problem->arrays[k] = contiguous(problem->operands[k], dtype, &problem->n);
    for (int k = 0; k < RESULTS; k++)
        problem->wanted[k] = contiguous(problem->results[k], dtype, &problem->n);
}

static inline bce_results all_results(const problem *problem)
{
    const bce_array *w = problem->wanted;
    bce_results results = {&w[LOSS], &w[GRADIENT], &w[CURVATURE], &w[D_TARGETS], &w[D_WEIGHT], &w[D_POS_WEIGHT], NULL};
    return results;
}

/* The groups, in test_values.c, test_arrays.c and test_threads.c. */
void test_values(void);
void test_reference(void);
void test_options(void);
void test_limits(void);
void test_dtypes(void);
void test_sums(void);
void test_any_losses(void);
void test_roundings(void);
void test_ties(void);
void test_partial_sums(void);
void test_broadcasting(void);
void test_layouts(void);
void test_in_place(void);
void test_empty(void);
void test_smoothing_and_dimensions(void);
void test_refusals(void);
void test_instruction_sets(void);
void test_quick(void);
void test_threads(void);
void test_parts_and_interruption(void);
void test_concurrent_calls(void);
void test_environment(void);
void test_fma(void);
void test_fork(void);
#ifdef TEST_WRAPPED
void test_shortage(void);
void test_signals(void);
#endif

#endif
