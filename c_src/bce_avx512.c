/* x86-64 with AVX-512 (F, DQ, VL, BW). The target is set here and not by compiler flags, which not every build of this file may
   pass. No system header may be included inside the region. */

#include "bce_internal.h"

#ifdef BCE_X86_64

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")
#endif

#define BCE_SIMD_AVX512
#define BCE_RUN bce_run_avx512
#include "bce_kernel.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
