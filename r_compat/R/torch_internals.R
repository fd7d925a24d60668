# What torch does not export. Of what it exports, R7's `$` and an autograd_function() cost more than the loss of a thousand
# elements; so these are looked up once, when torch is loaded, and tried. If one is missing or answers otherwise than the
# exported way, that is taken.
internals <- local({
  found <- NULL
  function() {
    if (is.null(found)) found <<- find_internals()
    if (length(found)) found
  }
})

internal_names <- c(
  "cpp_Function_apply", "cpp_Function_lambda", "cpp_Storage_data_ptr", "cpp_Tensor_has_storage", "cpp_Tensor_storage",
  "cpp_autograd_is_enabled", "cpp_device_type_to_string", "cpp_dtype_to_string", "cpp_tensor_device", "cpp_tensor_dim",
  "cpp_tensor_is_contiguous", "cpp_tensor_requires_grad", "cpp_torch_method__version_self_Tensor",
  "cpp_torch_method_as_strided_self_Tensor_size_IntArrayRef_stride_IntArrayRef", "cpp_torch_method_detach_self_Tensor",
  "cpp_torch_method_is_neg_self_Tensor", "cpp_torch_method_is_set_to_self_Tensor_tensor_Tensor", "cpp_torch_tensor_dtype"
)

# An empty list if they cannot be used.
find_internals <- function() {
  f <- mget(internal_names, envir = asNamespace("torch"), mode = "function", ifnotfound = list(NULL))
  if (any(vapply(f, is.null, NA)) || !isTRUE(tryCatch(answer_as_exported(f), error = function(e) FALSE))) return(list())
  f
}

answer_as_exported <- function(f) {
  matrix <- torch::torch_zeros(3, 2)
  tensors <- list(matrix, matrix[2, ], matrix$t(), torch::torch_ones(1, dtype = torch::torch_bool())$squeeze())
  read <- function(described) described[c("address", "dtype", "shape", "strides", "requires_grad")]
  alike <- function(tensor) {
    # What is not at the beginning of its storage is copied, to another address each time.
    a <- read(describe_by_internals(tensor, f))
    b <- read(describe_by_methods(tensor))
    identical(a[-1], b[-1]) && (!tensor$is_set_to(matrix) || identical(a, b))
  }
  leaf <- torch::torch_zeros(2, requires_grad = TRUE)
  slope <- torch::torch_tensor(c(3, 4))
  loss <- connect_by_internals(list(leaf), torch::torch_scalar_tensor(5), function(grad_output) list(slope * grad_output), f)
  loss$backward(torch::torch_scalar_tensor(2))
  all(vapply(tensors, alike, NA)) && loss$item() == 5 && identical(torch::as_array(leaf$grad), c(6, 8)) &&
    f$cpp_autograd_is_enabled() == grad_enabled_by_trial()
}

core_dtypes <- c("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

# What C_tensors reads, in this order: the tensor or a copy of it, kept alive, its address, dtype, shape and strides, NULL if it
# is contiguous; and whether it requires a gradient. Or, where the core cannot read it, why. NULL is no tensor.
describe <- function(tensor) {
  if (is.null(tensor)) return(NULL)
  f <- internals()
  if (is.null(f)) describe_by_methods(tensor) else describe_by_internals(tensor, f)
}

describe_by_internals <- function(tensor, f) {
  device <- f$cpp_tensor_device(tensor)
  class(device) <- "torch_device"
  dtype <- f$cpp_torch_tensor_dtype(tensor)
  class(dtype) <- "torch_dtype"
  dtype <- f$cpp_dtype_to_string(dtype)
  if (f$cpp_device_type_to_string(device) != "cpu" || !f$cpp_Tensor_has_storage(tensor)) return("not in the CPU's memory")
  if (!dtype %in% core_dtypes) return(dtype)
  shape <- as.double(f$cpp_tensor_dim(tensor))
  requires_grad <- f$cpp_tensor_requires_grad(tensor)
  detached <- if (requires_grad) f$cpp_torch_method_detach_self_Tensor(tensor) else tensor
  contiguous <- f$cpp_tensor_is_contiguous(detached)
  if (!contiguous || f$cpp_torch_method_is_neg_self_Tensor(detached) || !begins_storage(detached, shape, f)) {
    detached <- at_origin(detached)
    contiguous <- f$cpp_tensor_is_contiguous(detached)
  }
  strides <- if (!contiguous) strides_of(detached)
  address <- f$cpp_Storage_data_ptr(f$cpp_Tensor_storage(detached))
  list(tensor = detached, address = address, dtype = dtype, shape = shape, strides = strides, requires_grad = requires_grad)
}

# Whether a contiguous tensor begins where its storage does. torch tells the address of the storage alone.
begins_storage <- function(tensor, shape, f) {
  strides <- if (length(shape) < 2) rep(1, length(shape)) else rev(cumprod(c(1, rev(pmax(shape[-1], 1)))))
  view <- f$cpp_torch_method_as_strided_self_Tensor_size_IntArrayRef_stride_IntArrayRef(tensor, shape, strides, 0)
  f$cpp_torch_method_is_set_to_self_Tensor_tensor_Tensor(tensor, view)
}

describe_by_methods <- function(tensor) {
  dtype <- as.character(tensor$dtype)
  if (tensor$device$type != "cpu" || tensor$is_sparse()) return("not in the CPU's memory")
  if (!dtype %in% core_dtypes) return(dtype)
  requires_grad <- tensor$requires_grad
  tensor <- at_origin(tensor$detach())
  list(
    tensor = tensor, address = tensor$storage()$data_ptr(), dtype = dtype, shape = as.double(tensor$shape),
    strides = if (!tensor$is_contiguous()) strides_of(tensor), requires_grad = requires_grad
  )
}

strides_of <- function(tensor) as.double(unlist(tensor$stride()))

# The tensor, or a copy, that begins where its storage does. No sign is pending.
at_origin <- function(tensor) {
  tensor <- tensor$resolve_neg()
  if (tensor$is_set_to(tensor$as_strided(tensor$shape, tensor$stride(), 0))) tensor else tensor$clone()
}

grad_enabled <- function() {
  f <- internals()
  if (is.null(f)) grad_enabled_by_trial() else f$cpp_autograd_is_enabled()
}

grad_enabled_by_trial <- function() torch::torch_zeros(1, requires_grad = TRUE)$neg()$requires_grad

# How often it was changed in place; NULL where torch does not tell.
version_of <- function(tensor) {
  f <- internals()
  if (!is.null(tensor) && !is.null(f)) f$cpp_torch_method__version_self_Tensor(tensor)
}

# The loss as a function of those operands that need a gradient, whose gradients are what backward(grad_output) returns, a list.
connect <- function(operands, needs, loss, backward) {
  f <- internals()
  if (is.null(f)) {
    do.call(autograd_function_of(names(needs)[needs], loss, backward), operands)
  } else {
    connect_by_internals(unname(operands[needs]), loss, backward, f)
  }
}

connect_by_internals <- function(variables, loss, backward, f) {
  forward <- f$cpp_Function_lambda(forward_lambda(loss))
  f$cpp_Function_apply(variables, forward, f$cpp_Function_lambda(backward_lambda(backward)))[[1]]
}

# Each in a frame of its own: what holds the loss must not be held by it.
forward_lambda <- function(loss) {
  force(loss)
  function(ctx, inputs) list(loss)
}

backward_lambda <- function(backward) {
  force(backward)
  function(ctx, grad_outputs) backward(grad_outputs[[1]])
}

autograd_function_of <- function(names, loss, backward) {
  force(names)
  force(backward)
  torch::autograd_function(
    forward = function(ctx, input, target, weight, pos_weight) {
      result <- loss
      loss <<- NULL
      result
    },
    backward = function(ctx, grad_output) stats::setNames(backward(grad_output), names)
  )
}
