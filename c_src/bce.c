/* The entry point: validate, lay out, dispatch. */

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "bce_internal.h"

static const char *const operand_names[BCE_OPERANDS] = {"logits", "targets", "weight", "pos_weight"};
static const char *const result_names[BCE_RESULTS] = {"loss",      "gradient", "curvature",
                                                      "d_targets", "d_weight", "d_pos_weight"};
static const char *const dtype_names[] = {"float64", "float32", "float16", "bfloat16", "int64",
                                          "int32",   "int16",   "int8",    "uint8",    "bool"};

bce_status bce_fail(char *message, bce_status status, const char *format, ...)
{
    if (message != NULL) {
        va_list values;
        va_start(values, format);
        vsnprintf(message, BCE_MESSAGE_SIZE, format, values);
        va_end(values);
    }
    return status;
}

/* A shape, printed like a Python tuple. */
typedef char shape_text[160];

static const char *format_shape(shape_text text, int ndim, const int64_t *shape)
{
    size_t used = 0, room = sizeof(shape_text);
    used += (size_t)snprintf(text, room, "(");
    for (int d = 0; d < ndim; d++) {
        if (used + 32 > room) {
            snprintf(text + used, room - used, "...)");
            return text;
        }
        used += (size_t)snprintf(text + used, room - used, d > 0 ? ", %" PRId64 : "%" PRId64, shape[d]);
    }
    snprintf(text + used, room - used, ndim == 1 ? ",)" : ")");
    return text;
}

static bool is_floating(bce_dtype dtype)
{
    return dtype >= BCE_FLOAT64 && dtype <= BCE_BFLOAT16;
}

static bce_status check_array(const char *name, const bce_array *array, bool floating, char *message)
{
    if (array->ndim < 0 || array->ndim > BCE_MAX_DIMENSIONS)
        return bce_fail(message, BCE_ERROR_SHAPE, "%s must have 0 to %d dimensions, got %d", name, BCE_MAX_DIMENSIONS,
                        array->ndim);
    if (array->ndim > 0 && (array->shape == NULL || array->strides == NULL))
        return bce_fail(message, BCE_ERROR_ARGUMENT, "%s must have a shape and strides, got NULL", name);
    if ((int)array->dtype < BCE_FLOAT64 || array->dtype > BCE_BOOL)
        return bce_fail(message, BCE_ERROR_DTYPE, "%s must have a dtype of bce_dtype, got %d", name, (int)array->dtype);
    if (floating && !is_floating(array->dtype))
        return bce_fail(message, BCE_ERROR_DTYPE, "%s must have dtype float64, float32, float16 or bfloat16, got %s", name,
                        dtype_names[array->dtype]);
    shape_text got;
    int64_t count = 1;
    bool empty = false;
    for (int d = 0; d < array->ndim; d++) {
        if (array->shape[d] < 0)
            return bce_fail(message, BCE_ERROR_SHAPE, "%s must have sizes of 0 or more, got %" PRId64, name, array->shape[d]);
        empty |= array->shape[d] == 0;
    }
    for (int d = 0; d < array->ndim && !empty; d++) {
        if (count > INT64_MAX / 8 / array->shape[d])
            return bce_fail(message, BCE_ERROR_SHAPE, "%s must have a shape that fits in memory, got shape %s", name,
                            format_shape(got, array->ndim, array->shape));
        count *= array->shape[d];
    }
    if (array->data == NULL && !empty)
        return bce_fail(message, BCE_ERROR_ARGUMENT, "%s must have data, got NULL", name);
    return BCE_OK;
}

static int64_t element_count(const bce_array *array)
{
    int64_t count = 1;
    for (int d = 0; d < array->ndim; d++)
        if (array->shape[d] == 0)
            return 0;
    for (int d = 0; d < array->ndim; d++)
        count *= array->shape[d];
    return count;
}

static bool same_shape(const bce_array *a, const bce_array *b)
{
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++)
        same = a->shape[d] == b->shape[d];
    return same;
}

static bce_status check_same_shape(const char *name, const bce_array *array, const bce_array *logits, char *message)
{
    shape_text got, want;
    if (!same_shape(array, logits))
        return bce_fail(message, BCE_ERROR_SHAPE, "%s must have the logits' shape %s, got shape %s", name,
                        format_shape(want, logits->ndim, logits->shape), format_shape(got, array->ndim, array->shape));
    return BCE_OK;
}

/* The dimension of array that broadcasts against dimension d of the logits, or -1. */
static int aligned(const bce_array *array, const bce_array *logits, int d)
{
    int k = d - (logits->ndim - array->ndim);
    return k < 0 ? -1 : k;
}

static bce_status check_broadcast(const char *name, const bce_array *array, const bce_array *logits, char *message)
{
    shape_text got, want;
    bool fits = array->ndim <= logits->ndim;
    for (int d = 0; d < logits->ndim; d++) {
        int k = aligned(array, logits, d);
        fits &= k < 0 || array->shape[k] == 1 || array->shape[k] == logits->shape[d];
    }
    if (fits)
        return BCE_OK;
    return bce_fail(message, BCE_ERROR_SHAPE, "%s must broadcast to the logits' shape %s, got shape %s", name,
                    format_shape(want, logits->ndim, logits->shape), format_shape(got, array->ndim, array->shape));
}

/* The logits' dimensions of size other than 1, longest stride first. In this order, that of memory, a Fortran-ordered array is
   walked as fast as a C-ordered one. */
static int memory_order(const bce_array *logits, int order[BCE_MAX_DIMENSIONS])
{
    int n = 0;
    for (int d = 0; d < logits->ndim; d++) {
        if (logits->shape[d] == 1)
            continue;
        int64_t stride = logits->strides[d];
        uint64_t reach = stride < 0 ? -(uint64_t)stride : (uint64_t)stride;
        int at = n++;
        for (; at > 0; at--) {
            int64_t other = logits->strides[order[at - 1]];
            if ((other < 0 ? -(uint64_t)other : (uint64_t)other) >= reach)
                break;
            order[at] = order[at - 1];
        }
        order[at] = d;
    }
    return n;
}

static void lay_out(bce_view *view, const bce_array *array, const bce_array *logits, int n, const int *order)
{
    view->data = array->data;
    view->dtype = array->dtype;
    view->ndim = 0;
    for (int i = 0; i < n; i++) {
        int64_t size = logits->shape[order[i]];
        int k = aligned(array, logits, order[i]);
        int64_t stride = k < 0 || array->shape[k] == 1 ? 0 : array->strides[k];
        int last = view->ndim - 1;
        if (view->ndim > 0 && view->strides[last] == size * stride) {
            view->shape[last] *= size;
            view->strides[last] = stride;
        } else {
            view->shape[view->ndim] = size;
            view->strides[view->ndim] = stride;
            view->ndim++;
        }
    }
    if (view->ndim == 0) {
        view->shape[0] = 1;
        view->strides[0] = 0;
        view->ndim = 1;
    }
}

/* Near-tie test of the sum or mean: whether the quick error cannot flip its rounding to dtype. */
static bool is_settled(const bce_sum *sum, bce_reduction reduction, int64_t count, bce_dtype dtype)
{
    double number, divisor = reduction == BCE_MEAN ? (double)count : 1.0;
    bce_partial_round(&sum->partial, BCE_SUM, BCE_FLOAT64, &number);
    number /= divisor;
    double error = 1.125 * BCE_QUICK_ERROR * sum->quick / divisor;
    error += 2 * DBL_EPSILON * fabs(number);
    uint32_t ends[2] = {0, 0};
    bce_store_number(dtype, number - error, &ends[0]);
    bce_store_number(dtype, number + error, &ends[1]);
    return ends[0] == ends[1];
}

/* One call: the caller's arrays, indexed as in the plan, NULL if absent. */
typedef struct {
    const bce_array *operands[BCE_OPERANDS], *results[BCE_RESULTS];
    bce_reduction reduction;
    int64_t count;  /* the mean's divisor */
} bce_call;

static bce_status check(const bce_arguments *arguments, const bce_call *call, char *message)
{
    const bce_array *logits = call->operands[BCE_LOGITS];
    const bool elementwise = call->reduction == BCE_NONE;
    bce_status status;
    if ((int)call->reduction < BCE_NONE || call->reduction > BCE_SUM)
        return bce_fail(message, BCE_ERROR_ARGUMENT, "reduction must be BCE_NONE, BCE_MEAN or BCE_SUM, got %d",
                        (int)call->reduction);
    if (!(arguments->label_smoothing >= 0.0 && arguments->label_smoothing <= 1.0))
        return bce_fail(message, BCE_ERROR_ARGUMENT, "label_smoothing must be a number in [0, 1], got %g",
                        arguments->label_smoothing);
    if (arguments->count < 0)
        return bce_fail(message, BCE_ERROR_ARGUMENT, "count must be 0 or more, got %" PRId64, arguments->count);
    for (int k = 0; k < BCE_OPERANDS; k++)
        if (call->operands[k] != NULL && (status = check_array(operand_names[k], call->operands[k], k == BCE_LOGITS, message)))
            return status;
    if ((status = check_same_shape("targets", call->operands[BCE_TARGETS], logits, message)))
        return status;
    for (int k = BCE_WEIGHT; k <= BCE_POS_WEIGHT; k++)
        if (call->operands[k] != NULL && (status = check_broadcast(operand_names[k], call->operands[k], logits, message)))
            return status;
    for (int k = 0; k < BCE_RESULTS; k++) {
        const bce_array *result = call->results[k];
        if (result == NULL)
            continue;
        if ((status = check_array(result_names[k], result, true, message)))
            return status;
        if (k == BCE_LOSS && !elementwise) {
            shape_text got;
            if (result->ndim != 0)
                return bce_fail(message, BCE_ERROR_SHAPE, "loss must be 0-d under this reduction, got shape %s",
                                format_shape(got, result->ndim, result->shape));
        } else if ((status = check_same_shape(result_names[k], result, logits, message))) {
            return status;
        }
    }
    return BCE_OK;
}

/* The plan's counts, divisor and views. */
static void lay_out_all(bce_plan *plan, const bce_call *call)
{
    const bce_array *logits = call->operands[BCE_LOGITS];
    int order[BCE_MAX_DIMENSIONS];
    plan->count = element_count(logits);
    /* An empty array is laid out without dimensions: the product of its other sizes may overflow. */
    int n = plan->count > 0 ? memory_order(logits, order) : 0;
    plan->divisor = call->reduction == BCE_MEAN && call->count > 0 ? (double)call->count : 1.0;
    for (int k = 0; k < BCE_OPERANDS; k++) {
        plan->present[k] = call->operands[k] != NULL;
        if (plan->present[k])
            lay_out(&plan->operands[k], call->operands[k], logits, n, order);
    }
    for (int k = 0; k < BCE_RESULTS; k++) {
        plan->wanted[k] = call->results[k] != NULL && (k != BCE_LOSS || call->reduction == BCE_NONE);
        if (plan->wanted[k])
            lay_out(&plan->results[k], call->results[k], logits, n, order);
    }
}

/* Choose between the quick formulae and those in float64, and for the latter where double-double must correct them (tails,
   settle). partial: whether the caller wants the partial sum. */
static void choose_formulae(bce_plan *plan, const bce_call *call, bool partial)
{
    const bool weighted = plan->present[BCE_WEIGHT] || plan->present[BCE_POS_WEIGHT];
    bool wide = partial;
    for (int k = 0; k < BCE_RESULTS; k++)
        wide |= call->results[k] != NULL && call->results[k]->dtype == BCE_FLOAT64;

    plan->sigmoids = BCE_SIGMOIDS_NONE;
    for (int k = BCE_GRADIENT; k <= BCE_CURVATURE; k++)
        if (plan->wanted[k] && plan->sigmoids != BCE_SIGMOIDS_WIDE)
            plan->sigmoids =
                k == BCE_CURVATURE || call->results[k]->dtype == BCE_FLOAT64 ? BCE_SIGMOIDS_WIDE : BCE_SIGMOIDS_NARROW;

    for (int k = 0; k < BCE_RESULTS; k++)
        plan->settle[k] = plan->wanted[k] && k <= BCE_GRADIENT && call->results[k]->dtype == BCE_FLOAT32 &&
                          plan->divisor == 1.0 && !weighted;

    /* A float64 weight may lift e^-|x| into any result's range, and an infinite one makes 0 of it NaN. */
    plan->tails = false;
    for (int k = BCE_WEIGHT; k <= BCE_POS_WEIGHT; k++)
        plan->tails |= plan->present[k] && (wide || is_floating(call->operands[k]->dtype));

    /* A quick sum may need a second pass, so quick is off when a result overwrites an operand. */
    plan->quick = !wide;
    for (int k = BCE_LOGITS; k <= BCE_TARGETS; k++)
        plan->quick &= call->operands[k]->dtype != BCE_FLOAT64;
    for (int k = 0; k < BCE_RESULTS; k++) {
        if (call->results[k] == NULL)
            continue;
        plan->quick &= k <= BCE_GRADIENT;
        for (int o = 0; o < BCE_OPERANDS; o++)
            plan->quick &= call->operands[o] == NULL || call->operands[o]->data != call->results[k]->data;
    }
}

bce_status bce_evaluate(const bce_arguments *arguments, const bce_results *results, char *message)
{
    if (arguments == NULL || results == NULL)
        return bce_fail(message, BCE_ERROR_ARGUMENT, "%s must not be NULL", arguments == NULL ? "arguments" : "results");
    bce_call call = {
        {&arguments->logits, &arguments->targets, arguments->weight, arguments->pos_weight},
        {results->loss, results->gradient, results->curvature, results->d_targets, results->d_weight, results->d_pos_weight},
        arguments->reduction,
        arguments->count,
    };
    const bool reduced = results->loss != NULL && call.reduction != BCE_NONE;
    bce_run *run;
    bce_plan plan;
    bce_status status;
    if ((status = check(arguments, &call, message)) || (status = bce_current_run(&run, message)))
        return status;

    if (call.count == 0)
        call.count = element_count(&arguments->logits);
    plan.label_smoothing = arguments->label_smoothing;
    plan.interrupted = arguments->interrupted;
    plan.interrupted_argument = arguments->interrupted_argument;
    plan.sum = results->partial != NULL || reduced;
    lay_out_all(&plan, &call);
    choose_formulae(&plan, &call, results->partial != NULL);

    bce_sum sum;
    memset(&sum, 0, sizeof sum);
    bool anything = plan.sum;
    for (int k = 0; k < BCE_RESULTS; k++)
        anything |= plan.wanted[k];
    if (plan.count > 0 && anything && !bce_run_on_threads(run, &plan, &sum))
        return bce_fail(message, BCE_INTERRUPTED, "interrupted");
    if (sum.quick > 0.0 && plan.sum && !is_settled(&sum, call.reduction, call.count, results->loss->dtype)) {
        plan.quick = false;
        memset(plan.wanted, 0, sizeof plan.wanted);
        if (!bce_run_on_threads(run, &plan, &sum))
            return bce_fail(message, BCE_INTERRUPTED, "interrupted");
    }
    if (results->partial != NULL)
        bce_partial_merge(results->partial, &sum.partial);
    sum.partial.count = call.count;
    if (reduced)
        return bce_partial_round(&sum.partial, call.reduction, results->loss->dtype, results->loss->data);
    return BCE_OK;
}
