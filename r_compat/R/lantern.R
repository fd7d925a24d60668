# The way of src/lantern.cpp to R torch's tensors. Of what torch exports, R7's `$` and an autograd_function() cost more than the
# loss of a thousand elements; so this is looked up once, when torch is first used, and tried. If a name is missing or an answer
# is not that of the exported way, that is taken.
lantern <- local({
  opened <- NULL
  function() {
    if (is.null(opened)) {
      # The trial itself takes the exported way.
      opened <<- FALSE
      opened <<- isTRUE(tryCatch(open_lantern() && answers_as_exported(), error = function(e) FALSE))
    }
    opened
  }
})

open_lantern <- function() {
  directory <- file.path(torch::torch_install_path(), "lib")
  library <- dyn.load(list.files(directory, "^(lib)?lantern\\.(so|dylib|dll)$", full.names = TRUE)[[1]])
  addresses <- lapply(.Call(C_lantern_names), function(name) getNativeSymbolInfo(name, library)$address)
  scalars <- lapply(floating_dtypes, new_scalar)
  .Call(C_lantern_open, addresses, c(scalars, torch::torch_zeros(8, dtype = torch::torch_double())))
  set_callback()
  TRUE
}

# The loss, the gradient and its own derivative of a few tensors in several layouts.
answers_as_exported <- function() {
  leaf <- torch::torch_tensor(matrix(c(-20, 0.5, 3, 90, -0.25, 1), 2), requires_grad = TRUE)
  target <- torch::torch_tensor(matrix(c(0, 1, 0.25, 1, 0, 1), 3))$t()
  weight <- torch::torch_tensor(c(1, 2, 3), requires_grad = TRUE)
  answers <- function(loss) {
    inputs <- list(leaf[, 2:3], leaf$t()$contiguous()$t()[, 2:3])
    unlist(lapply(inputs, function(input) {
      value <- loss(input, target[, 2:3])
      slopes <- torch::autograd_grad(value * 3, list(leaf, weight), create_graph = TRUE)
      again <- torch::autograd_grad(slopes[[1]]$sum(), leaf)
      lapply(c(value, slopes, again, loss(input, target[, 2:3] > 0.5)), function(tensor) torch::as_array(tensor$detach()))
    }))
  }
  operands <- function(input, target) list(input = input, target = target, weight = weight[2:3], pos_weight = NULL)
  quick <- function(input, target) do.call(loss_by_lantern, c(unname(operands(input, target)), "sum", FALSE, 0.125))
  identical(
    answers(quick), answers(function(input, target) evaluate_tensors(operands(input, target), "sum", FALSE, 0.125, NULL))
  )
}

# The loss, a message of the core, or NULL where it cannot be computed this way.
loss_by_lantern <- function(input, target, weight, pos_weight, reduction, gradient, label_smoothing) {
  result <- .Call(C_lantern_loss, input, target, weight, pos_weight, label_smoothing, reduction, gradient)
  if (is.list(result)) structure(result[[1]], gradient = result[[2]]) else result
}

# What a backward pass calls if it cannot do without R. lantern deletes it after one call.
set_callback <- function() {
  .Call(C_lantern_set_callback, get("cpp_Function_lambda", envir = asNamespace("torch"))(answer_backward))
}

# The operands that are present, and after them the gradient that comes in, are inputs.
answer_backward <- function(ctx, inputs) {
  set_callback()
  request <- .Call(C_lantern_request)
  reduction <- c("none", "mean", "sum")[[request[[1]] + 1]]
  named <- function(sum) operand_names[bitwAnd(as.integer(sum), c(1L, 2L, 4L, 8L)) > 0]
  present <- named(request[[3]])
  operands <- vector("list", 4)
  names(operands) <- operand_names
  operands[present] <- inputs[seq_along(present)]
  grad_output <- inputs[[length(inputs)]]
  gradients <- lapply(named(request[[4]]), gradient_in, operands, grad_output, reduction, request[[2]], request[[5]] != 0)
  .Call(C_lantern_reply, gradients)
  list()
}
