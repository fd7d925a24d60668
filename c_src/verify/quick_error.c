/* Measure the relative error of the quick formulae of one instruction set, over the float32 logits of both signs.

       quick_error [STRIDE]

   checks every STRIDE-th magnitude (1,001 by default), prints the largest errors in softplus and sigma, and fails unless they
   leave room for the sum over a block below BCE_QUICK_ERROR. Compiled with the instruction set's macro, such as
   -DBCE_SIMD_AVX2, and the compiler's options for it. The oracle is C's long double of at least 64 bits. */

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
    long double largest[2] = {0, 0};
    for (uint64_t bits = 0; stride > 0 && bits <= last; bits += stride * BCE_WIDTH) {
        double z[2][BCE_WIDTH], softplus[2][BCE_WIDTH], sigma[2][BCE_WIDTH];
        for (int l = 0; l < BCE_WIDTH; l++) {
            uint64_t at = bits + stride * (uint64_t)l;
            uint32_t magnitude = (uint32_t)(at < last ? at : last);
            float x;
            memcpy(&x, &magnitude, sizeof x);
            z[0][l] = x;
            z[1][l] = -(double)x;
        }
        for (int sign = 0; sign < 2; sign++) {
            bce_vec x = bce_load(z[sign]);
            bce_quick quick = bce_quick_of(x, bce_quick_exp_minus_abs(x));
            bce_store(softplus[sign], quick.softplus);
            bce_store(sigma[sign], quick.sigma);
        }
        for (int l = 0; l < BCE_WIDTH; l++) {
            long double t = expl(-(long double)z[0][l]), log1p_t = log1pl(t);
            long double exact[2][2] = {{z[0][l] + log1p_t, 1 / (1 + t)}, {log1p_t, t / (1 + t)}};
            for (int sign = 0; sign < 2; sign++) {
                long double errors[2] = {softplus[sign][l] / exact[sign][0] - 1, sigma[sign][l] / exact[sign][1] - 1};
                for (int f = 0; f < 2; f++)
                    if (!(fabsl(errors[f]) <= largest[f]))
                        largest[f] = fabsl(errors[f]);
                checked += 2;
            }
        }
    }
    /* A sum over a block adds at most 255 roundings; a coefficient, the scale and their products a few. */
    long double bound = BCE_QUICK_ERROR - 260 * 0x1p-53L;
    printf("quick formulae, %" PRIu64 " results: largest relative error of softplus 2^%.2Lf, of sigma 2^%.2Lf\n", checked,
           log2l(largest[0]), log2l(largest[1]));
    return checked > 0 && largest[0] < bound && largest[1] < bound ? 0 : 1;
}
