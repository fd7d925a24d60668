/* x86-64 with AVX2 and FMA. The target is set here and not by compiler flags, which not every build of this file may pass.
   No system header may be included inside the region. */

#include "bce_internal.h"

#ifdef BCE_X86_64

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define BCE_SIMD_AVX2
#define BCE_RUN bce_run_avx2
#include "bce_kernel.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
