/* Check the float32 loss and gradient at hard labels for every float32 logit: softplus(x), softplus(-x), sigma(x), -sigma(-x),
   computed with the quick formulae and without.

       exhaustive [STRIDE]

   checks every STRIDE-th magnitude with both signs (1, the default, is all 2^32 bit patterns: NaN and infinities are checked
   too) on all processors, and prints how many results are not correctly rounded, and the largest error.

   The oracle is C's long double (expl, log1pl) where that has 64 significant bits or more: its error is taken to be below
   2^-59, some twenty times what the library documents. Where both ends of that interval do not round alike, GNU MPFR decides.
   On machines whose long double is float64, MPFR decides everything, slowly. */

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <mpfr.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../bce.h"

enum { CHUNK = 1 << 14, MAX_THREADS = 256 };

#define MAGNITUDES UINT64_C(0x80000000)

/* What is checked: of +x and -x the loss and gradient for y = 0 and y = 1. */
typedef enum { SOFTPLUS, SIGMA } function;
static const char *const names[2] = {"softplus", "sigma"};

static uint64_t stride = 1;
static _Atomic uint64_t next_chunk, done_chunks;
static _Atomic int failed;

typedef struct {
    uint64_t checked, misrounded, differing, by_mpfr;
    double largest_error[2];
    float witness[2];
} tally;

static float float_from(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The distance to the next float32 beyond the number's magnitude. */
static double spacing(double exact)
{
    int exponent;
    frexp(exact, &exponent);
    return ldexp(1.0, exponent - 24 < -149 ? -149 : exponent - 24);
}

static float by_mpfr(function f, float x)
{
    mpfr_t t, result;
    mpfr_init2(t, 300);
    mpfr_init2(result, 300);
    mpfr_set_flt(t, -fabsf(x), MPFR_RNDN);
    mpfr_exp(t, t, MPFR_RNDN);
    if (f == SOFTPLUS) {
        mpfr_log1p(result, t, MPFR_RNDN);
        if (x > 0) {
            mpfr_set_flt(t, x, MPFR_RNDN);
            mpfr_add(result, result, t, MPFR_RNDN);
        }
    } else {
        mpfr_add_ui(result, t, 1, MPFR_RNDN);
        if (x > 0)
            mpfr_ui_div(result, 1, result, MPFR_RNDN);
        else
            mpfr_div(result, t, result, MPFR_RNDN);
    }
    float rounded = mpfr_get_flt(result, MPFR_RNDN);
    mpfr_clear(t);
    mpfr_clear(result);
    return rounded;
}

/* f(x) as computed, against f(x) as long double. */
static void check(function f, float x, float got, long double exact, tally *count)
{
    count->checked++;
#if LDBL_MANT_DIG >= 64
    float low = (float)(exact * (1 - 0x1p-59L)), high = (float)(exact * (1 + 0x1p-59L));
#else
    float low = 0, high = 1;
#endif
    float expected = low;
    if (low != high) {
        expected = by_mpfr(f, x);
        count->by_mpfr++;
    }
    if (got != expected) {
        if (count->misrounded++ < 10)
            fprintf(stderr, "\n%s(%a): got %a, want %a\n", names[f], (double)x, (double)got, (double)expected);
    }
    double off = (double)fabsl((long double)got - exact);
    if (off > 0.4999999 * fabs((double)got) * 0x1p-24 && off / spacing((double)exact) > count->largest_error[f]) {
        count->largest_error[f] = off / spacing((double)exact);
        count->witness[f] = x;
    }
}

/* The loss and gradient of n logits for one label, as the library computes them: by the quick formulae where they will do,
   or, where a partial sum is wanted too, never. */
static int evaluate(float *logits, float label, int64_t n, float *loss, float *gradient, bce_partial *partial)
{
    int64_t shape[1] = {n}, contiguous[1] = {sizeof(float)}, constant[1] = {0};
    bce_array x = {logits, BCE_FLOAT32, 1, shape, contiguous}, y = {&label, BCE_FLOAT32, 1, shape, constant};
    bce_array l = {loss, BCE_FLOAT32, 1, shape, contiguous}, g = {gradient, BCE_FLOAT32, 1, shape, contiguous};
    bce_arguments arguments = {x, y, NULL, NULL, 0.0, BCE_NONE, 0, NULL, NULL};
    bce_results results = {&l, &g, NULL, NULL, NULL, NULL, partial};
    char message[BCE_MESSAGE_SIZE];
    bce_status status = bce_evaluate(&arguments, &results, message);
    if (status != BCE_OK)
        fprintf(stderr, "\n%s\n", message);
    return status == BCE_OK;
}

/* [sign][label] */
typedef struct {
    float x[2][CHUNK], loss[2][2][CHUNK], gradient[2][2][CHUNK], other_loss[CHUNK], other_gradient[CHUNK];
} workspace;

/* Both ways, whose bits must be equal. */
static int evaluate_side(workspace *w, int sign, int label, int64_t n, tally *count)
{
    bce_partial partial = {{0}, 0, 0, 0, 0};
    float *loss = w->loss[sign][label], *gradient = w->gradient[sign][label];
    if (!evaluate(w->x[sign], (float)label, n, loss, gradient, NULL) ||
        !evaluate(w->x[sign], (float)label, n, w->other_loss, w->other_gradient, &partial))
        return 0;
    for (int64_t i = 0; i < n; i++) {
        count->differing += memcmp(&loss[i], &w->other_loss[i], sizeof(float)) != 0 && !isnan(w->x[sign][i]);
        count->differing += memcmp(&gradient[i], &w->other_gradient[i], sizeof(float)) != 0 && !isnan(w->x[sign][i]);
    }
    return 1;
}

static void check_magnitude(const workspace *w, int i, tally *count)
{
    float a = w->x[0][i];
    if (!(a <= FLT_MAX)) {
        for (int sign = 0; sign < 2; sign++)
            for (int label = 0; label < 2; label++) {
                /* The limits: sigma is 0 or 1, softplus 0 or infinite; NaN stays NaN. */
                float z = label ? -w->x[sign][i] : w->x[sign][i], factor = label ? -1.0f : 1.0f;
                float loss = z > 0 ? INFINITY : 0.0f, gradient = z > 0 ? factor : 0.0f;
                int right = isnan(a) ? isnan(w->loss[sign][label][i]) && isnan(w->gradient[sign][label][i])
                                     : w->loss[sign][label][i] == loss && w->gradient[sign][label][i] == gradient;
                count->checked += 2;
                count->misrounded += !right;
            }
        return;
    }
    long double t = expl(-(long double)a), log1p_t = log1pl(t);
    long double softplus[2] = {(long double)a + log1p_t, log1p_t}, sigma[2] = {1 / (1 + t), t / (1 + t)};
    for (int sign = 0; sign < 2; sign++)
        for (int label = 0; label < 2; label++) {
            int side = sign ^ label;
            float z = side ? -a : a;
            check(SOFTPLUS, z, w->loss[sign][label][i], softplus[side], count);
            check(SIGMA, z, label ? -w->gradient[sign][label][i] : w->gradient[sign][label][i], sigma[side], count);
        }
}

static void *work(void *argument)
{
    tally *count = argument;
    workspace *w = malloc(sizeof *w);
    uint64_t magnitudes = (MAGNITUDES + stride - 1) / stride, chunks = (magnitudes + CHUNK - 1) / CHUNK, chunk;
    while (w != NULL && !failed && (chunk = next_chunk++) < chunks) {
        int64_t n = chunk + 1 < chunks ? CHUNK : (int64_t)(magnitudes - chunk * CHUNK);
        for (int64_t i = 0; i < n; i++) {
            w->x[0][i] = float_from((uint32_t)((chunk * CHUNK + (uint64_t)i) * stride));
            w->x[1][i] = -w->x[0][i];
        }
        for (int sign = 0; sign < 2; sign++)
            for (int label = 0; label < 2; label++)
                if (!evaluate_side(w, sign, label, n, count))
                    failed = 1;
        for (int i = 0; i < n; i++)
            check_magnitude(w, i, count);
        done_chunks++;
    }
    failed |= w == NULL;
    free(w);
    return NULL;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    if (argc > 2 || (argc == 2 && ((stride = strtoull(argv[1], &end, 10)) == 0 || *end != '\0'))) {
        fprintf(stderr, "usage: exhaustive [STRIDE]\n");
        return 2;
    }
    long threads = sysconf(_SC_NPROCESSORS_ONLN);
    threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    bce_set_num_threads(1);
    const char *isa;
    char message[BCE_MESSAGE_SIZE];
    if (bce_get_isa(&isa, message) != BCE_OK) {
        fprintf(stderr, "%s\n", message);
        return 2;
    }
    static tally counts[MAX_THREADS];
    static pthread_t handles[MAX_THREADS];
    time_t start = time(NULL);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&handles[i], NULL, work, &counts[i]) != 0)
            return 2;
    uint64_t chunks = ((MAGNITUDES + stride - 1) / stride + CHUNK - 1) / CHUNK;
    while (isatty(2) && done_chunks < chunks && !failed) {
        fprintf(stderr, "\r%5.1f %% after %ld s", 100.0 * (double)done_chunks / (double)chunks, (long)(time(NULL) - start));
        usleep(500000);
    }
    tally total = {0};
    for (long i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        total.checked += counts[i].checked;
        total.misrounded += counts[i].misrounded;
        total.differing += counts[i].differing;
        total.by_mpfr += counts[i].by_mpfr;
        for (int f = 0; f < 2; f++)
            if (counts[i].largest_error[f] > total.largest_error[f]) {
                total.largest_error[f] = counts[i].largest_error[f];
                total.witness[f] = counts[i].witness[f];
            }
    }
    printf("float32 loss and gradient, y = 0 and y = 1, all 2^32 logits in steps of %" PRIu64 ", %s: %" PRIu64 " results\n",
           stride, isa, total.checked);
    printf("misrounded: %" PRIu64 "; decided by MPFR: %" PRIu64 "\n", total.misrounded, total.by_mpfr);
    printf("of other bits without the quick formulae: %" PRIu64 "\n", total.differing);
    for (int f = 0; f < 2; f++)
        printf("largest error of %s: %.9f ULP at x = %a\n", names[f], total.largest_error[f], (double)total.witness[f]);
    printf("%ld s on %ld processors\n", (long)(time(NULL) - start), threads);
    return total.misrounded == 0 && total.differing == 0 && total.checked > 0 && !failed ? 0 : 1;
}
