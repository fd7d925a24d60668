/* Tests of the core through its public header alone, for the sanitizers and for machines without Python.

   Oracles: the formulae of bce.h in long double (64 bits or more), sums in 128-bit integers, and the core itself where two
   calls must agree. Prints a line for each group and the number of checks passed and failed; exit status 1 if any failed.

   Built with -DTEST_WRAPPED -Wl,--wrap=malloc,--wrap=pthread_create it tests too that neither memory nor threads need be
   there. */

#define _POSIX_C_SOURCE 200809L

#include <float.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "elements.h"

__extension__ typedef __int128 int128;

static long passed, failed, group_failed;

/* The first failures of a group are printed. */
static void check(bool good, const char *what, int line)
{
    passed += good;
    failed += !good;
    group_failed += !good;
    if (!good && group_failed <= 3)
        printf("  line %d: %s\n", line, what);
}

#define CHECK(condition) check(condition, #condition, __LINE__)

static void *allocate(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL) {
        fputs("test_core: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

/* One dimension, contiguous. */
static bce_array vector(void *data, bce_dtype dtype, const int64_t *n, const int64_t *stride)
{
    bce_array array = {data, dtype, 1, n, stride};
    return array;
}

static const int64_t strides_of[DTYPES] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};

static bce_array contiguous(void *data, bce_dtype dtype, const int64_t *n)
{
    return vector(data, dtype, n, &strides_of[dtype]);
}

static bce_array number(double *x)
{
    bce_array array = {x, BCE_FLOAT64, 0, NULL, NULL};
    return array;
}

static bce_arguments arguments_of(bce_array logits, bce_array targets, const bce_array *weight, const bce_array *pos_weight,
                                  bce_reduction reduction)
{
    bce_arguments arguments = {logits, targets, weight, pos_weight, 0.0, reduction, 0, NULL, NULL};
    return arguments;
}

static const bce_results no_results = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};

/* ---- Values ---- */

/* |got - exact| in units of the last place of the dtype at exact. */
static double error_in_ulp(bce_dtype dtype, double got, long double exact)
{
    float_format format = format_of(dtype);
    int exponent;
    if (fabsl(exact) >= ldexpl(1.0L - ldexpl(1.0L, -format.precision - 1), format.limit))
        return got == (exact > 0.0L ? HUGE_VAL : -HUGE_VAL) ? 0.0 : HUGE_VAL;
    frexpl(exact, &exponent);
    int unit = exponent - format.precision;
    if (exact == 0.0L || unit < format.least)
        unit = format.least;
    return (double)ldexpl(fabsl((long double)got - exact), -unit);
}

enum { LOSS, GRADIENT, CURVATURE, D_TARGETS, D_WEIGHT, D_POS_WEIGHT, RESULTS };

/* The formulae of bce.h, and for each the sum of its terms' magnitudes where they may cancel. */
static void exact_results(double x, double y, double w, double p, long double exact[RESULTS], long double terms[RESULTS])
{
    long double a = fabsl((long double)x), t = expl(-a), l = log1pl(t);
    long double plus = 1.0L / (1.0L + t), minus = t / (1.0L + t);
    long double softplus = x > 0.0 ? a + l : l, softplus_minus = x > 0.0 ? l : a + l;
    long double sigma = x > 0.0 ? plus : minus, sigma_minus = x > 0.0 ? minus : plus;
    exact[LOSS] = w * ((1.0L - y) * softplus + (long double)p * y * softplus_minus);
    exact[GRADIENT] = w * ((1.0L - y) * sigma - (long double)p * y * sigma_minus);
    exact[CURVATURE] = w * (1.0L - y + (long double)p * y) * sigma * sigma_minus;
    exact[D_TARGETS] = w * ((p - 1.0L) * l + (x > 0.0 ? -1.0L : p) * a);
    exact[D_WEIGHT] = (1.0L - y) * softplus + (long double)p * y * softplus_minus;
    exact[D_POS_WEIGHT] = (long double)w * y * softplus_minus;
    for (int k = 0; k < RESULTS; k++)
        terms[k] = 0.0L;
    if (y != 0.0 && y != 1.0)
        terms[GRADIENT] = w * ((1.0L - y) * sigma + (long double)p * y * sigma_minus);
    /* w (p - 1) L and the linear term, of opposite signs for p > 1. */
    terms[D_TARGETS] = w * (fabsl(p - 1.0L) * l + (x > 0.0 ? 1.0L : p) * a);
}

/* Dense, small, log-spaced, in both tails, subnormal; no result of the dtype need be normal. */
static double random_logit(uint64_t *state, bce_dtype dtype)
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

static void problem_init(problem *problem, int64_t n)
{
    problem->n = n;
    for (int k = 0; k < 4; k++)
        problem->operands[k] = allocate(8 * (size_t)n);
    for (int k = 0; k < RESULTS; k++)
        problem->results[k] = allocate(8 * (size_t)n);
}

static void problem_free(problem *problem)
{
    for (int k = 0; k < 4; k++)
        free(problem->operands[k]);
    for (int k = 0; k < RESULTS; k++)
        free(problem->results[k]);
}

static void problem_fill(problem *problem, bce_dtype dtype, bool hard, uint64_t *state)
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

static bce_results all_results(const problem *problem)
{
    const bce_array *w = problem->wanted;
    bce_results results = {&w[LOSS], &w[GRADIENT], &w[CURVATURE], &w[D_TARGETS], &w[D_WEIGHT], &w[D_POS_WEIGHT], NULL};
    return results;
}

static void test_values(void)
{
    static const char *const names[] = {"float64", "float32", "float16", "bfloat16"};
    uint64_t state = 1;
    problem problem;
    problem_init(&problem, 3000);
    for (int d = 0; d < FLOATING_DTYPES; d++)
        for (int hard = 0; hard < 2; hard++) {
            bce_dtype dtype = (bce_dtype)d;
            double bound = dtype != BCE_FLOAT64 ? 0.5001 : hard ? 2.0 : 4.0, worst[RESULTS] = {0.0};
            problem_fill(&problem, dtype, hard, &state);
            bce_arguments arguments = arguments_of(problem.arrays[0], problem.arrays[1], hard ? NULL : &problem.arrays[2],
                                                   hard ? NULL : &problem.arrays[3], BCE_NONE);
            bce_results results = all_results(&problem);
            CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
            for (int64_t i = 0; i < problem.n; i++) {
                size_t at = (size_t)i * element_size(dtype);
                double in[4];
                long double exact[RESULTS], terms[RESULTS];
                for (int k = 0; k < 4; k++)
                    in[k] = element_read(dtype, problem.operands[k] + at);
                exact_results(in[0], in[1], in[2], in[3], exact, terms);
                for (int k = 0; k < RESULTS; k++) {
                    double got = element_read(dtype, problem.results[k] + at);
                    double error = error_in_ulp(dtype, got, exact[k]);
                    /* Four float64 roundings of terms that cancel, in units of the result's last place. */
                    double one_ulp = error_in_ulp(dtype, 0.0, exact[k]);
                    double allowance = terms[k] > 0.0L && exact[k] != 0.0L
                                           ? (double)(0x1p-51L * terms[k] / fabsl(exact[k])) * one_ulp
                                           : 0.0;
                    if (k > GRADIENT && dtype == BCE_FLOAT64)
                        allowance += 2.0;
                    worst[k] = fmax(worst[k], error - allowance);
                    check(error <= bound + allowance, "a result is within its bound", __LINE__);
                }
            }
            printf("  %-8s %s labels: loss %.3f, gradient %.3f, curvature %.3f ULP beyond cancellation\n", names[d],
                   hard ? "hard" : "soft", worst[LOSS], worst[GRADIENT], worst[CURVATURE]);
        }
    problem_free(&problem);
}

/* Limits are taken: a zero coefficient silences its term, even against an infinity; NaN in any operand gives NaN. */
static void test_limits(void)
{
    const double inf = HUGE_VAL, nan = (double)NAN;
    const struct {
        double x, y, w, p, loss, gradient;
    } cases[] = {
        {inf, 1, 1, 1, 0, 0},          {-inf, 0, 1, 1, 0, 0},          {inf, 0, 1, 1, inf, 1},
        {-inf, 1, 1, 1, inf, -1},      {inf, 0, 2, 3, inf, 2},         {-inf, 1, 2, 3, inf, -6},
        {inf, 0.5, 1, 1, inf, 0.5},    {-inf, 0.5, 1, 1, inf, -0.5},   {inf, 0, 0, 1, 0, 0},
        {-inf, 1, 0, 1, 0, 0},         {-inf, 1, 1, 0, 0, 0},          {-inf, 0.5, 1, 0, 0, 0},
        {3, 0.5, 0, 2, 0, 0},          {1, inf, 0, 1, 0, 0},           {nan, 0, 1, 1, nan, nan},
        {nan, 1, 1, 1, nan, nan},      {nan, 0, 0, 0, nan, nan},       {1, nan, 1, 1, nan, nan},
        {1, nan, 0, 1, nan, nan},      {1, 0, nan, 1, nan, nan},       {1, 0, 1, nan, nan, nan},
        {1, 1, 0, nan, nan, nan},      {inf, 1, nan, 1, nan, nan},     {inf, 1, 5, 7, 0, 0},
    };
    const int64_t n = 1;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int d = 0; d < FLOATING_DTYPES; d++) {
            bce_dtype dtype = (bce_dtype)d;
            double in[4] = {cases[c].x, cases[c].y, cases[c].w, cases[c].p}, loss = 7.0, gradient = 7.0, sum = 7.0;
            for (int k = 0; k < 4; k++)
                element_write(dtype, in[k], &in[k]);
            bce_array w = contiguous(&in[2], dtype, &n), p = contiguous(&in[3], dtype, &n);
            bce_array loss_out = contiguous(&loss, dtype, &n), gradient_out = contiguous(&gradient, dtype, &n);
            bce_array sum_out = number(&sum);
            bce_arguments arguments =
                arguments_of(contiguous(&in[0], dtype, &n), contiguous(&in[1], dtype, &n), &w, &p, BCE_NONE);
            for (int without = 0; without < 4; without++) {
                if ((without & 1 && cases[c].w != 1.0) || (without & 2 && cases[c].p != 1.0))
                    continue;
                arguments.weight = without & 1 ? NULL : &w;
                arguments.pos_weight = without & 2 ? NULL : &p;
                bce_results results = no_results;
                results.loss = &loss_out;
                results.gradient = &gradient_out;
                arguments.reduction = BCE_NONE;
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                double got = element_read(dtype, &loss);
                CHECK(got == cases[c].loss || (got != got && cases[c].loss != cases[c].loss));
                got = element_read(dtype, &gradient);
                CHECK(got == cases[c].gradient || (got != got && cases[c].gradient != cases[c].gradient));
                results.loss = &sum_out;
                arguments.reduction = BCE_SUM;
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                CHECK(sum == cases[c].loss || (sum != sum && cases[c].loss != cases[c].loss));
            }
        }
}

/* Every type of targets and weights gives what the same numbers give as float64. */
static void test_dtypes(void)
{
    enum { N = 300 };
    const int64_t n = N;
    uint64_t state = 2;
    double x[N], wide[3][N], expected[N], got[N];
    unsigned char narrow[3][8 * N];
    bce_array out = contiguous(got, BCE_FLOAT64, &n), expected_out = contiguous(expected, BCE_FLOAT64, &n);
    bce_results results = no_results;
    for (int d = 0; d < DTYPES; d++) {
        bce_dtype dtype = (bce_dtype)d;
        for (int i = 0; i < N; i++) {
            x[i] = random_logit(&state, BCE_FLOAT64);
            for (int k = 0; k < 3; k++) {
                unsigned char *element = narrow[k] + (size_t)i * element_size(dtype);
                double value = random_unit(&state) * 3.0;
                if (dtype > BCE_BFLOAT16)
                    value = dtype == BCE_BOOL ? (double)(value < 1.5) : floor(value * 30.0) - (dtype == BCE_UINT8 ? 0.0 : 50.0);
                element_write(dtype, value, element);
                wide[k][i] = element_read(dtype, element);
            }
        }
        bce_array w = contiguous(wide[1], BCE_FLOAT64, &n), p = contiguous(wide[2], BCE_FLOAT64, &n);
        bce_arguments arguments =
            arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(wide[0], BCE_FLOAT64, &n), &w, &p, BCE_NONE);
        results.loss = &expected_out;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        arguments.targets = contiguous(narrow[0], dtype, &n);
        w = contiguous(narrow[1], dtype, &n);
        p = contiguous(narrow[2], dtype, &n);
        results.loss = &out;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        CHECK(memcmp(got, expected, sizeof got) == 0);
    }
    /* All 65,536 numbers of the short types, as logits. */
    const int64_t all = 65536;
    unsigned char *bits = allocate(2 * 65536);
    double *from_short = allocate(8 * 65536), *from_wide = allocate(8 * 65536), *values = allocate(8 * 65536);
    for (int d = BCE_FLOAT16; d <= BCE_BFLOAT16; d++) {
        for (uint32_t i = 0; i < 65536; i++) {
            uint16_t u16 = (uint16_t)i;
            memcpy(bits + 2 * i, &u16, 2);
            values[i] = element_read((bce_dtype)d, bits + 2 * i);
        }
        unsigned char no = 0;
        const int64_t zero_stride = 0;
        bce_array targets = vector(&no, BCE_BOOL, &all, &zero_stride);
        bce_array out_short = contiguous(from_short, BCE_FLOAT64, &all), out_wide = contiguous(from_wide, BCE_FLOAT64, &all);
        bce_arguments arguments = arguments_of(contiguous(bits, (bce_dtype)d, &all), targets, NULL, NULL, BCE_NONE);
        results.loss = &out_short;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        arguments.logits = contiguous(values, BCE_FLOAT64, &all);
        results.loss = &out_wide;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bool same = true;
        for (int i = 0; i < 65536; i++)
            same &= from_short[i] == from_wide[i] || (from_short[i] != from_short[i] && from_wide[i] != from_wide[i]);
        CHECK(same);
    }
    free(bits);
    free(from_short);
    free(from_wide);
    free(values);
}

/* ---- Sums ---- */

/* Logits in [-20, 20] have losses above 2^-29, multiples of 2^-82 below 2^5: 2^20 of them fit 127 bits. */
static void test_sums(void)
{
    static const int64_t lengths[] = {1, 7, 31, 32, 33, 255, 256, 257, 1000, 4099};
    uint64_t state = 3;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        const int64_t n = lengths[l];
        double *x = allocate(8 * (size_t)n), *y = allocate(8 * (size_t)n), *losses = allocate(8 * (size_t)n);
        for (int64_t i = 0; i < n; i++) {
            x[i] = (random_unit(&state) - 0.5) * 40.0;
            y[i] = (double)(random_bits(&state) >> 63);
        }
        bce_arguments arguments =
            arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(y, BCE_FLOAT64, &n), NULL, NULL, BCE_NONE);
        bce_array out = contiguous(losses, BCE_FLOAT64, &n);
        bce_results results = no_results;
        results.loss = &out;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        int128 total = 0;
        for (int64_t i = 0; i < n; i++) {
            int exponent;
            int64_t mantissa = (int64_t)ldexp(frexp(losses[i], &exponent), 53);
            total += (int128)mantissa << (exponent - 53 + 82);
        }
        /* An integer becomes a double correctly rounded; a 1 below the quotient's 64 bits stands for its remainder. */
        double sum = ldexp((double)total, -82), got;
        int128 quotient = (total << 20) / n;
        quotient |= (total << 20) % n != 0;
        double mean = ldexp((double)quotient, -102);
        out = number(&got);
        arguments.reduction = BCE_SUM;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && got == sum);
        arguments.reduction = BCE_MEAN;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && got == mean);

        /* Any partition, merged in any order, has the same partial sum. */
        bce_partial whole = {{0}, 0, 0, 0, 0}, of_numbers = whole;
        results.loss = NULL;
        results.partial = &whole;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bce_partial_add(&of_numbers, losses, (size_t)n);
        CHECK(memcmp(&whole, &of_numbers, sizeof whole) == 0);
        for (int turn = 0; turn < 20; turn++) {
            bce_partial parts[4], merged = {{0}, 0, 0, 0, 0};
            memset(parts, 0, sizeof parts);
            for (int64_t at = 0; at < n;) {
                const int64_t length = 1 + random_below(&state, n - at);
                arguments.logits = contiguous(x + at, BCE_FLOAT64, &length);
                arguments.targets = contiguous(y + at, BCE_FLOAT64, &length);
                results.partial = &parts[random_below(&state, 4)];
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                at += length;
            }
            for (int k = 0; k < 4; k++)
                bce_partial_merge(&merged, &parts[(k + turn) % 4]);
            CHECK(memcmp(&whole, &merged, sizeof whole) == 0);
        }
        free(x);
        free(y);
        free(losses);
    }
}

static double rounded_sum(const double *numbers, size_t n)
{
    bce_partial partial = {{0}, 0, 0, 0, 0};
    double result = 7.0;
    bce_partial_add(&partial, numbers, n);
    CHECK(bce_partial_round(&partial, BCE_SUM, BCE_FLOAT64, &result) == BCE_OK);
    CHECK(partial.count == (int64_t)n);
    return result;
}

#define SUM(...) rounded_sum((const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

static void test_partial_sums(void)
{
    const double inf = HUGE_VAL, max = DBL_MAX, least = 0x1p-1074;
    CHECK(SUM(1e300, 1.0, -1e300) == 1.0);
    CHECK(SUM(1.0, 0x1p-53, 0x1p-106) == 1.0 + 0x1p-52);
    CHECK(SUM(1.0, 0x1p-53, -0x1p-106) == 1.0);
    CHECK(SUM(1.0, 0x1p-53, least) == 1.0 + 0x1p-52);
    CHECK(SUM(1.0, 0x1p-53) == 1.0);
    CHECK(SUM(1.0 + 0x1p-52, 0x1p-53) == 1.0 + 0x1p-51);
    CHECK(SUM(least, least, least, -least) == 2.0 * least);
    CHECK(SUM(0x1p1023, 0x1p1023, -0x1p1023) == 0x1p1023);
    CHECK(SUM(max, max) == inf);
    CHECK(SUM(-max, -max) == -inf);
    CHECK(SUM(max, 0x1p969) == max);
    CHECK(SUM(max, 0x1p970) == inf);
    CHECK(SUM(0x1p-1022, -least) == 0x1p-1022 - least);
    CHECK(SUM(inf, 1.0) == inf);
    CHECK(SUM(-inf, max) == -inf);
    CHECK(isnan(SUM(inf, -inf)));
    CHECK(isnan(SUM((double)NAN, 1.0)));
    CHECK(rounded_sum(NULL, 0) == 0.0);

    /* Rounding to the short types, once: by way of float64 these ties would go the other way. */
    const double above_ties[] = {1.0 + 0x1p-24, 1.0 + 0x1p-11, 1.0 + 0x1p-8};
    for (int d = BCE_FLOAT32; d <= BCE_BFLOAT16; d++) {
        double tie[2] = {above_ties[d - BCE_FLOAT32], 0x1p-80}, result;
        for (int sign = 0; sign < 2; sign++) {
            bce_partial partial = {{0}, 0, 0, 0, 0};
            bce_partial_add(&partial, tie, 2);
            CHECK(bce_partial_round(&partial, BCE_SUM, (bce_dtype)d, &result) == BCE_OK);
            double expected = sign == 0 ? 1.0 + ldexp(1.0, 1 - format_of((bce_dtype)d).precision) : 1.0;
            CHECK(element_read((bce_dtype)d, &result) == expected);
            tie[1] = -tie[1];
        }
    }

    /* The same value not in canonical form: every limb lends 2^31 - 1 times 2^32 to the one below. */
    double numbers[] = {1e300, -3.25, 1e-300, -7e17}, result, expected = SUM(1e300, -3.25, 1e-300, -7e17);
    bce_partial partial = {{0}, 0, 0, 0, 0};
    bce_partial_add(&partial, numbers, 4);
    bce_partial canonical = partial;
    const int64_t lent = INT32_MAX;
    for (int i = 0; i + 1 < BCE_PARTIAL_LIMBS; i++) {
        partial.limbs[i] += lent * ((int64_t)1 << 32);
        partial.limbs[i + 1] -= lent;
    }
    CHECK(bce_partial_round(&partial, BCE_SUM, BCE_FLOAT64, &result) == BCE_OK && result == expected);
    bce_partial merged = {{0}, 0, 0, 0, 0};
    bce_partial_merge(&merged, &partial);
    CHECK(memcmp(&merged, &canonical, sizeof merged) == 0);
    bce_partial_add(&partial, numbers, 0);
    CHECK(memcmp(&partial, &canonical, sizeof partial) == 0);
    bce_partial_merge(&merged, &merged);
    CHECK(bce_partial_round(&merged, BCE_SUM, BCE_FLOAT64, &result) == BCE_OK && result == 2.0 * expected);

    /* Nothing that a partial sum may hold is undefined. */
    const int64_t extremes[] = {INT64_MIN, INT64_MAX, -1};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            bce_partial wild, other;
            for (int k = 0; k < BCE_PARTIAL_LIMBS; k++) {
                wild.limbs[k] = extremes[i];
                other.limbs[k] = extremes[j];
            }
            wild.count = wild.nan = wild.plus_infinity = wild.minus_infinity = extremes[i];
            other.count = other.nan = other.plus_infinity = other.minus_infinity = extremes[j];
            bce_partial_add(&wild, numbers, 4);
            bce_partial_merge(&wild, &other);
            for (int k = 0; k + 1 < BCE_PARTIAL_LIMBS; k++)
                CHECK(wild.limbs[k] >= 0 && wild.limbs[k] >> 32 == 0);
            bce_status status = bce_partial_round(&wild, BCE_MEAN, BCE_FLOAT64, &result);
            CHECK(status == BCE_OK || status == BCE_ERROR_ARGUMENT);
        }

    bce_partial empty = {{0}, 0, 0, 0, 0};
    CHECK(bce_partial_round(&empty, BCE_MEAN, BCE_FLOAT64, &result) == BCE_OK && isnan(result));
    CHECK(bce_partial_round(&empty, BCE_SUM, BCE_FLOAT64, &result) == BCE_OK && result == 0.0 && !signbit(result));
    CHECK(bce_partial_round(NULL, BCE_SUM, BCE_FLOAT64, &result) == BCE_ERROR_ARGUMENT);
    CHECK(bce_partial_round(&empty, BCE_SUM, BCE_FLOAT64, NULL) == BCE_ERROR_ARGUMENT);
    CHECK(bce_partial_round(&empty, BCE_NONE, BCE_FLOAT64, &result) == BCE_ERROR_ARGUMENT);
    CHECK(bce_partial_round(&empty, (bce_reduction)9, BCE_FLOAT64, &result) == BCE_ERROR_ARGUMENT);
    CHECK(bce_partial_round(&empty, BCE_SUM, BCE_INT64, &result) == BCE_ERROR_DTYPE);
    CHECK(bce_partial_round(&empty, BCE_SUM, (bce_dtype)-1, &result) == BCE_ERROR_DTYPE);
    empty.count = -1;
    CHECK(bce_partial_round(&empty, BCE_SUM, BCE_FLOAT64, &result) == BCE_ERROR_ARGUMENT);
}

/* ---- Shapes and memory ---- */

static void c_strides(int ndim, const int64_t *shape, int64_t size, int64_t *strides)
{
    for (int d = ndim - 1; d >= 0; d--) {
        strides[d] = size;
        size *= shape[d];
    }
}

/* Weights of every broadcast shape give what they give expanded. */
static void test_broadcasting(void)
{
    enum { MOST = 7 * 300 };
    static const struct {
        int ndim;
        int64_t shape[3];
    } shapes[] = {{0, {0}}, {1, {5}}, {2, {3, 4}}, {2, {3, 1}}, {3, {2, 3, 4}}, {2, {7, 300}}, {2, {300, 7}}, {3, {6, 5, 1}}};
    uint64_t state = 4;
    static double x[MOST], y[MOST], w[MOST], full[MOST], got[2][MOST], expected[2][MOST];
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int pos = 0; pos < 2; pos++)
            for (int drop = 0; drop <= shapes[s].ndim; drop++)
                for (int keep = 0; keep < 1 << (shapes[s].ndim - drop); keep++) {
                    const int ndim = shapes[s].ndim;
                    const int64_t *shape = shapes[s].shape;
                    int64_t strides[3], w_shape[3], w_strides[3], count = 1;
                    for (int d = 0; d < ndim; d++)
                        count *= shape[d];
                    for (int d = drop; d < ndim; d++)
                        w_shape[d - drop] = keep >> (d - drop) & 1 ? shape[d] : 1;
                    c_strides(ndim, shape, 8, strides);
                    c_strides(ndim - drop, w_shape, 8, w_strides);
                    for (int64_t i = 0; i < count; i++) {
                        x[i] = random_logit(&state, BCE_FLOAT64);
                        y[i] = random_unit(&state);
                        w[i] = random_unit(&state) * 4.0;
                    }
                    for (int64_t i = 0; i < count; i++) {
                        int64_t rest = i, offset = 0;
                        for (int d = ndim - 1; d >= 0; d--) {
                            int64_t index = rest % shape[d];
                            rest /= shape[d];
                            if (d >= drop && w_shape[d - drop] > 1)
                                offset += index * w_strides[d - drop];
                        }
                        full[i] = w[offset / 8];
                    }
                    bce_array x_array = {x, BCE_FLOAT64, ndim, shape, strides};
                    bce_array y_array = {y, BCE_FLOAT64, ndim, shape, strides};
                    bce_array w_array = {w, BCE_FLOAT64, ndim - drop, w_shape, w_strides};
                    bce_array full_array = {full, BCE_FLOAT64, ndim, shape, strides};
                    bce_array out[4] = {{got[0], BCE_FLOAT64, ndim, shape, strides},
                                        {got[1], BCE_FLOAT64, ndim, shape, strides},
                                        {expected[0], BCE_FLOAT64, ndim, shape, strides},
                                        {expected[1], BCE_FLOAT64, ndim, shape, strides}};
                    for (int expand = 0; expand < 2; expand++) {
                        const bce_array *weight = expand ? &full_array : &w_array;
                        bce_arguments arguments =
                            arguments_of(x_array, y_array, pos ? NULL : weight, pos ? weight : NULL, BCE_NONE);
                        bce_results results = no_results;
                        results.loss = &out[2 * expand];
                        results.gradient = &out[2 * expand + 1];
                        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                    }
                    for (int k = 0; k < 2; k++)
                        CHECK(memcmp(got[k], expected[k], (size_t)count * 8) == 0);
                }
}

/* Where an array lies does not matter: negative, spread, transposed and odd strides, data and results alike. */
static void test_layouts(void)
{
    enum { A = 6, B = 10, C = 7, N = A * B * C };
    const int64_t shape[3] = {A, B, C};
    const struct {
        int64_t strides[3], first;
    } layouts[] = {
        {{8 * B * C, 8 * C, 8}, 0},
        {{8, 8 * A, 8 * A * B}, 0},
        {{-8 * B * C, -8 * C, -8}, 8 * (N - 1)},
        {{8 * B * C, -8 * C, 8}, 8 * C * (B - 1)},
        {{24 * B * C + 1, 24 * C, 17}, 3},
        {{-13 * N, 13, -13 * B}, 13 * N * (A - 1) + 13 * B * (C - 1) + 1},
        {{8 * C, 8 * A * C, 8}, 0},
    };
    enum { LAYOUTS = sizeof layouts / sizeof *layouts, ROOM = 13 * N * A + 24 * N };
    uint64_t state = 5;
    static unsigned char memory[2][ROOM], out_memory[ROOM];
    double values[2][N], sums[LAYOUTS * LAYOUTS];
    static double expected[N];
    for (int i = 0; i < N; i++) {
        values[0][i] = random_logit(&state, BCE_FLOAT64);
        values[1][i] = random_unit(&state);
    }
    for (int l = 0; l < LAYOUTS * LAYOUTS; l++) {
        const int in = l / LAYOUTS, out = l % LAYOUTS;
        memset(out_memory, 0xa5, sizeof out_memory);
        bce_array arrays[2];
        for (int k = 0; k < 2; k++) {
            const int at = (in + k) % LAYOUTS;
            for (int i = 0; i < N; i++)
                memcpy(memory[k] + layouts[at].first + i / (B * C) * layouts[at].strides[0] +
                           i / C % B * layouts[at].strides[1] + i % C * layouts[at].strides[2],
                       &values[k][i], 8);
            bce_array array = {memory[k] + layouts[at].first, BCE_FLOAT64, 3, shape, layouts[at].strides};
            arrays[k] = array;
        }
        bce_array result = {out_memory + layouts[out].first, BCE_FLOAT64, 3, shape, layouts[out].strides};
        bce_array sum = number(&sums[l]);
        bce_arguments arguments = arguments_of(arrays[0], arrays[1], NULL, NULL, BCE_NONE);
        bce_results results = no_results;
        results.loss = &result;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bool same = true;
        size_t untouched = 0;
        for (int i = 0; i < N; i++) {
            double got;
            unsigned char *element = out_memory + layouts[out].first + i / (B * C) * layouts[out].strides[0] +
                                     i / C % B * layouts[out].strides[1] + i % C * layouts[out].strides[2];
            memcpy(&got, element, 8);
            if (l == 0)
                expected[i] = got;
            same &= bits_of(got) == bits_of(expected[i]);
            memset(element, 0xa5, 8);
        }
        for (size_t i = 0; i < sizeof out_memory; i++)
            untouched += out_memory[i] == 0xa5;
        CHECK(same);
        CHECK(untouched == sizeof out_memory);
        results.loss = &sum;
        arguments.reduction = BCE_SUM;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && sums[l] == sums[0]);
    }
}

/* Results may be written over the operands that they are computed from. */
static void test_in_place(void)
{
    uint64_t state = 6;
    problem problem;
    problem_init(&problem, 1003);
    for (int d = 0; d < FLOATING_DTYPES; d++) {
        problem_fill(&problem, (bce_dtype)d, false, &state);
        bce_arguments arguments =
            arguments_of(problem.arrays[0], problem.arrays[1], &problem.arrays[2], &problem.arrays[3], BCE_NONE);
        bce_results results = all_results(&problem);
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        results = no_results;
        results.gradient = &problem.arrays[0];
        results.loss = &problem.arrays[1];
        results.d_weight = &problem.arrays[2];
        results.curvature = &problem.arrays[3];
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        const int of[4] = {GRADIENT, LOSS, D_WEIGHT, CURVATURE};
        for (int k = 0; k < 4; k++)
            CHECK(memcmp(problem.operands[k], problem.results[of[k]], (size_t)problem.n * element_size((bce_dtype)d)) == 0);
    }
    problem_free(&problem);
}

static void test_empty(void)
{
    static const int64_t shapes[][4] = {
        {0, 1, 1, 1}, {3, 0, 2, 1}, {INT64_MAX, INT64_MAX, 0, 4}, {0, INT64_MAX, INT64_MAX, INT64_MAX}};
    static const int64_t strides[] = {INT64_MIN, INT64_MAX, INT64_MAX, -1};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        double loss = 7.0;
        bce_array empty = {NULL, BCE_FLOAT32, 4, shapes[s], strides}, result = number(&loss);
        bce_partial partial = {{0}, 0, 0, 0, 0}, zero = partial;
        bce_arguments arguments = arguments_of(empty, empty, &empty, &empty, BCE_MEAN);
        bce_results results = {&result, &empty, &empty, &empty, &empty, &empty, &partial};
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && isnan(loss));
        arguments.reduction = BCE_SUM;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && loss == 0.0);
        arguments.reduction = BCE_NONE;
        results.loss = &empty;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        CHECK(memcmp(&partial, &zero, sizeof partial) == 0);
    }
}

/* Targets smoothed beforehand give the same; dimensions of 1 and as many dimensions as there may be do no harm. */
static void test_smoothing_and_dimensions(void)
{
    enum { N = 64 };
    const int64_t n = N;
    int64_t shape[BCE_MAX_DIMENSIONS], strides[BCE_MAX_DIMENSIONS];
    double x[N], y[N], smoothed[N], got[N], expected[N];
    uint64_t state = 7;
    const double e = 0.25;
    for (int i = 0; i < N; i++) {
        x[i] = random_logit(&state, BCE_FLOAT64);
        y[i] = i % 2;
        smoothed[i] = y[i] * (1.0 - e) + e / 2.0;
    }
    for (int d = 0; d < BCE_MAX_DIMENSIONS; d++) {
        shape[d] = d % 11 == 3 ? 2 : 1;
        strides[d] = INT64_MAX;
    }
    int64_t stride = 8;
    for (int d = BCE_MAX_DIMENSIONS - 1; d >= 0; d--)
        if (shape[d] == 2) {
            strides[d] = stride;
            stride *= 2;
        }
    bce_arguments arguments =
        arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(smoothed, BCE_FLOAT64, &n), NULL, NULL, BCE_NONE);
    bce_array out = contiguous(expected, BCE_FLOAT64, &n);
    bce_results results = no_results;
    results.loss = &out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(stride == 8 * N);
    bce_array deep_x = {x, BCE_FLOAT64, BCE_MAX_DIMENSIONS, shape, strides}, deep_y = deep_x, deep_out = deep_x;
    deep_y.data = y;
    deep_out.data = got;
    arguments = arguments_of(deep_x, deep_y, NULL, NULL, BCE_NONE);
    arguments.label_smoothing = e;
    results.loss = &deep_out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(memcmp(got, expected, sizeof got) == 0);
}

/* ---- Refusals ---- */

typedef struct {
    bce_arguments arguments;
    bce_results results;
    bce_array w, p, loss, gradient;
} call;

/* Refused with the status and a message that begins with the text, and nothing written. */
static void check_refused(const call *c, bce_status status, const char *text, int line)
{
    char message[BCE_MESSAGE_SIZE];
    memset(message, 'x', sizeof message);
    double before[4], after[4];
    memcpy(before, c->loss.data, sizeof before);
    check(bce_evaluate(&c->arguments, &c->results, message) == status, "the status", line);
    check(memchr(message, '\0', sizeof message) != NULL && strncmp(message, text, strlen(text)) == 0, message, line);
    check(bce_evaluate(&c->arguments, &c->results, NULL) == status, "the status without a message", line);
    memcpy(after, c->loss.data, sizeof after);
    check(memcmp(before, after, sizeof before) == 0, "nothing is written", line);
}

#define REFUSED(change, status, text)                     \
    do {                                                  \
        call c = good;                                    \
        c.results.loss = &c.loss;                         \
        c.results.gradient = &c.gradient;                 \
        c.arguments.weight = &c.w;                        \
        c.arguments.pos_weight = &c.p;                    \
        change;                                           \
        check_refused(&c, status, text, __LINE__);        \
    } while (0)

static void test_refusals(void)
{
    double x[4] = {1.0, 2.0, 3.0, 4.0}, y[4] = {0.0}, w[4] = {1.0}, out[4] = {7.0, 7.0, 7.0, 7.0}, gradient[4];
    const int64_t shape[2] = {2, 2}, strides[2] = {16, 8}, other[2] = {2, 1}, four[1] = {4}, zero[1] = {0};
    const int64_t negative[2] = {-1, -1}, huge[2] = {(int64_t)1 << 40, (int64_t)1 << 40}, cube[3] = {2, 2, 2};
    const int64_t cube_strides[3] = {0, 16, 8}, most[2] = {INT64_MAX, 1}, wraps[2] = {(int64_t)1 << 33, (int64_t)1 << 31};
    int64_t long_shape[65];
    for (int d = 0; d < 65; d++)
        long_shape[d] = 1;
    bce_array a = {x, BCE_FLOAT64, 2, shape, strides};
    call good = {arguments_of(a, a, NULL, NULL, BCE_NONE), no_results, a, a, a, a};
    good.arguments.targets.data = y;
    good.w.data = w;
    good.p.data = w;
    good.loss.data = out;
    good.gradient.data = gradient;
    char message[BCE_MESSAGE_SIZE];
    CHECK(bce_evaluate(NULL, &good.results, message) == BCE_ERROR_ARGUMENT && strncmp(message, "arguments", 9) == 0);
    CHECK(bce_evaluate(&good.arguments, NULL, message) == BCE_ERROR_ARGUMENT && strncmp(message, "results", 7) == 0);
    CHECK(bce_evaluate(NULL, NULL, NULL) == BCE_ERROR_ARGUMENT);

    REFUSED(c.arguments.logits.data = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.shape = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.strides = NULL, BCE_ERROR_ARGUMENT, "logits");
    REFUSED(c.arguments.logits.dtype = (bce_dtype)77, BCE_ERROR_DTYPE, "logits");
    REFUSED(c.arguments.logits.dtype = (bce_dtype)-1, BCE_ERROR_DTYPE, "logits");
    REFUSED(c.arguments.logits.dtype = BCE_INT32, BCE_ERROR_DTYPE, "logits has dtype int32");
    REFUSED(c.arguments.logits.ndim = -1, BCE_ERROR_SHAPE, "logits has -1 dimensions");
    REFUSED((c.arguments.logits.ndim = 65, c.arguments.logits.shape = long_shape), BCE_ERROR_SHAPE, "logits has 65 dimensions");
    REFUSED(c.arguments.logits.shape = negative, BCE_ERROR_SHAPE, "logits");
    REFUSED(c.arguments.logits.shape = huge, BCE_ERROR_SHAPE, "logits has more elements");
    REFUSED(c.arguments.logits.shape = most, BCE_ERROR_SHAPE, "logits has more elements");
    REFUSED(c.arguments.logits.shape = wraps, BCE_ERROR_SHAPE, "logits has more elements");
    REFUSED(c.arguments.targets.data = NULL, BCE_ERROR_ARGUMENT, "targets");
    REFUSED(c.arguments.targets.dtype = (bce_dtype)10, BCE_ERROR_DTYPE, "targets");
    REFUSED(c.arguments.targets.shape = other, BCE_ERROR_SHAPE, "targets of shape (2, 1) must have the logits' shape (2, 2)");
    REFUSED((c.arguments.targets.ndim = 1, c.arguments.targets.shape = four), BCE_ERROR_SHAPE, "targets of shape (4,)");
    REFUSED((c.w.ndim = 1, c.w.shape = four), BCE_ERROR_SHAPE, "weight of shape (4,) does not broadcast");
    REFUSED((c.w.ndim = 1, c.w.shape = zero), BCE_ERROR_SHAPE, "weight of shape (0,) does not broadcast");
    REFUSED((c.p.ndim = 3, c.p.shape = cube, c.p.strides = cube_strides), BCE_ERROR_SHAPE,
            "pos_weight of shape (2, 2, 2) would enlarge");
    REFUSED(c.p.data = NULL, BCE_ERROR_ARGUMENT, "pos_weight");
    REFUSED(c.p.ndim = INT32_MIN, BCE_ERROR_SHAPE, "pos_weight");
    REFUSED(c.arguments.reduction = (bce_reduction)3, BCE_ERROR_ARGUMENT, "reduction is 3");
    REFUSED(c.arguments.reduction = (bce_reduction)-1, BCE_ERROR_ARGUMENT, "reduction is -1");
    REFUSED(c.arguments.label_smoothing = -0.001, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.arguments.label_smoothing = 1.001, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.arguments.label_smoothing = (double)NAN, BCE_ERROR_ARGUMENT, "label_smoothing");
    REFUSED(c.loss.dtype = BCE_INT64, BCE_ERROR_DTYPE, "loss has dtype int64");
    REFUSED(c.loss.shape = other, BCE_ERROR_SHAPE, "loss of shape");
    REFUSED(c.arguments.reduction = BCE_MEAN, BCE_ERROR_SHAPE, "loss of shape (2, 2) must be 0-d");
    REFUSED(c.gradient.data = NULL, BCE_ERROR_ARGUMENT, "gradient");
    REFUSED(c.gradient.ndim = 1, BCE_ERROR_SHAPE, "gradient of shape (2,)");

    /* A message of a shape that is too long to print. */
    int64_t wide[BCE_MAX_DIMENSIONS];
    for (int d = 0; d < BCE_MAX_DIMENSIONS; d++)
        wide[d] = d == 0 ? 0 : INT64_MAX;
    REFUSED((c.arguments.targets.ndim = 64, c.arguments.targets.shape = wide, c.arguments.targets.strides = wide),
            BCE_ERROR_SHAPE, "targets of shape (0, 9223372036854775807, ");
}

/* ---- Instruction sets and threads ---- */

static void restore_defaults(void)
{
    bce_set_isa(NULL, NULL);
    bce_set_num_threads(0);
}

static void test_instruction_sets(void)
{
    char message[BCE_MESSAGE_SIZE];
    const char *name = NULL;
    int supported = 0;
    CHECK(bce_isa_name(-1) == NULL && bce_isa_name(1000) == NULL);
    CHECK(!bce_isa_supported(-1) && !bce_isa_supported(1000));
    CHECK(bce_set_isa("sse9", message) == BCE_ERROR_ISA && strstr(message, "scalar") != NULL);
    CHECK(bce_set_isa("", NULL) == BCE_ERROR_ISA);
    CHECK(bce_get_isa(NULL, message) == BCE_ERROR_ARGUMENT);
    uint64_t state = 8;
    for (int64_t n = 0; n <= 4100; n += n < 70 ? 1 : n < 600 ? 37 : 500) {
        problem expected, got;
        problem_init(&expected, n);
        problem_init(&got, n);
        for (int d = 0; d < 2; d++) {
            bool first = true;
            problem_fill(&expected, (bce_dtype)d, n % 2 == 0, &state);
            for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
                bce_status status = bce_set_isa(bce_isa_name(isa), NULL);
                CHECK(status == (bce_isa_supported(isa) ? BCE_OK : BCE_ERROR_ISA));
                if (status != BCE_OK)
                    continue;
                supported++;
                CHECK(bce_get_isa(&name, NULL) == BCE_OK && strcmp(name, bce_isa_name(isa)) == 0);
                problem *p = first ? &expected : &got;
                for (int k = 0; k < RESULTS; k++)
                    p->wanted[k] = contiguous(p->results[k], (bce_dtype)d, &p->n);
                bce_arguments arguments =
                    arguments_of(expected.arrays[0], expected.arrays[1], &expected.arrays[2], &expected.arrays[3], BCE_NONE);
                bce_results results = all_results(p);
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
                for (int k = 0; k < RESULTS && !first; k++)
                    CHECK(memcmp(got.results[k], expected.results[k], (size_t)n * element_size((bce_dtype)d)) == 0);
                first = false;
            }
        }
        problem_free(&expected);
        problem_free(&got);
    }
    CHECK(supported > 0);
    restore_defaults();
}

/* Hard labels, with and without the quick formulae (a partial sum rules them out): the same bits, on each instruction set. */
static void test_quick(void)
{
    enum { N = 2 * 256 + 77 };
    static double x[N], y[N], p[1] = {2.5};
    static unsigned char out[4][N][8];
    const int64_t n = N;
    uint64_t state = 21;
    for (int turn = 0; turn < 200; turn++) {
        for (int i = 0; i < N; i++) {
            x[i] = (random_unit(&state) - 0.5) * (turn % 4 == 0 ? 200.0 : turn % 4 == 1 ? 1e-3 : 20.0);
            y[i] = random_unit(&state) < 0.5 ? 0.0 : 1.0;
        }
        if (turn % 5 == 0)
            x[random_bits(&state) % N] = turn % 2 ? NAN : -HUGE_VAL;
        bce_dtype dtype = (bce_dtype)(BCE_FLOAT32 + turn % 3);
        bce_array weight = number(p);
        bce_arguments arguments = arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(y, BCE_FLOAT64, &n), NULL,
                                               turn % 2 ? &weight : NULL, (bce_reduction)(turn / 6 % 3));
        for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
            if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
                continue;
            for (int way = 0; way < 2; way++) {
                bool scalar = arguments.reduction != BCE_NONE;
                bce_array loss = contiguous(out[2 * way], dtype, &n), gradient = contiguous(out[2 * way + 1], dtype, &n);
                bce_partial partial;
                memset(&partial, 0, sizeof partial);
                loss.ndim = scalar ? 0 : 1;
                bce_results results = no_results;
                results.loss = &loss;
                results.gradient = &gradient;
                results.partial = way == 0 ? &partial : NULL;
                CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
            }
            bool same = true;
            for (int k = 0; k < 2; k++)
                for (int i = 0; i < (k == 0 && arguments.reduction != BCE_NONE ? 1 : N); i++) {
                    const size_t size = element_size(dtype);
                    const unsigned char *a = &out[k][0][0] + (size_t)i * size, *b = &out[k + 2][0][0] + (size_t)i * size;
                    double number_a = element_read(dtype, a);
                    same &= memcmp(a, b, size) == 0 || number_a != number_a;
                }
            CHECK(same);
        }
    }
    restore_defaults();
}

/* float32 logits and 0/1 targets, with the gradient and the partial sum of one call to compare others with. */
typedef struct {
    int64_t n;
    float *x, *gradient;
    unsigned char *y;
    bce_partial partial;
} large;

static bce_status evaluate_large(const large *l, float *gradient, bce_partial *partial)
{
    bce_array out = contiguous(gradient, BCE_FLOAT32, &l->n);
    bce_arguments arguments =
        arguments_of(contiguous(l->x, BCE_FLOAT32, &l->n), contiguous(l->y, BCE_UINT8, &l->n), NULL, NULL, BCE_MEAN);
    bce_results results = no_results;
    memset(partial, 0, sizeof *partial);
    results.gradient = &out;
    results.partial = partial;
    return bce_evaluate(&arguments, &results, NULL);
}

static bool as_before(const large *l, const float *gradient, const bce_partial *partial)
{
    return memcmp(gradient, l->gradient, (size_t)l->n * sizeof(float)) == 0 &&
           memcmp(partial, &l->partial, sizeof *partial) == 0;
}

static void large_init(large *l, int64_t n, uint64_t seed)
{
    l->n = n;
    l->x = allocate((size_t)n * sizeof *l->x);
    l->y = allocate((size_t)n);
    l->gradient = allocate((size_t)n * sizeof *l->gradient);
    for (int64_t i = 0; i < n; i++) {
        l->x[i] = (float)((random_unit(&seed) - 0.5) * 40.0);
        l->y[i] = (unsigned char)(random_bits(&seed) >> 63);
    }
    bce_set_num_threads(1);
    CHECK(evaluate_large(l, l->gradient, &l->partial) == BCE_OK);
    restore_defaults();
}

static void large_free(large *l)
{
    free(l->x);
    free(l->y);
    free(l->gradient);
}

static void test_threads(void)
{
    large l;
    bce_partial partial;
    large_init(&l, ((int64_t)1 << 20) + 77, 9);
    float *gradient = allocate((size_t)l.n * sizeof *gradient);
    l.n = ((int64_t)1 << 19) + 77;
    bce_set_num_threads(1);
    CHECK(evaluate_large(&l, l.gradient, &l.partial) == BCE_OK);
    for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
        if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
            continue;
        for (int threads = 1; threads <= 7; threads++) {
            bce_set_num_threads(threads);
            CHECK(bce_get_num_threads() == threads);
            memset(gradient, 0, (size_t)l.n * sizeof *gradient);
            CHECK(evaluate_large(&l, gradient, &partial) == BCE_OK);
            CHECK(as_before(&l, gradient, &partial));
        }
    }
    restore_defaults();
    /* More threads at work than 2^19 elements are worth. */
    l.n = ((int64_t)1 << 20) + 77;
    bce_set_num_threads(1);
    CHECK(evaluate_large(&l, l.gradient, &l.partial) == BCE_OK);
    for (int threads = 5; threads <= 8; threads++) {
        bce_set_num_threads(threads);
        CHECK(evaluate_large(&l, gradient, &partial) == BCE_OK && as_before(&l, gradient, &partial));
    }
    bce_set_num_threads(INT32_MAX);
    CHECK(bce_get_num_threads() == BCE_MAX_THREADS);
    bce_set_num_threads(INT32_MIN);
    CHECK(bce_get_num_threads() >= 1 && bce_get_num_threads() <= BCE_MAX_THREADS);
    free(gradient);
    large_free(&l);
    restore_defaults();
}

enum { CALLERS = 4, ROUNDS = 12 };

static int third_time(void *times)
{
    return ++*(int *)times == 3;
}

/* Parts of a mean have the gradient and the sum of the whole. A call that is interrupted ends, and the next one is right. */
static void test_parts_and_interruption(void)
{
    large l;
    char message[BCE_MESSAGE_SIZE];
    bce_partial partial, part;
    large_init(&l, ((int64_t)1 << 21) + 77, 14);
    float *gradient = allocate((size_t)l.n * sizeof *gradient), third, sum;
    bce_array shown = {&third, BCE_FLOAT32, 0, NULL, NULL};
    memset(&partial, 0, sizeof partial);
    const int64_t ends[] = {0, 1000, 1000, 700001, l.n};
    for (int k = 0; k < 4; k++) {
        int64_t n = ends[k + 1] - ends[k];
        bce_array out = contiguous(gradient + ends[k], BCE_FLOAT32, &n);
        bce_arguments arguments = arguments_of(contiguous(l.x + ends[k], BCE_FLOAT32, &n),
                                               contiguous(l.y + ends[k], BCE_UINT8, &n), NULL, NULL, BCE_MEAN);
        bce_results results = no_results;
        arguments.count = l.n;
        memset(&part, 0, sizeof part);
        results.gradient = &out;
        results.partial = &part;
        results.loss = &shown;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        bce_partial_merge(&partial, &part);
        part.count = l.n;
        CHECK(bce_partial_round(&part, BCE_MEAN, BCE_FLOAT32, &sum) == BCE_OK && memcmp(&sum, &third, sizeof sum) == 0);
        /* By the quick formulae, too. */
        results.partial = NULL;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK && memcmp(&sum, &third, sizeof sum) == 0);
    }
    CHECK(as_before(&l, gradient, &partial));

    bce_array out = contiguous(gradient, BCE_FLOAT32, &l.n);
    bce_arguments arguments =
        arguments_of(contiguous(l.x, BCE_FLOAT32, &l.n), contiguous(l.y, BCE_UINT8, &l.n), NULL, NULL, BCE_MEAN);
    bce_results results = no_results;
    results.gradient = &out;
    arguments.count = -1;
    CHECK(bce_evaluate(&arguments, &results, message) == BCE_ERROR_ARGUMENT && strstr(message, "count is -1") != NULL);
    arguments.count = 0;
    for (int turn = 0; turn < 3; turn++) {
        const int threads[] = {1, 2, 8};
        int times = 0;
        bce_set_num_threads(threads[turn]);
        arguments.interrupted = third_time;
        arguments.interrupted_argument = &times;
        CHECK(bce_evaluate(&arguments, &results, message) == (turn == 2 ? BCE_OK : BCE_INTERRUPTED));
        CHECK(times == (turn == 2 ? 2 : 3));  /* one of eight shares is not long enough for a third look */
        arguments.interrupted = NULL;
        CHECK(bce_evaluate(&arguments, &results, message) == BCE_OK && memcmp(gradient, l.gradient, (size_t)l.n * 4) == 0);
    }
    free(gradient);
    large_free(&l);
    restore_defaults();
}

static large shared_small, shared_large;
static atomic_int callers_left, callers_wrong;

static void *call_repeatedly(void *unused)
{
    float *gradient = allocate((size_t)shared_large.n * sizeof *gradient);
    bce_partial partial;
    const char *name;
    for (int i = 0; i < ROUNDS; i++) {
        const large *l = i % 4 == 0 ? &shared_large : &shared_small;
        bool good = evaluate_large(l, gradient, &partial) == BCE_OK && as_before(l, gradient, &partial);
        good &= bce_get_isa(&name, NULL) == BCE_OK && bce_get_num_threads() >= 1;
        atomic_fetch_add(&callers_wrong, !good);
    }
    free(gradient);
    atomic_fetch_sub(&callers_left, 1);
    return unused;
}

/* Calls from many threads, while another changes the instruction set and the number of threads. */
static void test_concurrent_calls(void)
{
    pthread_t callers[CALLERS];
    large_init(&shared_small, 3001, 10);
    large_init(&shared_large, ((int64_t)1 << 18) + 5, 11);
    atomic_store(&callers_wrong, 0);
    atomic_store(&callers_left, CALLERS);
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, call_repeatedly, NULL) != 0) {
            fputs("test_core: no thread to be had\n", stderr);
            exit(2);
        }
    for (int i = 0; atomic_load(&callers_left) > 0; i++) {
        const char *name = bce_isa_name(i % 5);
        if (name == NULL || bce_isa_supported(i % 5))
            bce_set_isa(name, NULL);
        bce_set_num_threads(i % 5);
        struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    CHECK(atomic_load(&callers_wrong) == 0);
    large_free(&shared_small);
    large_free(&shared_large);
    restore_defaults();
}

/* The exit status of a child that runs the function; -1 if it came to another end. */
static int in_child(int (*function)(void *), void *argument)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(function(argument));
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int with_unknown_isa(void *unused)
{
    (void)unused;
    const char *name = NULL;
    char message[BCE_MESSAGE_SIZE];
    double x = 1.0;
    bce_arguments arguments = arguments_of(number(&x), number(&x), NULL, NULL, BCE_NONE);
    setenv("BCE_BRIDGE_ISA", "abacus", 1);
    bool good = bce_get_isa(&name, message) == BCE_ERROR_ISA && strstr(message, "BCE_BRIDGE_ISA is 'abacus'") != NULL;
    good &= name == NULL && bce_evaluate(&arguments, &no_results, message) == BCE_ERROR_ISA;
    /* An explicit choice goes before the environment's. */
    good &= bce_set_isa("scalar", NULL) == BCE_OK && bce_evaluate(&arguments, &no_results, NULL) == BCE_OK;
    return !good;
}

static int with_scalar_isa(void *unused)
{
    (void)unused;
    const char *name = NULL;
    setenv("BCE_BRIDGE_ISA", "scalar", 1);
    setenv("BCE_BRIDGE_NUM_THREADS", "3", 1);
    return !(bce_get_isa(&name, NULL) == BCE_OK && strcmp(name, "scalar") == 0 && bce_get_num_threads() == 3);
}

/* Before any other test: the environment is looked at once. */
static void test_environment(void)
{
    CHECK(in_child(with_unknown_isa, NULL) == 0);
    CHECK(in_child(with_scalar_isa, NULL) == 0);
}

static int threaded_call(void *argument)
{
    const large *l = argument;
    float *gradient = allocate((size_t)l->n * sizeof *gradient);
    bce_partial partial;
    bool good = evaluate_large(l, gradient, &partial) == BCE_OK && as_before(l, gradient, &partial);
    free(gradient);
    return !good;
}

static void test_fork(void)
{
    large l;
    large_init(&l, (int64_t)1 << 18, 12);
    bce_set_num_threads(2);
    CHECK(threaded_call(&l) == 0);
    CHECK(in_child(threaded_call, &l) == 0);
    CHECK(threaded_call(&l) == 0);
    large_free(&l);
    restore_defaults();
}

#ifdef TEST_WRAPPED

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static atomic_bool no_memory;
static atomic_int threads_to_be_had = INT32_MAX;

void *__wrap_malloc(size_t size)
{
    return atomic_load(&no_memory) ? NULL : __real_malloc(size);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    return atomic_fetch_sub(&threads_to_be_had, 1) > 0 ? __real_pthread_create(thread, attributes, run, argument) : 11;
}

/* Without memory, and with no or too few threads, the result is the same. */
static void test_shortage(void)
{
    large l;
    bce_partial partial;
    large_init(&l, ((int64_t)1 << 19) + 1, 13);
    float *gradient = allocate((size_t)l.n * sizeof *gradient);
    bce_set_num_threads(4);
    for (int turn = 0; turn < 4; turn++) {
        memset(gradient, 0, (size_t)l.n * sizeof *gradient);
        atomic_store(&no_memory, turn == 3);
        atomic_store(&threads_to_be_had, turn);
        bce_status status = evaluate_large(&l, gradient, &partial);
        atomic_store(&no_memory, false);
        atomic_store(&threads_to_be_had, INT32_MAX);
        CHECK(status == BCE_OK && as_before(&l, gradient, &partial));
    }
    free(gradient);
    large_free(&l);
    restore_defaults();
}

#endif

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } groups[] = {
        {"environment", test_environment},
        {"values", test_values},
        {"limits", test_limits},
        {"dtypes", test_dtypes},
        {"sums", test_sums},
        {"partial sums", test_partial_sums},
        {"broadcasting", test_broadcasting},
        {"layouts", test_layouts},
        {"in place", test_in_place},
        {"empty", test_empty},
        {"smoothing, dimensions", test_smoothing_and_dimensions},
        {"refusals", test_refusals},
        {"instruction sets", test_instruction_sets},
        {"quick formulae", test_quick},
        {"threads", test_threads},
        {"parts, interruption", test_parts_and_interruption},
        {"concurrent calls", test_concurrent_calls},
        {"fork", test_fork},
#ifdef TEST_WRAPPED
        {"shortage", test_shortage},
#endif
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        long before = passed;
        group_failed = 0;
        groups[g].run();
        printf("%-22s %8ld passed, %ld failed\n", groups[g].name, passed - before, group_failed);
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed > 0;
}
