/* The loss of R torch's tensors with no call of R in it, and its gradient with none in most backward passes.

   R torch lets packages in C++ pass tensors by operator_sexp_tensor() and from_sexp_tensor(), which it registers with R. Its
   interface to libtorch is the library lantern, of C functions on pointers to objects of libtorch: they are looked up by name
   in the library that R torch has loaded. So nothing of torch is linked, or needed to compile this file. R/lantern.R opens it,
   tries it, and takes the exported functions of R torch where a name is missing or an answer is wrong. */

#define R_NO_REMAP
#define STRICT_R_HEADERS

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <R.h>
#include <Rinternals.h>
#include <R_ext/Rdynload.h>

#include "bcebridge.h"

namespace {

#define LANTERN_FUNCTIONS(X)                                                                                                   \
    X(void *, AutogradContext_get_saved_variables, (void *context))                                                            \
    X(void, AutogradContext_save_for_backward, (void *context, void *variables))                                               \
    X(void, Device_delete, (void *device))                                                                                     \
    X(const char *, Device_type, (void *device))                                                                               \
    X(void *, Dtype_bfloat16, ())                                                                                              \
    X(void *, Dtype_bool, ())                                                                                                  \
    X(void, Dtype_delete, (void *dtype))                                                                                       \
    X(void *, Dtype_float16, ())                                                                                               \
    X(void *, Dtype_float32, ())                                                                                               \
    X(void *, Dtype_float64, ())                                                                                               \
    X(void *, Dtype_int16, ())                                                                                                 \
    X(void *, Dtype_int32, ())                                                                                                 \
    X(void *, Dtype_int64, ())                                                                                                 \
    X(void *, Dtype_int8, ())                                                                                                  \
    X(void *, Dtype_uint8, ())                                                                                                 \
    X(void *, Function_apply, (void *inputs, void *forward, void *backward))                                                   \
    X(void *, Function_lambda,                                                                                                 \
      (void *(*call)(void *data, void *context, void *inputs), void *data, void (*destroy)(void *), void *(*get)(void *)))     \
    X(void, TensorOptions_delete, (void *options))                                                                             \
    X(void *, TensorOptions, ())                                                                                               \
    X(bool *, Tensor_data_ptr_bool, (void *tensor))                                                                            \
    X(void *, Tensor_data_tensor, (void *tensor))                                                                              \
    X(double *, Tensor_data_ptr_double, (void *tensor))                                                                        \
    X(int16_t *, Tensor_data_ptr_int16_t, (void *tensor))                                                                      \
    X(int32_t *, Tensor_data_ptr_int32_t, (void *tensor))                                                                      \
    X(int64_t *, Tensor_data_ptr_int64_t, (void *tensor))                                                                      \
    X(uint8_t *, Tensor_data_ptr_uint8_t, (void *tensor))                                                                      \
    X(void, Tensor_delete, (void *tensor))                                                                                     \
    X(void *, Tensor_device, (void *tensor))                                                                                   \
    X(void *, Tensor_dtype, (void *tensor))                                                                                    \
    X(bool, Tensor_has_storage, (void *tensor))                                                                                \
    X(bool, Tensor_is_contiguous, (void *tensor))                                                                              \
    X(void *, Tensor_is_neg_tensor, (void *tensor))                                                                            \
    X(void *, Tensor_mul_tensor_tensor, (void *tensor, void *other))                                                           \
    X(int64_t, Tensor_ndimension, (void *tensor))                                                                              \
    X(bool, Tensor_requires_grad, (void *tensor))                                                                              \
    X(int64_t, Tensor_size, (void *tensor, int64_t dimension))                                                                 \
    X(void *, Tensor_stride_tensor_intt, (void *tensor, void *dimension))                                                      \
    X(void *, Tensor_undefined, ())                                                                                            \
    X(void *, Tensor_view_tensor_scalartype, (void *tensor, void *dtype))                                                      \
    X(bool, amp_is_autocast_cpu_enabled, ())                                                                                   \
    X(bool, autograd_is_enabled, ())                                                                                           \
    X(void, bool_delete, (void *value))                                                                                        \
    X(bool, bool_get, (void *value))                                                                                           \
    X(void, const_char_delete, (const char *text))                                                                             \
    X(void *, empty_like_tensor_tensoroptions_memoryformat, (void *tensor, void *options, void *memory_format))                \
    X(void *, int64_t, (int64_t value))                                                                                        \
    X(void, int64_t_delete, (void *value))                                                                                     \
    X(int64_t, int64_t_get, (void *value))                                                                                     \
    X(void *, optional_memory_format, (void *memory_format))                                                                   \
    X(void, optional_memory_format_delete, (void *memory_format))                                                              \
    X(void, variable_list_delete, (void *list))                                                                                \
    X(void *, variable_list_get, (void *list, int64_t i))                                                                      \
    X(void *, variable_list_new, ())                                                                                           \
    X(void, variable_list_push_back, (void *list, void *tensor))                                                               \
    X(int64_t, variable_list_size, (void *list))

/* The message of a function that has failed, which has then returned 0; R torch's next function raises it. */
#define LANTERN_ERRORS(X)                                                                                                      \
    X(const char *, LastError, ())                                                                                             \
    X(void, LastErrorClear, ())

#define NAME(type, name, parameters) "_lantern_" #name,
#define ERROR_NAME(type, name, parameters) "lantern" #name,
#define VARIABLE(type, name, parameters) type(*lantern_##name) parameters;

const char *const names[] = {LANTERN_FUNCTIONS(NAME) LANTERN_ERRORS(ERROR_NAME)};
const int number_of_names = sizeof names / sizeof *names;

LANTERN_FUNCTIONS(VARIABLE)
LANTERN_ERRORS(VARIABLE)

/* As R torch passes tensors: its class XPtrTorchTensor is this pointer, to a tensor of libtorch. */
struct handle {
    std::shared_ptr<void> tensor;
};

SEXP (*to_r)(const handle *);
handle (*from_r)(SEXP);

template <class F> void take(F &function, DL_FUNC address)
{
    std::memcpy(&function, &address, sizeof function);
}

/* An object of lantern, to be deleted by that function. */
typedef std::unique_ptr<void, void (*)(void *)> object;

struct dtype {
    bce_dtype core;
    int64_t size;
    bool is_floating;
    signed char code; /* what libtorch's enumeration calls it */
};

enum { FLOAT32, FLOAT64, FLOAT16, BFLOAT16, INT64, INT32, INT16, INT8, UINT8, BOOL, DTYPES };

dtype dtypes[DTYPES] = {{BCE_FLOAT32, 4, true, 0},  {BCE_FLOAT64, 8, true, 0}, {BCE_FLOAT16, 2, true, 0},
                        {BCE_BFLOAT16, 2, true, 0}, {BCE_INT64, 8, false, 0},  {BCE_INT32, 4, false, 0},
                        {BCE_INT16, 2, false, 0},   {BCE_INT8, 1, false, 0},   {BCE_UINT8, 1, false, 0},
                        {BCE_BOOL, 1, false, 0}};

signed char code_of(void *lantern_dtype)
{
    object owned(lantern_dtype, lantern_Dtype_delete);
    return *static_cast<signed char *>(lantern_dtype);
}

/* Made by R torch: tensors without dimensions of each floating dtype, in the order above; and one of doubles for settings. */
handle scalars[4], settings_template;

/* A loss as its backward pass needs it, which is saved as a tensor of doubles. Operands are sums of 1, 2, 4 and 8 for input,
   target, weight and pos_weight. */
struct settings {
    double reduction, label_smoothing;
    double present;
    double needs; /* a gradient */
    double given; /* whether the gradient's memory is the user's, who may change it */
};
const int SETTINGS = sizeof(settings) / sizeof(double), INPUT = 1;

/* A function of lantern has failed. */
struct failure {};

/* A tensor that the core can read. */
struct operand {
    void *tensor;
    handle owned;
    int dtype;
    bool requires_grad;
    std::vector<int64_t> shape, strides;
    bce_array array;
};

/* Where the elements begin. Tensors of the types that lantern gives no address of are viewed as integers of the same size. */
void *address_of(void *tensor, int which)
{
    int seen = which == FLOAT32                        ? INT32
               : which == FLOAT16 || which == BFLOAT16 ? INT16
               : which == INT8                         ? UINT8
                                                       : which;
    object view(nullptr, lantern_Tensor_delete);
    if (seen != which) {
        object type(seen == INT32 ? lantern_Dtype_int32() : seen == INT16 ? lantern_Dtype_int16() : lantern_Dtype_uint8(),
                    lantern_Dtype_delete);
        view.reset(lantern_Tensor_view_tensor_scalartype(tensor, type.get()));
        tensor = view.get();
        if (!tensor)
            return nullptr;
    }
    switch (seen) {
    case FLOAT64: return lantern_Tensor_data_ptr_double(tensor);
    case INT64: return lantern_Tensor_data_ptr_int64_t(tensor);
    case INT32: return lantern_Tensor_data_ptr_int32_t(tensor);
    case INT16: return lantern_Tensor_data_ptr_int16_t(tensor);
    case UINT8: return lantern_Tensor_data_ptr_uint8_t(tensor);
    default: return lantern_Tensor_data_ptr_bool(tensor);
    }
}

int64_t stride_of(void *tensor, int64_t dimension)
{
    object which(lantern_int64_t(dimension), lantern_int64_t_delete);
    object stride(lantern_Tensor_stride_tensor_intt(tensor, which.get()), lantern_int64_t_delete);
    return lantern_int64_t_get(stride.get());
}

bool lies_in_cpu_memory(void *tensor)
{
    if (!lantern_Tensor_has_storage(tensor))
        return false;
    object device(lantern_Tensor_device(tensor), lantern_Device_delete);
    const char *type = lantern_Device_type(device.get());
    bool is_cpu = std::strcmp(type, "cpu") == 0;
    lantern_const_char_delete(type);
    return is_cpu;
}

/* Describe a tensor to the core. False where it cannot be read as it lies. */
bool describe(void *tensor, operand &o)
{
    o.tensor = tensor;
    if (!lies_in_cpu_memory(tensor))
        return false;
    object negated(lantern_Tensor_is_neg_tensor(tensor), lantern_bool_delete);
    signed char code = code_of(lantern_Tensor_dtype(tensor));
    for (o.dtype = 0; o.dtype < DTYPES && dtypes[o.dtype].code != code;)
        o.dtype++;
    if (lantern_bool_get(negated.get()) || o.dtype == DTYPES)
        return false;
    int64_t ndim = lantern_Tensor_ndimension(tensor), size = dtypes[o.dtype].size, stride = size;
    bool contiguous = lantern_Tensor_is_contiguous(tensor);
    o.shape.resize(ndim);
    o.strides.resize(ndim);
    for (int64_t d = ndim - 1; d >= 0; d--) {
        o.shape[d] = lantern_Tensor_size(tensor, d);
        o.strides[d] = contiguous ? stride : stride_of(tensor, d) * size;
        stride *= o.shape[d];
    }
    o.requires_grad = lantern_Tensor_requires_grad(tensor);
    o.array = {address_of(tensor, o.dtype), dtypes[o.dtype].core, static_cast<int>(ndim), o.shape.data(), o.strides.data()};
    return (o.array.data || !stride) && !lantern_LastError();
}

/* A new tensor like that one. */
handle new_like(void *tensor, operand &o)
{
    object options(lantern_TensorOptions(), lantern_TensorOptions_delete);
    object memory_format(lantern_optional_memory_format(nullptr), lantern_optional_memory_format_delete);
    void *made = lantern_empty_like_tensor_tensoroptions_memoryformat(tensor, options.get(), memory_format.get());
    o.owned.tensor = std::shared_ptr<void>(made, lantern_Tensor_delete);
    if (!made || !describe(made, o))
        throw failure();
    return o.owned;
}

object list_of(const std::vector<void *> &tensors)
{
    object list(lantern_variable_list_new(), lantern_variable_list_delete);
    for (void *tensor : tensors)
        lantern_variable_list_push_back(list.get(), tensor);
    return list;
}

void *itself(void *list)
{
    return list;
}

/* What the forward pass, which runs within connect(), returns and saves. */
struct {
    void *loss;
    std::vector<void *> saved;
} forward_pass;

void *forward(void *, void *context, void *inputs)
{
    lantern_variable_list_delete(inputs);
    lantern_AutogradContext_save_for_backward(context, list_of(forward_pass.saved).get());
    return list_of({forward_pass.loss}).release();
}

/* What the backward pass asks of R, whose thread waits for it and calls lantern_request() and lantern_reply(). */
struct {
    void *callback; /* a function of R for lantern's Function_apply() */
    settings loss;
    bool create_graph;
    std::vector<handle> gradients;
} request;

/* Derivatives in operands other than input, and those that are to be differentiated again, are R's (R/lantern.R). It runs as
   the forward pass of a function of all operands, since that is what lantern can call R for. */
void *backward_in_r(void *saved, const settings &s, void *grad_output)
{
    std::vector<object> operands;
    std::vector<void *> inputs;
    for (int64_t i = 2; i < lantern_variable_list_size(saved); i++) {
        operands.emplace_back(lantern_variable_list_get(saved, i), lantern_Tensor_delete);
        inputs.push_back(operands.back().get());
    }
    inputs.push_back(grad_output);
    request.loss = s;
    request.create_graph = lantern_autograd_is_enabled();
    void *callback = request.callback;
    request.callback = nullptr; /* Function_apply() deletes it, and R makes another. */
    if (!callback)
        return nullptr;
    object nothing(lantern_Function_apply(list_of(inputs).get(), callback, nullptr), lantern_variable_list_delete);
    std::vector<handle> gradients;
    gradients.swap(request.gradients);
    std::vector<void *> tensors;
    for (const handle &gradient : gradients)
        tensors.push_back(gradient.tensor.get());
    return nothing ? list_of(tensors).release() : nullptr;
}

/* Whether all elements are known to be one 1, as they are after loss$backward() and loss$sum()$backward(). */
bool is_one(void *tensor)
{
    operand o;
    if (!describe(tensor, o) || !o.array.data)
        return false;
    for (int64_t stride : o.strides)
        if (stride != 0)
            return false;
    switch (o.dtype) {
    case FLOAT32: return *static_cast<float *>(o.array.data) == 1.0f;
    case FLOAT64: return *static_cast<double *>(o.array.data) == 1.0;
    case FLOAT16: return *static_cast<uint16_t *>(o.array.data) == 0x3c00;
    case BFLOAT16: return *static_cast<uint16_t *>(o.array.data) == 0x3f80;
    default: return false;
    }
}

/* Called by libtorch's engine, in a thread of its own. A NULL is an error that lantern keeps. */
void *backward(void *, void *context, void *grad_outputs)
{
    object outputs(grad_outputs, lantern_variable_list_delete);
    object saved(lantern_AutogradContext_get_saved_variables(context), lantern_variable_list_delete);
    if (!saved)
        return nullptr;
    object grad_output(lantern_variable_list_get(outputs.get(), 0), lantern_Tensor_delete);
    object saved_settings(lantern_variable_list_get(saved.get(), 0), lantern_Tensor_delete);
    settings s;
    std::memcpy(&s, lantern_Tensor_data_ptr_double(saved_settings.get()), sizeof s);
    if (s.needs != INPUT || lantern_autograd_is_enabled())
        return backward_in_r(saved.get(), s, grad_output.get());
    if (s.given)
        return backward_in_r(saved.get(), s, grad_output.get()); /* The graph was kept. */
    object gradient(lantern_variable_list_get(saved.get(), 1), lantern_Tensor_delete);
    s.given = is_one(grad_output.get());
    std::memcpy(lantern_Tensor_data_ptr_double(saved_settings.get()), &s, sizeof s);
    /* As a tensor of its own, which torch keeps as it is; a change of it in place is none of the saved one. */
    object result(s.given ? lantern_Tensor_data_tensor(gradient.get())
                          : lantern_Tensor_mul_tensor_tensor(gradient.get(), grad_output.get()),
                  lantern_Tensor_delete);
    return result ? list_of({result.get()}).release() : nullptr;
}

/* The loss as a function of those operands that need a gradient. */
handle connect(const operand *operands, const bool *present, const settings &s, void *loss, void *gradient)
{
    std::vector<void *> variables;
    operand saved_settings;
    handle kept = new_like(settings_template.tensor.get(), saved_settings);
    std::memcpy(saved_settings.array.data, &s, sizeof s);
    object undefined(lantern_Tensor_undefined(), lantern_Tensor_delete);
    forward_pass.loss = loss;
    forward_pass.saved = {kept.tensor.get(), gradient ? gradient : undefined.get()};
    for (int i = 0; i < 4; i++) {
        if (present[i])
            forward_pass.saved.push_back(operands[i].tensor);
        if (present[i] && operands[i].requires_grad)
            variables.push_back(operands[i].tensor);
    }
    object outputs(lantern_Function_apply(list_of(variables).get(),
                                          lantern_Function_lambda(forward, nullptr, lantern_variable_list_delete, itself),
                                          lantern_Function_lambda(backward, nullptr, lantern_variable_list_delete, itself)),
                   lantern_variable_list_delete);
    if (!outputs)
        throw failure();
    return {std::shared_ptr<void>(lantern_variable_list_get(outputs.get(), 0), lantern_Tensor_delete)};
}

struct outcome {
    bce_status status; /* BCE_OK with no loss: R torch's exported functions are to be used */
    SEXP loss, gradient; /* protected */
    std::string message;
};

outcome not_here()
{
    return {BCE_OK, nullptr, nullptr, ""};
}

outcome evaluate(const SEXP *given, double label_smoothing, bce_reduction reduction, bool wants_gradient, SEXP token)
{
    operand operands[4];
    bool present[4], narrow = false, any_needs = false;
    settings s = {static_cast<double>(reduction), label_smoothing, 0, 0, 0};
    for (int i = 0; i < 4; i++) {
        present[i] = given[i] != R_NilValue;
        if (!present[i])
            continue;
        if (TYPEOF(given[i]) != EXTPTRSXP || !Rf_inherits(given[i], "torch_tensor"))
            return not_here();
        operands[i].owned = from_r(given[i]);
        if (!describe(operands[i].owned.tensor.get(), operands[i])) {
            lantern_LastErrorClear(); /* The exported functions are to say what is wrong with the tensor. */
            return not_here();
        }
        narrow = narrow || dtypes[operands[i].dtype].size == 2;
        any_needs = any_needs || operands[i].requires_grad;
        s.present += 1 << i;
        s.needs += operands[i].requires_grad ? 1 << i : 0;
    }
    const operand &input = operands[0], &target = operands[1];
    bool weighted = present[2] || present[3];
    if (!present[0] || !present[1] || !dtypes[input.dtype].is_floating || input.shape != target.shape ||
        (dtypes[target.dtype].is_floating && target.dtype != input.dtype) || (weighted && input.shape.empty()) ||
        (narrow && lantern_amp_is_autocast_cpu_enabled()))
        return not_here();

    bool connected = any_needs && !wants_gradient && lantern_autograd_is_enabled();
    operand loss, gradient;
    handle loss_tensor = new_like(reduction == BCE_NONE ? target.dtype == input.dtype ? target.tensor : input.tensor
                                                        : scalars[input.dtype].tensor.get(),
                                  loss);
    handle gradient_tensor;
    bce_results results = {};
    results.loss = &loss.array;
    if (wants_gradient || (connected && input.requires_grad)) {
        gradient_tensor = new_like(input.tensor, gradient);
        results.gradient = &gradient.array;
    }
    bce_arguments arguments = {};
    arguments.logits = input.array;
    arguments.targets = target.array;
    arguments.weight = present[2] ? &operands[2].array : nullptr;
    arguments.pos_weight = present[3] ? &operands[3].array : nullptr;
    arguments.label_smoothing = label_smoothing;
    arguments.reduction = reduction;
    char message[BCE_MESSAGE_SIZE];
    bce_status status = compute_until_interrupted(&arguments, &results, token, message);
    if (status != BCE_OK)
        return {status, nullptr, nullptr, message};
    if (connected)
        loss_tensor = connect(operands, present, s, loss_tensor.tensor.get(), gradient_tensor.tensor.get());
    SEXP made = PROTECT(to_r(&loss_tensor));
    return {BCE_OK, made, PROTECT(wants_gradient ? to_r(&gradient_tensor) : R_NilValue), ""};
}

} // namespace

/* The names to be looked up. */
SEXP lantern_names()
{
    SEXP result = PROTECT(Rf_allocVector(STRSXP, number_of_names));
    for (int i = 0; i < number_of_names; i++)
        SET_STRING_ELT(result, i, Rf_mkChar(names[i]));
    UNPROTECT(1);
    return result;
}

/* Take the functions of those names, and tensors to make others like: of Float, Double, Half and BFloat16 without
   dimensions, and of at least SETTINGS doubles. */
SEXP lantern_open(SEXP addresses, SEXP templates)
{
    take(to_r, R_GetCCallable("torch", "operator_sexp_tensor"));
    take(from_r, R_GetCCallable("torch", "from_sexp_tensor"));
    int i = 0;
#define TAKE(type, name, parameters) take(lantern_##name, R_ExternalPtrAddrFn(VECTOR_ELT(addresses, i++)));
    LANTERN_FUNCTIONS(TAKE)
    LANTERN_ERRORS(TAKE)
    void *made[DTYPES] = {lantern_Dtype_float32(), lantern_Dtype_float64(), lantern_Dtype_float16(), lantern_Dtype_bfloat16(),
                          lantern_Dtype_int64(),   lantern_Dtype_int32(),   lantern_Dtype_int16(),   lantern_Dtype_int8(),
                          lantern_Dtype_uint8(),   lantern_Dtype_bool()};
    for (int d = 0; d < DTYPES; d++)
        dtypes[d].code = code_of(made[d]);
    for (int k = 0; k < 4; k++)
        scalars[k] = from_r(VECTOR_ELT(templates, k));
    settings_template = from_r(VECTOR_ELT(templates, 4));
    return R_NilValue;
}

/* The loss as a tensor or, where the gradient is wanted, list(loss, gradient), both without a graph; the core's message, a
   string, where it refuses; or NULL where an operand is no tensor that can be read here, or an error is R's to raise. */
SEXP lantern_loss(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing, SEXP reduction, SEXP gradient)
{
    const SEXP given[] = {input, target, weight, pos_weight};
    bool wants_gradient = Rf_asLogical(gradient);
    SEXP token = PROTECT(R_MakeUnwindCont()), result = R_NilValue;
    bce_status status;
    char message[BCE_MESSAGE_SIZE] = "";
    {
        outcome o = not_here();
        try {
            o = evaluate(given, Rf_asReal(label_smoothing), reduction_of(reduction), wants_gradient, token);
        } catch (...) {
        }
        status = o.status;
        std::strncpy(message, o.message.c_str(), sizeof message - 1);
        if (o.loss && wants_gradient) {
            result = PROTECT(Rf_allocVector(VECSXP, 2));
            SET_VECTOR_ELT(result, 0, o.loss);
            SET_VECTOR_ELT(result, 1, o.gradient);
            UNPROTECT(3);
        } else if (o.loss) {
            result = o.loss;
            UNPROTECT(2);
        }
    }
    if (status == BCE_INTERRUPTED)
        R_ContinueUnwind(token);
    UNPROTECT(1);
    return status == BCE_OK ? result : Rf_mkString(message);
}

/* For the next backward pass that asks R: an external pointer to what Function_apply() can call. */
SEXP lantern_set_callback(SEXP callback)
{
    request.callback = static_cast<handle *>(R_ExternalPtrAddr(callback))->tensor.get();
    return R_NilValue;
}

/* c(reduction, label_smoothing, the operands that are present, those that need a gradient, create_graph), the operands as
   sums of 1, 2, 4 and 8 for input, target, weight and pos_weight. */
SEXP lantern_request()
{
    const settings &s = request.loss;
    const double answer[] = {s.reduction, s.label_smoothing, s.present, s.needs, static_cast<double>(request.create_graph)};
    SEXP result = Rf_allocVector(REALSXP, sizeof answer / sizeof *answer);
    std::memcpy(REAL(result), answer, sizeof answer);
    return result;
}

/* The gradients in those operands, a list of tensors. */
SEXP lantern_reply(SEXP gradients)
{
    request.gradients.clear();
    for (int i = 0; i < Rf_length(gradients); i++)
        request.gradients.push_back(from_r(VECTOR_ELT(gradients, i)));
    return R_NilValue;
}
