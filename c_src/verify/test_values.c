/* Tests of the values: elements, limits, types, sums. */

#include <float.h>

#include "test_core.h"
#include "../bce_fma.h"
#include "../bce_contract.h"
#include "../bce_simd.h"
#include "../bce_math.h"

__extension__ typedef __int128 int128;

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

/* The formulae of bce.h for targets smoothed by e, the derivatives over the divisor, and for each result the sum of its terms'
   magnitudes where they may cancel. */
static void exact_results(double x, double y, double w, double p, double e, double divisor, long double exact[RESULTS],
                          long double terms[RESULTS])
{
    long double keep = 1.0L - e, smoothed = y * keep + e / 2.0L, complement = (1.0L - y) * keep + e / 2.0L;
    long double a = fabsl((long double)x), t = expl(-a), l = log1pl(t);
    long double plus = 1.0L / (1.0L + t), minus = t / (1.0L + t);
    long double softplus = x > 0.0 ? a + l : l, softplus_minus = x > 0.0 ? l : a + l;
    long double sigma = x > 0.0 ? plus : minus, sigma_minus = x > 0.0 ? minus : plus;
    exact[LOSS] = w * (complement * softplus + p * smoothed * softplus_minus);
    exact[GRADIENT] = w * (complement * sigma - p * smoothed * sigma_minus);
    exact[CURVATURE] = w * (complement + p * smoothed) * sigma * sigma_minus;
    exact[D_TARGETS] = w * keep * ((p - 1.0L) * l + (x > 0.0 ? -1.0L : p) * a);
    exact[D_WEIGHT] = complement * softplus + p * smoothed * softplus_minus;
    exact[D_POS_WEIGHT] = w * smoothed * softplus_minus;
    for (int k = 0; k < RESULTS; k++)
        terms[k] = 0.0L;
    if (smoothed != 0.0L && complement != 0.0L)
        terms[GRADIENT] = w * (complement * sigma + p * smoothed * sigma_minus);
    /* w (p - 1) L and the linear term, of opposite signs for p > 1. */
    terms[D_TARGETS] = w * keep * (fabsl(p - 1.0L) * l + (x > 0.0 ? 1.0L : p) * a);
    for (int k = GRADIENT; k < RESULTS; k++) {
        exact[k] /= divisor;
        terms[k] /= divisor;
    }
}

void test_values(void)
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
                exact_results(in[0], in[1], in[2], in[3], 0.0, 1.0, exact, terms);
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
                    check(error <= bound + allowance, "a result is within its bound", __FILE__, __LINE__);
                }
            }
            printf("  %-8s %s labels: loss %.3f, gradient %.3f, curvature %.3f ULP beyond cancellation\n", names[d],
                   hard ? "hard" : "soft", worst[LOSS], worst[GRADIENT], worst[CURVATURE]);
        }
    problem_free(&problem);
}

/* Catches a formula in the vector code that is not the reader's: each is within some roundings of the reference's terms. */
void test_reference(void)
{
    uint64_t state = 2;
    problem problem;
    problem_init(&problem, 3000);
    problem_fill(&problem, BCE_FLOAT64, false, &state);
    bce_arguments arguments =
        arguments_of(problem.arrays[0], problem.arrays[1], &problem.arrays[2], &problem.arrays[3], BCE_NONE);
    bce_results results = all_results(&problem);
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    for (int64_t i = 0; i < problem.n; i++) {
        double in[4], values[3];
        long double exact[RESULTS], terms[RESULTS];
        for (int k = 0; k < 4; k++)
            in[k] = element_read(BCE_FLOAT64, problem.operands[k] + 8 * i);
        bce_reference(in[0], in[1], in[2], in[3], &values[LOSS], &values[GRADIENT], &values[CURVATURE]);
        exact_results(in[0], in[1], in[2], in[3], 0.0, 1.0, exact, terms);
        for (int k = LOSS; k <= CURVATURE; k++) {
            long double size = terms[k] > 0.0L ? terms[k] : fabsl(exact[k]);
            double got = element_read(BCE_FLOAT64, problem.results[k] + 8 * i);
            CHECK(fabsl((long double)got - values[k]) <= 0x1p-49L * size + 0x1p-1070L);
        }
    }
    problem_free(&problem);
}

/* Smoothed targets, parts of a mean, and logits so large that e^-|x| is subnormal, one by one and together; there with hard
   labels too, at which that is all that remains of some results. The smoothed coefficients are within 3 roundings of
   themselves, and a mean's division is one more. */
void test_options(void)
{
    static const double smoothings[] = {0.0, 0x1p-20, 0.3, 1.0}, divisors[] = {1.0, 7.0, 1024.0};
    uint64_t state = 22;
    problem problem;
    problem_init(&problem, 300);
    for (int d = 0; d < FLOATING_DTYPES * 2 * 4 * 3; d++) {
        bce_dtype dtype = (bce_dtype)(d % FLOATING_DTYPES);
        bool tails = d / FLOATING_DTYPES % 2;
        double e = smoothings[d / FLOATING_DTYPES / 2 % 4], divisor = divisors[d / FLOATING_DTYPES / 2 / 4];
        problem_fill(&problem, tails ? BCE_FLOAT64 : dtype, false, &state);
        for (int64_t i = 0; tails && i < problem.n; i++) {
            /* Weights that bring e^-|x| / 1024 back among the normal numbers of the dtype. */
            double *x = (double *)problem.operands[0] + i, *w = (double *)problem.operands[2] + i;
            *x = copysign(698.0 + random_unit(&state) * (dtype == BCE_FLOAT64 ? 60.0 : 44.0), *x);
            *w = dtype == BCE_FLOAT64 ? 0x1p950 : 0x1p980;
            if (i % 2) {
                *w = i % 8 == 1 ? 1.0 : *w;
                double *y = (double *)problem.operands[1] + i, *p = (double *)problem.operands[3] + i;
                *y = floor(*y * 2.0);
                *p = *w == 1.0 && i % 16 == 1 ? 0x1p900 : *p;
            }
        }
        for (int k = 0; k < RESULTS; k++)
            problem.wanted[k] = contiguous(problem.results[k], dtype, &problem.n);
        bce_arguments arguments =
            arguments_of(problem.arrays[0], problem.arrays[1], &problem.arrays[2], &problem.arrays[3], BCE_NONE);
        arguments.label_smoothing = e;
        bce_results results = all_results(&problem);
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        arguments.reduction = BCE_MEAN;
        arguments.count = (int64_t)divisor;
        results.loss = NULL;
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        for (int64_t i = 0; i < problem.n; i++) {
            double in[4], bound = dtype == BCE_FLOAT64 ? 4.0 : 0.5001;
            long double exact[RESULTS], terms[RESULTS];
            for (int k = 0; k < 4; k++)
                in[k] = element_read(problem.arrays[k].dtype,
                                     problem.operands[k] + (size_t)i * element_size(problem.arrays[k].dtype));
            exact_results(in[0], in[1], in[2], in[3], e, divisor, exact, terms);
            for (int k = 0; k < RESULTS; k++) {
                double got = element_read(dtype, problem.results[k] + (size_t)i * element_size(dtype));
                /* Four float64 roundings of terms that cancel, as above. */
                double cancelled = exact[k] != 0.0L ? (double)(0x1p-51L * terms[k] / fabsl(exact[k])) : 0.0;
                double allowance = cancelled * error_in_ulp(dtype, 0.0, exact[k]);
                double error = error_in_ulp(dtype, got, exact[k]);  /* 0 for an infinity that is right */
                check(error == 0.0 || error <= bound + allowance, "a result is within its bound", __FILE__, __LINE__);
            }
        }
    }
    problem_free(&problem);
}

/* Limits are taken: a zero coefficient silences its term, even against an infinity; NaN in any operand gives NaN. */
void test_limits(void)
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
void test_dtypes(void)
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

/* Logits in [-20, 20] have losses above 2^-29, multiples of 2^-82 below 2^5: 2^20 of them fit 127 bits. */
void test_sums(void)
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

/* What the first of so many losses is in a test of any losses: at the top of a binade with all bits set below it, where sums
   carry most; so with the bits of the second level set alone; of any exponents; next to each end of the range; not finite. */
static double any_loss(uint64_t *state, int kind)
{
    const double sign = random_bits(state) >> 63 ? -1.0 : 1.0, u = random_unit(state);
    switch (kind) {
    case 0: return 2.0 - (double)(1 + random_below(state, 512)) * 0x1p-52;
    case 1: return 2.0 - (double)(0x80 + (random_below(state, 16) << 8)) * 0x1p-52 - 0x1p-52;
    case 2: return sign * (2.0 - u * 0x1p-9);
    case 3: return sign * ldexp(1.0 + u, (int)random_below(state, 2000) - 1000);
    case 4: return sign * ldexp(1.0 + u, (int)random_below(state, 110) - 1074);
    case 5: return ldexp(2.0 - u * 0x1p-30, 1013 + (int)random_below(state, 11));
    case 6: return u < 0.02 ? sign * HUGE_VAL : u < 0.03 ? (double)NAN : sign * u;
    default: return sign * ldexp(2.0 - u * 0x1p-30, random_below(state, 2) ? 0 : -53 - (int)random_below(state, 60));
    }
}

/* The partial sum of a call is that of its element losses one by one, whatever they are, on every instruction set: at x = 64
   and y = 0 the loss is 64 w, as log(1 + e^-64) is lost. */
void test_any_losses(void)
{
    enum { N = 3 * 256 + 77, KINDS = 8 };
    static double x[N], w[N], losses[N];
    const unsigned char no = 0;
    const int64_t zero_stride = 0;
    uint64_t state = 23;
    for (int turn = 0; turn < 25 * KINDS; turn++) {
        const int64_t n = turn < KINDS ? N : 1 + random_below(&state, N);
        for (int i = 0; i < N; i++) {
            x[i] = 64.0;
            w[i] = any_loss(&state, turn % KINDS) / 64.0;
        }
        bce_array weight = contiguous(w, BCE_FLOAT64, &n), out = contiguous(losses, BCE_FLOAT64, &n);
        bce_arguments arguments = arguments_of(contiguous(x, BCE_FLOAT64, &n), vector((void *)&no, BCE_BOOL, &n, &zero_stride),
                                               &weight, NULL, BCE_NONE);
        for (int isa = 0; bce_isa_name(isa) != NULL; isa++) {
            if (bce_set_isa(bce_isa_name(isa), NULL) != BCE_OK)
                continue;
            bce_partial whole = {{0}, 0, 0, 0, 0}, of_numbers = whole;
            bce_results results = no_results;
            results.loss = &out;
            results.partial = &whole;
            CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
            bool expected = true;
            for (int64_t i = 0; i < n; i++)
                expected &= losses[i] == 64.0 * w[i] || w[i] != w[i];
            CHECK(expected);
            bce_partial_add(&of_numbers, losses, (size_t)n);
            CHECK(memcmp(&whole, &of_numbers, sizeof whole) == 0);
        }
    }
    bce_set_isa(NULL, NULL);
}

/* Store the numbers as losses of the dtype, at x = 64 and y = 0, and count those that are not the ones expected. */
static long misrounded(const double *numbers, const double *expected, int64_t n, bce_dtype dtype)
{
    double *x = allocate(8 * (size_t)n), *w = allocate(8 * (size_t)n);
    unsigned char *losses = allocate(8 * (size_t)n);
    const unsigned char no = 0;
    const int64_t zero_stride = 0;
    long wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = 64.0;
        w[i] = numbers[i] / 64.0;
    }
    bce_array weight = contiguous(w, BCE_FLOAT64, &n), out = contiguous(losses, dtype, &n);
    bce_arguments arguments = arguments_of(contiguous(x, BCE_FLOAT64, &n), vector((void *)&no, BCE_BOOL, &n, &zero_stride),
                                           &weight, NULL, BCE_NONE);
    bce_results results = no_results;
    results.loss = &out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    for (int64_t i = 0; i < n; i++) {
        double got = element_read(dtype, losses + (size_t)i * element_size(dtype)), rounded;
        wrong += got != expected[i];
        bce_partial one = {{0}, 0, 0, 0, 0};
        bce_partial_add(&one, numbers + i, 1);
        CHECK(bce_partial_round(&one, BCE_SUM, dtype, &rounded) == BCE_OK);
        wrong += element_read(dtype, &rounded) != expected[i];
    }
    free(x);
    free(w);
    free(losses);
    return wrong;
}

/* Every number of the short types, and some float32, is stored as itself; a number between two as the nearer one, and a tie
   as the one whose last bit is 0. */
void test_roundings(void)
{
    enum { MOST = 4 * 0x8000 };
    double *numbers = allocate(8 * MOST), *expected = allocate(8 * MOST);
    uint64_t state = 24;
    for (int d = BCE_FLOAT32; d <= BCE_BFLOAT16; d++) {
        const float_format format = format_of((bce_dtype)d);
        const double sign = d == BCE_FLOAT16 ? -1.0 : 1.0;
        int64_t n = 0;
        for (uint32_t i = 0; i < 0x7fff; i++) {
            /* Of float32 those of random last bits; the number after the largest counts as 2^limit. */
            uint32_t bits = d == BCE_FLOAT32 ? i << 16 | (uint32_t)(random_bits(&state) >> 48) : i;
            double ends[2];
            for (uint32_t k = 0; k < 2; k++) {
                uint32_t u32 = bits + k;
                uint16_t u16 = (uint16_t)u32;
                ends[k] = element_read((bce_dtype)d, d == BCE_FLOAT32 ? (void *)&u32 : (void *)&u16);
            }
            if (!(ends[0] <= DBL_MAX))
                break;
            double middle = 0.5 * ends[0] + 0.5 * fmin(ends[1], ldexp(1.0, format.limit));
            double tried[] = {ends[0], middle, nextafter(middle, 0.0), nextafter(middle, HUGE_VAL)};
            double wanted[] = {ends[0], ends[bits & 1], ends[0], ends[1]};
            for (int k = 0; k < 4; k++, n++) {
                numbers[n] = sign * tried[k];
                expected[n] = sign * wanted[k];
            }
        }
        CHECK(misrounded(numbers, expected, n, (bce_dtype)d) == 0);
    }
    free(numbers);
    free(expected);
}

/* float32 loss and gradient at the float64 logits at which they are closest to a tie: next to it, in the error of float64, but
   not of long double's 64 bits. */
static void check_next_to_ties(int result, uint64_t *state)
{
    enum { N = 2000 };
    const int64_t n = N;
    static double x[N], y[N];
    static float got[N], expected[N];
    for (int i = 0; i < N; i++) {
        /* A tie: an odd multiple of half a unit, from 2^-25 to 32 for the loss and to 1 for sigma. */
        int exponent = -25 + (int)random_below(state, result == LOSS ? 30 : 25);
        double below = ldexp((double)((1 << 23) + random_below(state, 1 << 23)), exponent - 23);
        double half = ldexp(1.0, exponent - 24);
        long double tie = (long double)below + half;
        x[i] = (double)(result == LOSS ? tie + logl(-expm1l(-tie)) : logl(tie) - log1pl(-tie));
        long double t = expl((long double)x[i]), value = result == LOSS ? log1pl(t) : t / (1.0L + t);
        if (result == LOSS && x[i] > 0.0)
            value = x[i] + log1pl(1.0L / t);
        if (fabsl(value - tie) < 0x1p-61L * tie) {
            i--;  /* too close to tell */
            continue;
        }
        y[i] = (double)(i % 2);
        expected[i] = (float)(value < tie ? below : below + 2.0 * half);
        if (i % 2) {
            x[i] = -x[i];
            expected[i] = result == LOSS ? expected[i] : -expected[i];
        }
    }
    bce_array out = contiguous(got, BCE_FLOAT32, &n);
    bce_arguments arguments =
        arguments_of(contiguous(x, BCE_FLOAT64, &n), contiguous(y, BCE_FLOAT64, &n), NULL, NULL, BCE_NONE);
    bce_results results = no_results;
    *(result == LOSS ? &results.loss : &results.gradient) = &out;
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    long wrong = 0;
    for (int i = 0; i < N; i++)
        wrong += got[i] != expected[i];
    CHECK(wrong == 0);
}

/* float32 results that float64 cannot tell from a tie. At a small x sigma(x) = 1/2 + x/4 - x^3/48, and at a large one the loss
   is (1 - y) x and the gradient 1 - y but for something tiny, above in the one and below in the other. */
void test_ties(void)
{
    enum { N = 512 };
    const int64_t n = N;
    float x[N], y[N], loss[N], gradient[N], first[N], second[N];
    bce_array loss_out = contiguous(loss, BCE_FLOAT32, &n), gradient_out = contiguous(gradient, BCE_FLOAT32, &n);
    bce_arguments arguments =
        arguments_of(contiguous(x, BCE_FLOAT32, &n), contiguous(y, BCE_FLOAT32, &n), NULL, NULL, BCE_NONE);
    bce_results results = no_results;
    results.loss = &loss_out;
    results.gradient = &gradient_out;
    for (int label = 0; label < 2; label++) {
        for (int i = 0; i < N; i++) {
            x[i] = (float)(2 * i + 1 - N) * 0x1p-23f;
            y[i] = (float)label;
            double z = label ? -x[i] : x[i], sigma = nextafter(0.5 + z / 4.0, z > 0.0 ? 0.0 : 1.0);
            first[i] = (float)(label ? -sigma : sigma);
        }
        CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
        CHECK(memcmp(gradient, first, sizeof gradient) == 0);
    }
    for (int i = 0; i < N; i++) {
        x[i] = ldexpf(i % 2 ? 1.5f : 1.0f, 8 + i % 119);
        y[i] = (float)(2 * (i / 119) + 1) * 0x1p-25f;
        first[i] = (float)nextafter((1.0 - (double)y[i]) * (double)x[i], HUGE_VAL);
        second[i] = (float)nextafter(1.0 - (double)y[i], 0.0);
    }
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(memcmp(loss, first, sizeof loss) == 0);
    CHECK(memcmp(gradient, second, sizeof gradient) == 0);
    /* At x = 0 the gradient is 1/2 - y, and a tie is a tie: it goes to the number whose last bit is 0. */
    uint64_t state = 26;
    double exact_y[N];
    arguments.targets = contiguous(exact_y, BCE_FLOAT64, &n);
    results.loss = NULL;
    for (int i = 0; i < N; i++) {
        int64_t digits = (1 << 23) + random_below(&state, 1 << 23), even = digits + (digits & 1);
        int exponent = -25 - (int)random_below(&state, 20);
        x[i] = 0.0f;
        exact_y[i] = 0.5 - ldexp((double)(2 * digits + 1), exponent - 1);
        second[i] = (float)ldexp((double)even, exponent);
    }
    CHECK(bce_evaluate(&arguments, &results, NULL) == BCE_OK);
    CHECK(memcmp(gradient, second, sizeof gradient) == 0);
    check_next_to_ties(LOSS, &state);
    check_next_to_ties(GRADIENT, &state);
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

void test_partial_sums(void)
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
    for (int i = 0; i + 1 < BCE_PARTIAL_LIMBS; i++) {
        partial.limbs[i] += (int64_t)1 << 32;
        partial.limbs[i + 1]--;
        bce_partial_add(&partial, numbers, 0);
        CHECK(memcmp(&partial, &canonical, sizeof partial) == 0);
    }
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
            /* Adding numbers is merging their partial sum, and it does not matter which is merged into which. */
            bce_partial alike = wild, reverse = other, of_numbers = {{0}, 0, 0, 0, 0};
            bce_partial_add(&of_numbers, numbers, 4);
            bce_partial_merge(&alike, &of_numbers);
            bce_partial_add(&wild, numbers, 4);
            CHECK(memcmp(&wild, &alike, sizeof wild) == 0);
            bce_partial_merge(&reverse, &wild);
            bce_partial_merge(&wild, &other);
            CHECK(memcmp(&wild, &reverse, sizeof wild) == 0);
            for (int k = 0; k + 1 < BCE_PARTIAL_LIMBS; k++)
                CHECK(wild.limbs[k] >= 0 && wild.limbs[k] >> 32 == 0);
            bce_status status = bce_partial_round(&wild, BCE_MEAN, BCE_FLOAT64, &result);
            CHECK(status == BCE_OK || status == BCE_ERROR_ARGUMENT);
        }

    /* Sums beyond float64, by whatever count they are divided. */
    for (int sign = 0; sign < 2; sign++)
        for (int reduction = BCE_MEAN; reduction <= BCE_SUM; reduction++) {
            bce_partial beyond = {{0}, INT64_MAX, 0, 0, 0};
            beyond.limbs[BCE_PARTIAL_LIMBS - 1] = (sign ? -1 : 1) * ((int64_t)1 << 32);
            CHECK(bce_partial_round(&beyond, (bce_reduction)reduction, BCE_FLOAT64, &result) == BCE_OK);
            CHECK(result == (sign ? -inf : inf));
        }

    /* Means so small that they are a few of the least number, or none. */
    for (int k = -70; k <= 70; k++)
        for (int n = 1; n <= 35; n++) {
            bce_partial small = {{0}, 0, 0, 0, 0};
            double number = k * least;
            bce_partial_add(&small, &number, 1);
            small.count = n;
            CHECK(bce_partial_round(&small, BCE_MEAN, BCE_FLOAT64, &result) == BCE_OK);
            int whole = abs(k) / n, twice = 2 * (abs(k) % n);
            whole += twice > n || (twice == n && whole % 2 == 1);
            CHECK(fabs(result) == whole * least && (result == 0.0 || (result < 0.0) == (k < 0)));
        }

    /* A count that is 2^k times as large makes a mean 2^-k times as large, up to the largest count. */
    uint64_t state = 25;
    for (int turn = 0; turn < 2000; turn++) {
        double terms[3], one, other;
        bce_partial some = {{0}, 0, 0, 0, 0};
        for (int i = 0; i < 3; i++)
            terms[i] = ldexp(random_unit(&state) - 0.5, (int)random_below(&state, 120));
        bce_partial_add(&some, terms, 3);
        int k = (int)random_below(&state, 54);
        some.count = 1 + random_below(&state, 1000);
        CHECK(bce_partial_round(&some, BCE_MEAN, BCE_FLOAT64, &one) == BCE_OK);
        some.count <<= k;
        CHECK(bce_partial_round(&some, BCE_MEAN, BCE_FLOAT64, &other) == BCE_OK && other == ldexp(one, -k));
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

#ifndef __MINGW32__
/* A number of any size; or a usual one; or one with few bits set, or subnormal, for ties and what is lost at the ends. */
static double any_double(uint64_t *state)
{
    uint64_t bits = random_bits(state), kind = random_bits(state) >> 62, exponent = random_bits(state) >> 58;
    const uint64_t sign_and_fraction = 0x800fffffffffffff;
    if (kind == 1)
        bits = (bits & sign_and_fraction) | (1023 - 32 + exponent) << 52;
    if (kind == 2)
        bits &= 0xfff0000000000000 | (random_bits(state) & random_bits(state) & random_bits(state));
    if (kind == 3)
        bits = (bits & sign_and_fraction) | exponent << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The fma() for C libraries without a right one has the bits of a right one's, this C library's. */
void test_fma(void)
{
    uint64_t state = 5;
    long wrong = 0;
    for (int i = 0; i < 1000000; i++) {
        double a = any_double(&state), b = any_double(&state), c = any_double(&state);
        if (i % 4 == 0)  /* what cancels, wholly or but for the last bits */
            c = -a * b * (i % 8 == 0 ? 1.0 : 1.0 + DBL_EPSILON);
        if (i % 16 == 0)
            c = ldexp(c, (int)(random_bits(&state) >> 56) - 128);
        double expected = fma(a, b, c), got = bce_software_fma(a, b, c);
        wrong += memcmp(&expected, &got, sizeof got) != 0 && !(isnan(expected) && isnan(got));
    }
    CHECK(wrong == 0);
}
#endif
