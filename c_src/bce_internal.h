/* What the parts of the core share. No binding includes this. */

#ifndef BCE_INTERNAL_H
#define BCE_INTERNAL_H

#ifdef __FAST_MATH__
#error "bce_bridge must not be compiled with -ffast-math or -Ofast, which give up the exactness that it promises"
#endif

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "bce.h"

#if defined(__MINGW32__) && !defined(__FMA__)
#include "bce_fma.h"
#define fma bce_software_fma
#endif

/* The instruction sets that this compiler can be told to use inside a source file. */
#if defined(__x86_64__) && defined(__GNUC__)
#define BCE_X86_64 1
#elif defined(__aarch64__) && defined(__GNUC__)
#define BCE_AARCH64 1
#endif

enum { BCE_LOGITS, BCE_TARGETS, BCE_WEIGHT, BCE_POS_WEIGHT, BCE_OPERANDS };
enum { BCE_LOSS, BCE_GRADIENT, BCE_CURVATURE, BCE_D_TARGETS, BCE_D_WEIGHT, BCE_D_POS_WEIGHT, BCE_RESULTS };

/* An array over the common shape, with neighbouring dimensions merged wherever its own strides allow: a contiguous array
   has one dimension, a broadcast number one of stride 0. */
typedef struct {
    char *data;
    bce_dtype dtype;
    int ndim;
    int64_t shape[BCE_MAX_DIMENSIONS];
    int64_t strides[BCE_MAX_DIMENSIONS];
} bce_view;

/* Which sigmoids are needed, and how accurate: only sigma(-|x|) for a gradient that is rounded to float32 or less. */
typedef enum { BCE_SIGMOIDS_NONE, BCE_SIGMOIDS_NARROW, BCE_SIGMOIDS_WIDE } bce_sigmoids_kind;

/* Of a floating type: by how many bits its significand is shorter than float64's, and the least normal number. */
typedef struct {
    int dropped;
    double least_normal;
} bce_format;

typedef struct {
    int64_t count;               /* elements of the common shape */
    bool present[BCE_OPERANDS];
    bool wanted[BCE_RESULTS];    /* loss: elementwise */
    bool sum;
    bce_sigmoids_kind sigmoids;
    bool settle[BCE_RESULTS];    /* float32 results that are promised to be correctly rounded */
    bce_view operands[BCE_OPERANDS];
    bce_view results[BCE_RESULTS];
    bool tails;                  /* a weight could lift e^-|x| out of the subnormal numbers into a float64 result */
    double label_smoothing;
    double divisor;              /* of the derivatives */
    bool quick;                  /* wanted are the loss and the gradient alone, all rounded to float32 or less */
    bce_format formats[BCE_RESULTS];  /* where quick */
    int (*interrupted)(void *);
    void *interrupted_argument;
} bce_plan;

/* The sum of the losses, and the part of it that has the relative error of the quick formulae. */
typedef struct {
    bce_partial partial;
    double quick;
} bce_sum;

/* Above the relative error of the quick formulae, sums over a block included. */
#define BCE_QUICK_ERROR 0x1p-41

/* Evaluate the elements begin <= i < end and add their losses to the sum. */
typedef void bce_run(const bce_plan *plan, int64_t begin, int64_t end, bce_sum *sum);
bce_run bce_run_scalar, bce_run_avx2, bce_run_avx512, bce_run_neon;

/* The path in use. BCE_ERROR_ISA, with a message, if BCE_BRIDGE_ISA names one that this machine or build has not. */
bce_status bce_current_run(bce_run **run, char *message);

/* Evaluate all elements of the plan, their sum in *sum, on as many threads as bce_set_num_threads allows and their number is
   worth; false if interrupted. */
bool bce_run_on_threads(bce_run *run, const bce_plan *plan, bce_sum *sum);

/* Write the text, made as printf makes it, to message unless that is NULL; return status. */
bce_status bce_fail(char *message, bce_status status, const char *format, ...);

/* Loss and gradient for w = p = 1 and finite operands, each rounded to odd: rounding them to float32 rounds once. complement is
   NULL, or what to take for 1 - y. */
void bce_accurate(double x, double y, const double *complement, double *loss, double *gradient);

/* coefficient e^-a, rounded as one number, for a finite a >= 0: where e^-a alone is subnormal or 0 the product need not be. */
double bce_times_exp_minus(double coefficient, double a);

/* Round a number once to dtype, which is floating. */
void bce_store_number(bce_dtype dtype, double number, void *result);

/* Add a finite number, leaving carries to bce_partial_normalize, which is due after at most 2^30 of them. */
void bce_partial_deposit(bce_partial *partial, double number);
void bce_partial_normalize(bce_partial *partial);

#endif
