/* The baseline of the machine, whatever that is: fma() may be a call. */

#include "bce_internal.h"

#define BCE_RUN bce_run_scalar
#include "bce_kernel.inc"

void bce_store_number(bce_dtype dtype, double number, void *result)
{
    bce_store_run(dtype, &number, result, 0, 1);
}
