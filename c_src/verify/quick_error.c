/* Measure the relative error of the quick formulae of one instruction set, over the float32 logits of both signs.

       quick_error [STRIDE]

   checks every STRIDE-th magnitude (1,001 by default) and prints the largest errors in log(1 + t), in sigma by both formulae,
   and in what a logit adds to a sum as a factor 1 + t. Fails unless all leave room for the sum below BCE_QUICK_ERROR, and the
   first two are below BCE_QUICK_TERM_ERROR. Compiled with the instruction set's macro, such as -DBCE_SIMD_AVX2, and the
   compiler's options for it. The oracle is C's long double of at least 64 bits. */

#include "../bce_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../bce_contract.h"

#include "../bce_simd.h"

#include "../bce_math.h"

_Static_assert(LDBL_MANT_DIG >= 64, "the oracle needs a long double of at least 64 bits");

int main(int argc, char **argv)
{
    uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 1001, checked = 0;
    float limit = BCE_QUICK_LIMIT;
    uint32_t last;
    memcpy(&last, &limit, sizeof last);
    long double largest[4] = {0, 0, 0, 0};
    for (uint64_t bits = 0; stride > 0 && bits <= last; bits += stride * BCE_WIDTH) {
        double z[2][BCE_WIDTH], found[2][4][BCE_WIDTH];
        for (int l = 0; l < BCE_WIDTH; l++) {
            uint64_t at = bits + stride * (uint64_t)l;
            uint32_t magnitude = (uint32_t)(at < last ? at : last);
            float x;
            memcpy(&x, &magnitude, sizeof x);
            z[0][l] = x;
            z[1][l] = -(double)x;
        }
        for (int sign = 0; sign < 2; sign++) {
            bce_vec x = bce_load(z[sign]), t = bce_quick_exp_minus_abs(x);
            bce_quick quick = bce_quick_of(t);
            bce_store(found[sign][0], quick.log1p);
            bce_store(found[sign][1], quick.sigma_minus);
            bce_store(found[sign][2], bce_quick_sigma(x, t, bce_all(1.0)));
            bce_store(found[sign][3], t);
        }
        for (int l = 0; l < BCE_WIDTH; l++) {
            long double t = expl(-(long double)z[0][l]), log1p_t = log1pl(t);
            for (int sign = 0; sign < 2; sign++) {
                long double positive = z[sign][l] > 0 ? z[sign][l] : 0;
                long double minus = t / (1 + t), sigma = z[sign][l] > 0 ? 1 / (1 + t) : minus;
                long double exact[4] = {log1p_t, minus, sigma, positive + log1p_t};
                for (int f = 0; f < 4; f++) {
                    long double value = found[sign][f][l];
                    if (f == 3)
                        value = positive + log1pl(value);
                    long double error = fabsl(value / exact[f] - 1);
                    if (!(error <= largest[f]))
                        largest[f] = error;
                }
                checked += 4;
            }
        }
    }
    /* A lane's sum has at most 250 roundings and its product 250 of twice that; a coefficient, the scale and their products,
       the sum of the lanes and its logarithm add a few. */
    long double bound = BCE_QUICK_ERROR - 800 * 0x1p-53L;
    printf("quick formulae, %" PRIu64 " results: largest relative error of log(1 + t) 2^%.2Lf, of sigma 2^%.2Lf and 2^%.2Lf, "
           "of a factor 2^%.2Lf\n", checked, log2l(largest[0]), log2l(largest[1]), log2l(largest[2]), log2l(largest[3]));
    bool good = checked > 0;
    for (int f = 0; f < 4; f++)
        good &= largest[f] < bound && (f > 1 || largest[f] < BCE_QUICK_TERM_ERROR - 0x1p-50L);
    return good ? 0 : 1;
}
