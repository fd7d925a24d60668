/* .Call entry points: R vectors to arrays of the C core, and back. */

#define R_NO_REMAP
#define STRICT_R_HEADERS

#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <R.h>
#include <Rinternals.h>
#include <R_ext/Rdynload.h>
#include <R_ext/Visibility.h>

#include "bce.h"
#include "bcebridge.h"

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
        Rf_error("an operand must be double, integer or logical, got %s", Rf_type2char(TYPEOF(x)));
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

/* New memory costs about as much as the loss, for the system clears each page at its first use: to ask for all of them at once
   takes a third of the time, and large pages less where there are any. */
static void take_memory(void *memory, size_t size)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), mask = ~(page - 1);
    uintptr_t start = ((uintptr_t)memory + page - 1) & mask, end = ((uintptr_t)memory + size) & mask;
    if (size < (size_t)1 << 16 || end <= start)
        return;
    if (end - start >= (uintptr_t)1 << 22)
        madvise((void *)start, end - start, MADV_HUGEPAGE);
    madvise((void *)start, end - start, MADV_POPULATE_WRITE);
#else
    (void)memory, (void)size;
#endif
}

/* A double vector with the dim, and the dimnames or names, of x. */
static SEXP alloc_like(SEXP x)
{
    SEXP result = PROTECT(Rf_allocVector(REALSXP, XLENGTH(x)));
    take_memory(REAL(result), (size_t)XLENGTH(result) * sizeof(double));
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

bce_reduction reduction_of(SEXP name)
{
    const char *text = CHAR(Rf_asChar(name));
    return strcmp(text, "none") == 0 ? BCE_NONE : strcmp(text, "sum") == 0 ? BCE_SUM : BCE_MEAN;
}

/* The operands where they lie, of a loss to be reduced by reduction. */
typedef struct {
    bce_arguments arguments;
    bce_array weight, pos_weight;
} operands;

static bce_arguments *describe(operands *o, SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing,
                               bce_reduction reduction)
{
    memset(o, 0, sizeof *o);
    o->arguments.logits = array_of(input);
    o->arguments.targets = array_of(target);
    o->arguments.label_smoothing = Rf_asReal(label_smoothing);
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

/* R leaves a call by longjmp, for an interrupt as for an error. That must not pass over the core, whose threads are running:
   R_UnwindProtect holds the jump in the token until the core has returned. */
typedef struct {
    SEXP token;
    jmp_buf here;
} unwinding;

static SEXP check_interrupt(void *unused)
{
    (void)unused;
    R_CheckUserInterrupt();
    return R_NilValue;
}

static void back_to_the_core(void *here, Rboolean jump)
{
    if (jump)
        longjmp(*(jmp_buf *)here, 1);
}

static int interrupted(void *argument)
{
    unwinding *u = argument;
    if (setjmp(u->here))
        return 1;
    R_UnwindProtect(check_interrupt, NULL, back_to_the_core, &u->here, u->token);
    return 0;
}

bce_status compute_until_interrupted(bce_arguments *arguments, const bce_results *results, SEXP token, char *message)
{
    unwinding u = {.token = token};
    arguments->interrupted = interrupted;
    arguments->interrupted_argument = &u;
    return bce_evaluate(arguments, results, message);
}

static bce_status compute(bce_arguments *arguments, const bce_results *results, char *message)
{
    SEXP token = PROTECT(R_MakeUnwindCont());
    bce_status status = compute_until_interrupted(arguments, results, token, message);
    if (status == BCE_INTERRUPTED)
        R_ContinueUnwind(token);
    UNPROTECT(1);
    return status;
}

/* The array, of doubles, as one of float32 in memory that R frees when the .Call ends. */
static void narrow(bce_array *array, R_xlen_t n)
{
    int64_t *strides = (int64_t *)R_alloc((size_t)array->ndim + 1, sizeof *strides);
    for (int d = 0; d < array->ndim; d++)
        strides[d] = array->strides[d] / (int64_t)sizeof(double) * (int64_t)sizeof(float);
    array->data = R_alloc((size_t)n + 1, sizeof(float));
    array->dtype = BCE_FLOAT32;
    array->strides = strides;
}

static void widen(const bce_array *array, SEXP result)
{
    const float *numbers = array->data;
    double *doubles = REAL(result);
    for (R_xlen_t i = 0; i < XLENGTH(result); i++)
        doubles[i] = numbers[i];
}

/* The loss, with the gradient as an attribute where that is wanted, rounded to float32 if that is; or the core's message, a
   string, where it refuses. */
static SEXP loss(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing, SEXP reduction, SEXP gradient,
                 SEXP float32)
{
    operands o;
    bce_arguments *arguments =
        describe(&o, input, target, weight, pos_weight, label_smoothing, reduction_of(reduction));
    bce_array loss_array, gradient_array;
    SEXP result = PROTECT(arguments->reduction == BCE_NONE ? alloc_like(input) : Rf_allocVector(REALSXP, 1));
    loss_array = array_of(result);
    if (arguments->reduction != BCE_NONE)
        loss_array.ndim = 0;
    bce_results results = {.loss = &loss_array};
    SEXP derivative = PROTECT(Rf_asLogical(gradient) ? alloc_like(input) : R_NilValue);
    if (derivative != R_NilValue) {
        gradient_array = array_of(derivative);
        results.gradient = &gradient_array;
    }

    if (Rf_asLogical(float32)) {
        narrow(&loss_array, XLENGTH(result));
        if (derivative != R_NilValue)
            narrow(&gradient_array, XLENGTH(derivative));
    }

    char message[BCE_MESSAGE_SIZE];
    bce_status status = compute(arguments, &results, message);
    if (status == BCE_OK && Rf_asLogical(float32)) {
        widen(&loss_array, result);
        if (derivative != R_NilValue)
            widen(&gradient_array, derivative);
    }
    if (status == BCE_OK && derivative != R_NilValue)
        Rf_setAttrib(result, Rf_install("gradient"), derivative);
    UNPROTECT(2);
    return status == BCE_OK ? result : Rf_mkString(message);
}

/* The second derivative of the loss, in input's shape; or the core's message. */
static SEXP curvature(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing, SEXP reduction)
{
    operands o;
    bce_arguments *arguments =
        describe(&o, input, target, weight, pos_weight, label_smoothing, reduction_of(reduction));
    SEXP result = PROTECT(alloc_like(input));
    bce_array array = array_of(result);
    bce_results results = {.curvature = &array};
    char message[BCE_MESSAGE_SIZE];
    bce_status status = compute(arguments, &results, message);
    UNPROTECT(1);
    return status == BCE_OK ? result : Rf_mkString(message);
}

/* An accumulator's state: the fields of its partial sum in order, each as the 8 bytes of an int64, the lowest first. */
#define FIELDS (BCE_PARTIAL_LIMBS + 4)
#define STATE_SIZE (8 * FIELDS)

static int64_t *field(bce_partial *partial, int i)
{
    int64_t *numbers[] = {&partial->count, &partial->nan, &partial->plus_infinity, &partial->minus_infinity};
    return i < BCE_PARTIAL_LIMBS ? &partial->limbs[i] : numbers[i - BCE_PARTIAL_LIMBS];
}

/* Whether a sum of as many finite numbers can be this. Each is at most (2^53 - 1) 2^971, which is (2^53 - 1) 2^2045 units;
   so the units over 2^2045, rounded up, are counted. Of the last limb 18 bits are in use at most, and 117 bits of what is
   counted. */
static bool is_sum_of(uint64_t finite, const bce_partial *partial)
{
    const int first = 2045 / 32, shift = 2045 % 32, last = BCE_PARTIAL_LIMBS - 1;
    const bool negative = partial->limbs[last] < 0;
    uint64_t carry = negative, high = 0, low = 0, rest = 0;
    for (int i = 0; i <= last; i++) {
        uint64_t digit = ((uint64_t)(negative ? ~partial->limbs[i] : partial->limbs[i]) & 0xffffffff) + carry;
        int at = 32 * (i - first) - shift;
        carry = digit >> 32;
        digit &= 0xffffffff;
        if (at < 0) {
            rest |= i < first ? digit : digit << (64 - shift);
            low |= i < first ? 0 : digit >> shift;
        } else if (at < 64) {
            low |= digit << at;
            high |= at > 32 ? digit >> (64 - at) : 0;
        } else {
            high |= digit << (at - 64);
        }
    }
    low += rest != 0;
    high += rest != 0 && low == 0;
    uint64_t most_low = (finite << 53) - finite, most_high = (finite >> 11) - ((finite << 53) < finite);
    return high < most_high || (high == most_high && low <= most_low);
}

/* Whether count float64 numbers can have this sum, in canonical form: the last limb counts units of 2^1070. */
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
    return fits && is_sum_of((uint64_t)count, partial);
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
        Rf_error("state must be an accumulator's");
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
        return Rf_mkString("count must be at most 2^63 - 1, got more in both accumulators");
    bce_partial_merge(&partial, &second);
    return state_of(&partial);
}

/* The state of the element losses alone; or the core's message, a string, where it refuses. */
static SEXP accumulator_part(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing)
{
    operands o;
    bce_partial partial;
    memset(&partial, 0, sizeof partial);
    bce_results results = {.partial = &partial};
    char message[BCE_MESSAGE_SIZE];
    bce_status status =
        compute(describe(&o, input, target, weight, pos_weight, label_smoothing, BCE_SUM), &results, message);
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

/* list(the core's version, the instruction set in use); or the core's message, a string. */
static SEXP build_info(void)
{
    const char *isa;
    char message[BCE_MESSAGE_SIZE];
    if (bce_get_isa(&isa, message) != BCE_OK)
        return Rf_mkString(message);
    SEXP info = PROTECT(Rf_allocVector(VECSXP, 2));
    SET_VECTOR_ELT(info, 0, Rf_mkString(BCE_VERSION));
    SET_VECTOR_ELT(info, 1, Rf_mkString(isa));
    UNPROTECT(1);
    return info;
}

/* R torch's tensors, each as list(tensor, address, dtype, shape, strides) in R: what is in that list stays alive while the core
   runs. The address is text, as R torch gives it; strides are in elements, or NULL for a contiguous tensor. */
static bce_array tensor_of(SEXP described)
{
    static const struct {
        const char *name;
        bce_dtype dtype;
        int64_t size;
    } dtypes[] = {{"Float", BCE_FLOAT32, 4}, {"Double", BCE_FLOAT64, 8},    {"Half", BCE_FLOAT16, 2}, {"Long", BCE_INT64, 8},
                  {"Int", BCE_INT32, 4},     {"BFloat16", BCE_BFLOAT16, 2}, {"Short", BCE_INT16, 2},  {"Char", BCE_INT8, 1},
                  {"Byte", BCE_UINT8, 1},    {"Bool", BCE_BOOL, 1}};
    const char *name = CHAR(Rf_asChar(VECTOR_ELT(described, 2)));
    size_t which = 0;
    while (which < sizeof dtypes / sizeof *dtypes && strcmp(dtypes[which].name, name) != 0)
        which++;
    if (which == sizeof dtypes / sizeof *dtypes)
        Rf_error("a tensor must have a dtype that the core reads, got %s", name);
    SEXP sizes = VECTOR_ELT(described, 3), steps = VECTOR_ELT(described, 4);
    bce_array array = {.data = (void *)(uintptr_t)strtoull(CHAR(Rf_asChar(VECTOR_ELT(described, 1))), NULL, 16),
                       .dtype = dtypes[which].dtype,
                       .ndim = LENGTH(sizes)};
    int64_t *shape = (int64_t *)R_alloc((size_t)array.ndim, sizeof(int64_t));
    int64_t *strides = (int64_t *)R_alloc((size_t)array.ndim, sizeof(int64_t));
    int64_t step = 1;
    for (int d = array.ndim - 1; d >= 0; d--) {
        shape[d] = (int64_t)REAL(sizes)[d];
        strides[d] = (steps == R_NilValue ? step : (int64_t)REAL(steps)[d]) * dtypes[which].size;
        step *= shape[d];
    }
    array.shape = shape;
    array.strides = strides;
    return array;
}

/* Compute into the tensors of results, which is list(loss, gradient, d_targets, d_weight, d_pos_weight), NULL for what is not
   wanted, from those of operands, list(input, target, weight, pos_weight). Returns NULL, or the core's message. */
static SEXP tensors(SEXP operands, SEXP label_smoothing, SEXP reduction, SEXP results)
{
    bce_array arrays[9];
    const bce_array *given[9] = {NULL};
    for (int i = 0; i < 9; i++) {
        SEXP described = i < 4 ? VECTOR_ELT(operands, i) : VECTOR_ELT(results, i - 4);
        if (described != R_NilValue) {
            arrays[i] = tensor_of(described);
            given[i] = &arrays[i];
        }
    }
    bce_arguments arguments = {.logits = arrays[0],
                               .targets = arrays[1],
                               .weight = given[2],
                               .pos_weight = given[3],
                               .label_smoothing = Rf_asReal(label_smoothing),
                               .reduction = reduction_of(reduction)};
    bce_results wanted = {.loss = given[4],
                          .gradient = given[5],
                          .d_targets = given[6],
                          .d_weight = given[7],
                          .d_pos_weight = given[8]};
    char message[BCE_MESSAGE_SIZE];
    return compute(&arguments, &wanted, message) == BCE_OK ? R_NilValue : Rf_mkString(message);
}

static const R_CallMethodDef call_methods[] = {
    {"loss", (DL_FUNC)&loss, 8},
    {"curvature", (DL_FUNC)&curvature, 6},
    {"tensors", (DL_FUNC)&tensors, 4},
    {"accumulator_is_state", (DL_FUNC)&accumulator_is_state, 1},
    {"accumulator_merge", (DL_FUNC)&accumulator_merge, 2},
    {"accumulator_part", (DL_FUNC)&accumulator_part, 5},
    {"accumulator_round", (DL_FUNC)&accumulator_round, 2},
    {"accumulator_count", (DL_FUNC)&accumulator_count, 1},
    {"num_threads", (DL_FUNC)&num_threads, 1},
    {"max_threads", (DL_FUNC)&max_threads, 0},
    {"build_info", (DL_FUNC)&build_info, 0},
    {"lantern_names", (DL_FUNC)&lantern_names, 0},
    {"lantern_open", (DL_FUNC)&lantern_open, 2},
    {"lantern_loss", (DL_FUNC)&lantern_loss, 7},
    {"lantern_set_callback", (DL_FUNC)&lantern_set_callback, 1},
    {"lantern_request", (DL_FUNC)&lantern_request, 0},
    {"lantern_reply", (DL_FUNC)&lantern_reply, 1},
    {NULL, NULL, 0},
};

attribute_visible void R_init_bcebridge(DllInfo *dll)
{
    R_registerRoutines(dll, NULL, call_methods, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
    R_forceSymbols(dll, TRUE);
}
