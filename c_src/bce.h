/* bce.h - binary cross entropy with logits: the public C API, all that a binding may include.

   For logit x, target y, weight w, positive-class weight p (w = p = 1 where none is given):

       loss       l       =  w [ (1 - y) log(1 + e^x) + p y log(1 + e^-x) ]
       gradient   dl/dx   =  w [ (1 - y) sigma(x) - p y sigma(-x) ],    sigma(x) = 1 / (1 + e^-x)
       curvature  d2l/dx2 =  w (1 - y + p y) sigma(x) sigma(-x)
       dl/dy = w [ p log(1 + e^-x) - log(1 + e^x) ],    dl/dw = l / w,    dl/dp = w y log(1 + e^-x)

   Arithmetic is float64 throughout; each result is rounded once to its array's type. A zero coefficient silences its term,
   even at an infinite logit; NaN in any operand gives NaN. A sum is the correctly rounded sum of the float64 element losses,
   a mean that exact sum divided by the number of elements and rounded once, so neither depends on the order of the elements.

   The only global state is the instruction set and the number of threads. Every function is thread-safe, returns a
   bce_status where it can fail, and neither prints nor aborts. */

#ifndef BCE_H
#define BCE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BCE_VERSION "0.1.0"
#define BCE_MAX_DIMENSIONS 64
#define BCE_MESSAGE_SIZE 512
#define BCE_MAX_THREADS 1024
#define BCE_PARTIAL_LIMBS 68

typedef enum {
    BCE_OK = 0,
    BCE_ERROR_ARGUMENT,  /* a null pointer, an unknown enumerator, a number out of its range */
    BCE_ERROR_DTYPE,     /* an element type that this operand or result cannot have */
    BCE_ERROR_SHAPE,     /* shapes that differ, do not broadcast, or hold more than (2^63 - 1) / 8 elements */
    BCE_ERROR_ISA,       /* an instruction set that this machine or this build does not have */
    BCE_INTERRUPTED      /* the caller's function asked for it: the results are undefined */
} bce_status;

typedef enum {
    BCE_FLOAT64, BCE_FLOAT32, BCE_FLOAT16, BCE_BFLOAT16,                        /* operands and results */
    BCE_INT64, BCE_INT32, BCE_INT16, BCE_INT8, BCE_UINT8, BCE_BOOL              /* operands other than logits */
} bce_dtype;

typedef enum { BCE_NONE, BCE_MEAN, BCE_SUM } bce_reduction;

/* An array in the caller's memory. Strides are in bytes and may be zero or negative; data need not be aligned. */
typedef struct {
    void *data;
    bce_dtype dtype;
    int ndim;
    const int64_t *shape;
    const int64_t *strides;
} bce_array;

/* The exact sum of float64 numbers: the integer sum_i limbs[i] 2^(32 i), in units of 2^-1074, and counts of the numbers that
   are not finite. Partial sums merge by adding their fields, in any order, on any number of machines. The form is canonical
   when 0 <= limbs[i] < 2^32 for all but the last limb: then equal sums have equal bytes. Every function here leaves it so. A
   zeroed struct is the empty sum. */
typedef struct {
    int64_t limbs[BCE_PARTIAL_LIMBS];
    int64_t count;              /* all elements, finite or not */
    int64_t nan, plus_infinity, minus_infinity;
} bce_partial;

typedef struct {
    bce_array logits;             /* floating */
    bce_array targets;            /* the logits' shape; any type */
    const bce_array *weight;      /* NULL for 1; broadcasts to the logits' shape and may not enlarge it */
    const bce_array *pos_weight;  /* likewise */
    double label_smoothing;       /* e in [0, 1]: y -> y (1 - e) + e / 2; 0 for none */
    bce_reduction reduction;      /* of the loss; under BCE_MEAN the derivatives are the mean's: divided by count */
    int64_t count;                /* BCE_MEAN's divisor, for a part of a mean or several means; 0 for the number of elements */
    int (*interrupted)(void *);   /* NULL, or polled by the calling thread every few 10^5 elements: nonzero ends the call */
    void *interrupted_argument;   /* passed to interrupted */
} bce_arguments;

/* What to compute: NULL if not wanted. Floating arrays of the logits' shape; loss is 0-d under BCE_MEAN and BCE_SUM.
   A result must be an operand itself, element for element (in place), or overlap none; otherwise it is undefined. */
typedef struct {
    const bce_array *loss;
    const bce_array *gradient;        /* dl/dx */
    const bce_array *curvature;       /* d2l/dx2 */
    const bce_array *d_targets;       /* dl/dy, with respect to the targets as given, before smoothing */
    const bce_array *d_weight;        /* dl/dw of each element: the caller sums over broadcast dimensions */
    const bce_array *d_pos_weight;    /* dl/dp, likewise */
    bce_partial *partial;             /* the element losses are added to it */
} bce_results;

/* Compute results in one pass over the operands (a sum next to a tie may take a second). On any error but
   BCE_INTERRUPTED, results are untouched and message (BCE_MESSAGE_SIZE bytes, or NULL) names the argument, what it must
   be and what it got. */
bce_status bce_evaluate(const bce_arguments *arguments, const bce_results *results, char *message);

/* Add n numbers to the partial sum, and n to its count. BCE_ERROR_ARGUMENT for a null pointer. */
bce_status bce_partial_add(bce_partial *partial, const double *numbers, size_t n);

/* Add other to partial: the partial sum of both. BCE_ERROR_ARGUMENT for a null pointer. */
bce_status bce_partial_merge(bce_partial *partial, const bce_partial *other);

/* The sum, or with BCE_MEAN the sum divided by the count (NaN if that is 0), rounded once to dtype, written to result. */
bce_status bce_partial_round(const bce_partial *partial, bce_reduction reduction, bce_dtype dtype, void *result);

/* The instruction set in use: "avx512", "avx2", "neon" or "scalar"; all give the same bits. The first call that needs one takes
   it from the environment variable BCE_BRIDGE_ISA, else chooses the machine's widest. bce_set_isa sets it; NULL chooses
   the widest. */
bce_status bce_set_isa(const char *name, char *message);
bce_status bce_get_isa(const char **name, char *message);

/* bce_isa_name: the instruction sets of this build, from index 0; NULL past the last. bce_isa_supported: whether this machine
   has the one at index. */
const char *bce_isa_name(int index);
int bce_isa_supported(int index);

/* The most threads that one call uses, 1 to BCE_MAX_THREADS. n < 1 restores the default: the environment variable
   BCE_BRIDGE_NUM_THREADS if it is a positive integer, else the number of processors open to this process. Results do not
   depend on it. */
void bce_set_num_threads(int n);
int bce_get_num_threads(void);

#ifdef __cplusplus
}
#endif

#endif
