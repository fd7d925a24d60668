/* .Call entry points: R vectors to arrays of the C core, and back. */

#define R_NO_REMAP
#define STRICT_R_HEADERS

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

/* The loss, with the gradient as an attribute where it is wanted; or the core's message, a string, where it refuses. */
static SEXP evaluate(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP reduction, SEXP gradient)
{
    bce_arguments arguments = {.reduction = reduction_of(reduction)};
    bce_array weight_array, pos_weight_array, loss_array, gradient_array;
    arguments.logits = array_of(input);
    arguments.targets = array_of(target);
    if (weight != R_NilValue) {
        weight_array = array_of(weight);
        arguments.weight = &weight_array;
    }
    if (pos_weight != R_NilValue) {
        pos_weight_array = array_of(pos_weight);
        arguments.pos_weight = &pos_weight_array;
    }

    SEXP loss = PROTECT(arguments.reduction == BCE_NONE ? alloc_like(input) : Rf_allocVector(REALSXP, 1));
    loss_array = array_of(loss);
    if (arguments.reduction != BCE_NONE)
        loss_array.ndim = 0;
    bce_results results = {.loss = &loss_array};
    SEXP derivative = PROTECT(Rf_asLogical(gradient) ? alloc_like(input) : R_NilValue);
    if (derivative != R_NilValue) {
        gradient_array = array_of(derivative);
        results.gradient = &gradient_array;
    }

    char message[BCE_MESSAGE_SIZE];
    bce_status status = bce_evaluate(&arguments, &results, message);
    if (status == BCE_OK && derivative != R_NilValue)
        Rf_setAttrib(loss, Rf_install("gradient"), derivative);
    UNPROTECT(2);
    return status == BCE_OK ? loss : Rf_mkString(message);
}

static const R_CallMethodDef call_methods[] = {
    {"evaluate", (DL_FUNC)&evaluate, 6},
    {NULL, NULL, 0},
};

attribute_visible void R_init_bcebridge(DllInfo *dll)
{
    R_registerRoutines(dll, NULL, call_methods, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
    R_forceSymbols(dll, TRUE);
}
