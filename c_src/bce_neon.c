/* AArch64, whose baseline has NEON with fma. */

#include "bce_internal.h"

#ifdef BCE_AARCH64

#include <arm_neon.h>

#define BCE_SIMD_NEON
#define BCE_RUN bce_run_neon
#include "bce_kernel.inc"

#endif
