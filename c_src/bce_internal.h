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

/* The machines for which this compiler can target an instruction set inside a source file. */
#if defined(__x86_64__) && defined(__GNUC__)
#define BCE_X86_64 1
#elif defined(__aarch64__) && defined(__GNUC__)
#define BCE_AARCH64 1
#endif

enum { BCE_LOGITS, BCE_TARGETS, BCE_WEIGHT, BCE_POS_WEIGHT, BCE_OPERANDS };
enum { BCE_LOSS, BCE_GRADIENT, BCE_CURVATURE, BCE_D_TARGETS, BCE_D_WEIGHT, BCE_D_POS_WEIGHT, BCE_RESULTS };

/* An array broadcast to the logits' shape, with neighbouring dimensions merged where its own strides allow: a contiguous
   array has one dimension, a broadcast scalar one of stride 0. */
typedef struct {
    char *data;
    bce_dtype dtype;
    int ndim;
    int64_t shape[BCE_MAX_DIMENSIONS];
    int64_t strides[BCE_MAX_DIMENSIONS];
} bce_view;

/* The sigmoids needed, and their accuracy. Narrow: sigma(-|x|) only, for a gradient rounded to float32 or narrower. */
typedef enum { BCE_SIGMOIDS_NONE, BCE_SIGMOIDS_NARROW, BCE_SIGMOIDS_WIDE } bce_sigmoids_kind;

typedef struct {
    int64_t count;               /* of elements */
    bool present[BCE_OPERANDS];
    bool wanted[BCE_RESULTS];    /* the loss: elementwise, not its sum */
    bool sum;
    bce_sigmoids_kind sigmoids;
    bool settle[BCE_RESULTS];    /* float32 results promised to be correctly rounded: see bce_block_settle */
    bce_view operands[BCE_OPERANDS];
    bce_view results[BCE_RESULTS];
    bool tails;                  /* a weight could lift a subnormal e^-|x| into the range of a result */
    double label_smoothing;
    double divisor;              /* of the derivatives */
    bool quick;                  /* only loss and gradient, rounded to float32 or narrower: see choose_formulae */
    int (*interrupted)(void *);
    void *interrupted_argument;
} bce_plan;

/* The sum of the losses, and the part of it that carries the quick error. */
typedef struct {
    bce_partial partial;
    double quick;
} bce_sum;

/* Bounds on the relative error of the quick formulae: of softplus(-|x|) and of sigma, and of their sums. */
#define BCE_QUICK_TERM_ERROR 0x1p-42
#define BCE_QUICK_ERROR 0x1p-41

/* Evaluate the elements begin <= i < end and add their losses to the sum. */
typedef void bce_run(const bce_plan *plan, int64_t begin, int64_t end, bce_sum *sum);
bce_run bce_run_scalar, bce_run_avx2, bce_run_avx512, bce_run_neon;

/* The function of the instruction set in use. BCE_ERROR_ISA, with a message, if BCE_BRIDGE_ISA names one that this machine or
   build does not have. */
bce_status bce_current_run(bce_run **run, char *message);

/* Evaluate all elements of the plan, and set *sum to their sum, on as many threads as bce_set_num_threads allows and the work
   repays; false if interrupted. */
bool bce_run_on_threads(bce_run *run, const bce_plan *plan, bce_sum *sum);

/* Format as printf does into message, unless that is NULL; return status. */
bce_status bce_fail(char *message, bce_status status, const char *format, ...);

/* Loss and gradient for w = p = 1 and finite operands, each rounded to odd: rounding them to float32 is no double rounding.
   complement is 1 - y, or NULL to compute it. */
void bce_accurate(double x, double y, const double *complement, double *loss, double *gradient);

/* coefficient e^-a for a finite a >= 0, with only the product rounded: it may be normal where e^-a is subnormal or 0. */
double bce_times_exp_minus(double coefficient, double a);

/* Round a number once to dtype, a floating type. */
void bce_store_number(bce_dtype dtype, double number, void *result);

/* Add a finite number, without carries: bce_partial_normalize is due after at most 2^30 of these. */
void bce_partial_deposit(bce_partial *partial, double number);
void bce_partial_normalize(bce_partial *partial);

#endif
