/* Check the CUDA kernel's fast path, as pairs.h has it in C, for every float32 logit and both labels.

       pairs [STRIDE]

   takes every STRIDE-th magnitude (1, the default, is all 2^32 bit patterns) with both signs. Every loss and gradient whose ends
   agree must be the core's float32, which c_src/verify/exhaustive.c holds to the correctly rounded value: as it is, and divided
   by 3. Prints how many are not, the share handed over, and the largest relative errors of the functions, as pairs and in
   float32, against the core's float64; fails if there is a wrong result, or an error beyond the bound that the kernel allows. */

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "pairs.h"

enum { CHUNK = 1 << 14, MAX_THREADS = 256, CASES = 3 };

#define MAGNITUDES UINT64_C(0x7f800001) /* infinity is the last; what a NaN does is the hand-over's concern */
/* Bounds: those of launch.py. */
static const double bounds[2] = {0x1.6a09e6p-37, 0x1p-22};

static const char *const cases[CASES] = {"loss", "gradient", "gradient over 3"};
static uint64_t stride = 1;
static _Atomic uint64_t next_chunk;
static _Atomic int failed;

typedef struct {
    uint64_t results[CASES], wrong[CASES], handed[CASES], handed_elements, elements;
    double error[2][2]; /* [pairs, float32][log1p, sigma] */
    float witness[2][2];
} tally;

typedef struct {
    float x[2][CHUNK], loss[CHUNK], gradient[CHUNK], third[CHUNK];
    double a[CHUNK], log1p[CHUNK], sigma[CHUNK];
    pairs_ends ends[CASES][CHUNK];
    pairs_pair pair[2][CHUNK];
    float single[2][CHUNK];
} workspace;

static int evaluate(void *x, bce_dtype dtype, double label, int64_t n, int64_t count, void *loss, void *gradient)
{
    int64_t size = dtype == BCE_FLOAT64 ? sizeof(double) : sizeof(float), shape[1] = {n}, contiguous[1] = {size}, constant[1] = {0};
    bce_array logits = {x, dtype, 1, shape, contiguous}, targets = {&label, BCE_FLOAT64, 1, shape, constant};
    bce_array l = {loss, dtype, 1, shape, contiguous}, g = {gradient, dtype, 1, shape, contiguous};
    bce_arguments arguments = {logits, targets, NULL, NULL, 0.0, count ? BCE_MEAN : BCE_NONE, count, NULL, NULL};
    bce_results results = {loss ? &l : NULL, &g, NULL, NULL, NULL, NULL, NULL};
    char message[BCE_MESSAGE_SIZE];
    bce_status status = bce_evaluate(&arguments, &results, message);
    if (status != BCE_OK)
        fprintf(stderr, "%s\n", message);
    return status == BCE_OK;
}

static void check_functions(workspace *w, int64_t n, tally *count)
{
    for (int64_t i = 0; i < n; i++) {
        pairs_functions((float)-w->a[i], &w->pair[0][i], &w->pair[1][i]);
        pairs_functions_in_float32((float)-w->a[i], &w->single[0][i], &w->single[1][i]);
    }
    for (int f = 0; f < 2; f++)
        for (int64_t i = 0; i < n; i++) {
            double exact = f ? w->sigma[i] : w->log1p[i], allowed = ldexp(1.0, -146);
            double got[2] = {(double)w->pair[f][i].high + (double)w->pair[f][i].low, (double)w->single[f][i]};
            for (int k = 0; k < 2; k++) {
                double error = (fabs(got[k] - exact) - allowed) / exact;
                if (error > count->error[k][f]) {
                    count->error[k][f] = error;
                    count->witness[k][f] = (float)-w->a[i];
                }
            }
        }
}

static void check_results(workspace *w, int sign, int label, int64_t n, tally *count)
{
    const pairs_pair one = {1.0f, 0.0f}, third = {(float)(1.0 / 3), (float)(1.0 / 3 - (double)(float)(1.0 / 3))};
    for (int64_t i = 0; i < n; i++) {
        pairs_evaluate(w->x[sign][i], (float)label, third, false, &w->ends[0][i], &w->ends[2][i]);
        pairs_evaluate(w->x[sign][i], (float)label, one, true, &w->ends[0][i], &w->ends[1][i]);
    }
    const float *want[CASES] = {w->loss, w->gradient, w->third};
    for (int64_t i = 0; i < n; i++) {
        int handed[CASES];
        for (int k = 0; k < CASES; k++) {
            pairs_ends ends = w->ends[k][i];
            handed[k] = !(ends.above == ends.below);
            count->handed[k] += (uint64_t)handed[k];
            if (!handed[k] && memcmp(&ends.above, &want[k][i], sizeof(float)) != 0) {
                if (count->wrong[k]++ < 5)
                    fprintf(stderr, "%s at x = %a, y = %d: got %a, want %a\n", cases[k], (double)w->x[sign][i], label,
                            (double)ends.above, (double)want[k][i]);
            }
            count->results[k]++;
        }
        count->handed_elements += (uint64_t)(handed[0] || handed[1]);
        count->elements++;
    }
}

static void *work(void *argument)
{
    tally *count = argument;
    workspace *w = malloc(sizeof *w);
    uint64_t magnitudes = (MAGNITUDES + stride - 1) / stride, chunks = (magnitudes + CHUNK - 1) / CHUNK, chunk;
    failed |= w == NULL;
    while (!failed && (chunk = next_chunk++) < chunks) {
        int64_t n = chunk + 1 < chunks ? CHUNK : (int64_t)(magnitudes - chunk * CHUNK), small = 0;
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)((chunk * CHUNK + (uint64_t)i) * stride);
            memcpy(&w->x[0][i], &bits, sizeof bits);
            w->x[1][i] = -w->x[0][i];
            if (w->x[0][i] < PAIRS_LIMIT)
                w->a[small++] = -(double)w->x[0][i];
        }
        if (small > 0) {
            failed |= !evaluate(w->a, BCE_FLOAT64, 0.0, small, 0, w->log1p, w->sigma);
            check_functions(w, small, count);
        }
        for (int sign = 0; sign < 2; sign++)
            for (int label = 0; label < 2; label++) {
                failed |= !evaluate(w->x[sign], BCE_FLOAT32, label, n, 0, w->loss, w->gradient) ||
                          !evaluate(w->x[sign], BCE_FLOAT32, label, n, 3, NULL, w->third);
                check_results(w, sign, label, n, count);
            }
    }
    free(w);
    return NULL;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    if (argc > 2 || (argc == 2 && ((stride = strtoull(argv[1], &end, 10)) == 0 || *end != '\0'))) {
        fprintf(stderr, "usage: pairs [STRIDE]\n");
        return 2;
    }
    long threads = sysconf(_SC_NPROCESSORS_ONLN);
    threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    bce_set_num_threads(1);
    if (!pairs_make_table())
        return 2;
    static tally counts[MAX_THREADS];
    static pthread_t handles[MAX_THREADS];
    time_t start = time(NULL);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&handles[i], NULL, work, &counts[i]) != 0)
            return 2;
    tally total = {0};
    for (long i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        for (int k = 0; k < CASES; k++) {
            total.results[k] += counts[i].results[k];
            total.wrong[k] += counts[i].wrong[k];
            total.handed[k] += counts[i].handed[k];
        }
        total.handed_elements += counts[i].handed_elements;
        total.elements += counts[i].elements;
        for (int k = 0; k < 2; k++)
            for (int f = 0; f < 2; f++)
                if (counts[i].error[k][f] > total.error[k][f]) {
                    total.error[k][f] = counts[i].error[k][f];
                    total.witness[k][f] = counts[i].witness[k][f];
                }
    }
    printf("the fast path in C, y = 0 and y = 1, all float32 logits in steps of %" PRIu64 ": %" PRIu64 " elements\n", stride,
           total.elements);
    int bad = failed || total.elements == 0;
    for (int k = 0; k < CASES; k++) {
        printf("%s: %" PRIu64 " misrounded; handed over 2^%.2f\n", cases[k], total.wrong[k],
               log2((double)total.handed[k] / (double)total.results[k]));
        bad |= total.wrong[k] != 0;
    }
    printf("elements handed over: 2^%.2f\n", log2((double)total.handed_elements / (double)total.elements));
    for (int k = 0; k < 2; k++)
        for (int f = 0; f < 2; f++) {
            printf("largest relative error of %s %s: 2^%.2f at a = %a\n", f ? "sigma(-a)" : "log(1 + e^-a)",
                   k ? "in float32" : "as a pair", log2(total.error[k][f]), (double)total.witness[k][f]);
            bad |= !(total.error[k][f] < bounds[k]);
        }
    printf("%ld s on %ld processors\n", (long)(time(NULL) - start), threads);
    return bad;
}
