/* Fused multiply-adds of arrays, for interpreters of Triton older than 3.9, which round twice. */

#include <math.h>

void fma_double(const double *x, const double *y, const double *z, double *result, long n)
{
    for (long i = 0; i < n; i++)
        result[i] = fma(x[i], y[i], z[i]);
}

void fma_float(const float *x, const float *y, const float *z, float *result, long n)
{
    for (long i = 0; i < n; i++)
        result[i] = fmaf(x[i], y[i], z[i]);
}
