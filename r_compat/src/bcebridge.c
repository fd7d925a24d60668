/* .Call entry points: R vectors to arrays of the C core, and back. */

#define R_NO_REMAP
#define STRICT_R_HEADERS

#include <stdbool.h>
#include <string.h>

#include <R.h>
#include <Rinternals.h>
#include <R_ext/Rdynload.h>
#include <R_ext/Visibility.h>

#include "bce.h"

static void describe_data(SEXP x, bce_array *array)
{
    switch (TYPEOF(x)) {
    case REALSXP:
        array->data = (void *)REAL_RO(x);
        array->dtype = BCE_FLOAT64;
        break;
    case INTSXP:
        array->data = (void *)INTEGER_RO(x);
        array->dtype = BCE_INT32;
        break;
    case LGLSXP:
        array->data = (void *)LOGICAL_RO(x);
        array->dtype = BCE_INT32;
        break;
    default:
        Rf_error("an operand is of type %s, wants double, integer or logical", Rf_type2char(TYPEOF(x)));
    }
}

/* x where it lies: R's arrays are column-major, and a vector without dim has one dimension. */
static bce_array array_of(SEXP x)
{
    bce_array array;
    describe_data(x, &array);
    SEXP dim = Rf_getAttrib(x, R_DimSymbol);
    array.ndim = dim == R_NilValue ? 1 : LENGTH(dim);
    int64_t *shape = (int64_t *)R_alloc((size_t)array.ndim, sizeof(int64_t));
    int64_t *strides = (int64_t *)R_alloc((size_t)array.ndim, sizeof(int64_t));
    int64_t stride = TYPEOF(x) == REALSXP ? sizeof(double) : sizeof(int);
    for (int d = 0; d < array.ndim; d++) {
        shape[d] = dim == R_NilValue ? (int64_t)XLENGTH(x) : INTEGER(dim)[d];
        strides[d] = stride;
        stride *= shape[d];
    }
    array.shape = shape;
    array.strides = strides;
    return array;
}

/* A double vector with the dim, and the dimnames or names, of x. */
static SEXP alloc_like(SEXP x)
{
    SEXP result = PROTECT(Rf_allocVector(REALSXP, XLENGTH(x)));
    SEXP dim = Rf_getAttrib(x, R_DimSymbol);
    if (dim == R_NilValue) {
        Rf_setAttrib(result, R_NamesSymbol, Rf_getAttrib(x, R_NamesSymbol));
    } else {
        Rf_setAttrib(result, R_DimSymbol, dim);
        Rf_setAttrib(result, R_DimNamesSymbol, Rf_getAttrib(x, R_DimNamesSymbol));
    }
    UNPROTECT(1);
    return result;
}

static bce_reduction reduction_of(SEXP name)
{
    const char *text = CHAR(Rf_asChar(name));
    return strcmp(text, "none") == 0 ? BCE_NONE : strcmp(text, "sum") == 0 ? BCE_SUM : BCE_MEAN;
}

/* The operands where they lie, of a loss to be reduced by reduction. */
typedef struct {
    bce_arguments arguments;
    bce_array weight, pos_weight;
} operands;

static const bce_arguments *describe(operands *o, SEXP input, SEXP target, SEXP weight, SEXP pos_weight,
                                     bce_reduction reduction)
{
    memset(o, 0, sizeof *o);
    o->arguments.logits = array_of(input);
    o->arguments.targets = array_of(target);
    o->arguments.reduction = reduction;
    if (weight != R_NilValue) {
        o->weight = array_of(weight);
        o->arguments.weight = &o->weight;
    }
    if (pos_weight != R_NilValue) {
        o->pos_weight = array_of(pos_weight);
        o->arguments.pos_weight = &o->pos_weight;
    }
    return &o->arguments;
}

/* The loss, with the gradient as an attribute where it is wanted; or the core's message, a string, where it refuses. */
static SEXP evaluate(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP reduction, SEXP gradient)
{
    operands o;
    const bce_arguments *arguments = describe(&o, input, target, weight, pos_weight, reduction_of(reduction));
    bce_array loss_array, gradient_array;
    SEXP loss = PROTECT(arguments->reduction == BCE_NONE ? alloc_like(input) : Rf_allocVector(REALSXP, 1));
    loss_array = array_of(loss);
    if (arguments->reduction != BCE_NONE)
        loss_array.ndim = 0;
    bce_results results = {.loss = &loss_array};
    SEXP derivative = PROTECT(Rf_asLogical(gradient) ? alloc_like(input) : R_NilValue);
    if (derivative != R_NilValue) {
        gradient_array = array_of(derivative);
        results.gradient = &gradient_array;
    }

    char message[BCE_MESSAGE_SIZE];
    bce_status status = bce_evaluate(arguments, &results, message);
    if (status == BCE_OK && derivative != R_NilValue)
        Rf_setAttrib(loss, Rf_install("gradient"), derivative);
    UNPROTECT(2);
    return status == BCE_OK ? loss : Rf_mkString(message);
}

/* An accumulator's state: the fields of its partial sum in order, each as the 8 bytes of an int64, the lowest first. */
#define FIELDS (BCE_PARTIAL_LIMBS + 4)
#define STATE_SIZE (8 * FIELDS)

static int64_t *field(bce_partial *partial, int i)
{
    int64_t *numbers[] = {&partial->count, &partial->nan, &partial->plus_infinity, &partial->minus_infinity};
    return i < BCE_PARTIAL_LIMBS ? &partial->limbs[i] : numbers[i - BCE_PARTIAL_LIMBS];
}

/* Whether a sum of count float64 numbers can be this, in canonical form: the last limb counts units of 2^1070. */
static bool is_state(const bce_partial *partial)
{
    int64_t last = partial->limbs[BCE_PARTIAL_LIMBS - 1], count = partial->count;
    bool fits = last >= -((int64_t)1 << 18) && last <= (int64_t)1 << 18;
    for (int i = 0; i < BCE_PARTIAL_LIMBS - 1; i++)
        fits = fits && partial->limbs[i] >= 0 && partial->limbs[i] >> 32 == 0;
    const int64_t special[] = {partial->nan, partial->plus_infinity, partial->minus_infinity};
    fits = fits && count >= 0;
    for (int i = 0; i < 3; i++) {
        fits = fits && special[i] >= 0 && special[i] <= count;
        count -= fits ? special[i] : 0;
    }
    return fits;
}

static bool partial_from(bce_partial *partial, SEXP state)
{
    if (TYPEOF(state) != RAWSXP || XLENGTH(state) != STATE_SIZE)
        return false;
    const Rbyte *bytes = RAW_RO(state);
    for (int i = 0; i < FIELDS; i++) {
        uint64_t number = 0;
        for (int b = 7; b >= 0; b--)
            number = number << 8 | bytes[8 * i + b];
        memcpy(field(partial, i), &number, sizeof number);
    }
    return is_state(partial);
}

/* For a state that R code has checked before. */
static bce_partial checked_partial(SEXP state)
{
    bce_partial partial;
    if (!partial_from(&partial, state))
        Rf_error("no accumulator's state");
    return partial;
}

static SEXP state_of(bce_partial *partial)
{
    SEXP state = Rf_allocVector(RAWSXP, STATE_SIZE);
    Rbyte *bytes = RAW(state);
    for (int i = 0; i < FIELDS; i++) {
        uint64_t number = (uint64_t)*field(partial, i);
        for (int b = 0; b < 8; b++, number >>= 8)
            bytes[8 * i + b] = (Rbyte)(number & 0xff);
    }
    return state;
}

static SEXP accumulator_is_state(SEXP state)
{
    bce_partial partial;
    return Rf_ScalarLogical(partial_from(&partial, state));
}

/* The sum of two states; or a message, a string, where their elements are too many. */
static SEXP accumulator_merge(SEXP state, SEXP other)
{
    bce_partial partial = checked_partial(state), second = checked_partial(other);
    if (partial.count > INT64_MAX - second.count)
        return Rf_mkString("the accumulators hold more than 2^63 - 1 elements");
    bce_partial_merge(&partial, &second);
    return state_of(&partial);
}

/* The state of the element losses alone; or the core's message, a string, where it refuses. */
static SEXP accumulator_part(SEXP input, SEXP target, SEXP weight, SEXP pos_weight)
{
    operands o;
    bce_partial partial;
    memset(&partial, 0, sizeof partial);
    bce_results results = {.partial = &partial};
    char message[BCE_MESSAGE_SIZE];
    bce_status status = bce_evaluate(describe(&o, input, target, weight, pos_weight, BCE_SUM), &results, message);
    return status == BCE_OK ? state_of(&partial) : Rf_mkString(message);
}

static SEXP accumulator_round(SEXP state, SEXP reduction)
{
    bce_partial partial = checked_partial(state);
    double result;
    bce_partial_round(&partial, reduction_of(reduction), BCE_FLOAT64, &result);
    return Rf_ScalarReal(result);
}

static SEXP accumulator_count(SEXP state)
{
    return Rf_ScalarReal((double)checked_partial(state).count);
}

/* The number of threads, as it was before it is set to n, unless that is NULL. */
static SEXP num_threads(SEXP n)
{
    int before = bce_get_num_threads();
    if (n != R_NilValue)
        bce_set_num_threads(Rf_asInteger(n));
    return Rf_ScalarInteger(before);
}

static SEXP max_threads(void)
{
    return Rf_ScalarInteger(BCE_MAX_THREADS);
}

static const R_CallMethodDef call_methods[] = {
    {"evaluate", (DL_FUNC)&evaluate, 6},
    {"accumulator_is_state", (DL_FUNC)&accumulator_is_state, 1},
    {"accumulator_merge", (DL_FUNC)&accumulator_merge, 2},
    {"accumulator_part", (DL_FUNC)&accumulator_part, 4},
    {"accumulator_round", (DL_FUNC)&accumulator_round, 2},
    {"accumulator_count", (DL_FUNC)&accumulator_count, 1},
    {"num_threads", (DL_FUNC)&num_threads, 1},
    {"max_threads", (DL_FUNC)&max_threads, 0},
    {NULL, NULL, 0},
};

attribute_visible void R_init_bcebridge(DllInfo *dll)
{
    R_registerRoutines(dll, NULL, call_methods, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
    R_forceSymbols(dll, TRUE);
}
