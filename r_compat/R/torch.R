#' The losses on R torch's tensors
#'
#' Where `input` or `target` is a tensor of the package `torch`, [nn_bce_with_logits_loss()],
#' [nnf_binary_cross_entropy_with_logits()] and [bce_with_logits()] return a tensor. `torch` is not needed for anything
#' else; the losses do not load it.
#'
#' @section Module:
#' Once `torch` is loaded, `nn_bce_with_logits_loss()` makes a module that inherits from torch's own of this name: it can
#' be a part of an `nn_module()` or the loss of `luz::setup()`, its `weight` and `pos_weight` are buffers that `$to()`
#' moves and `$state_dict()` holds, and it prints as torch's does. Numbers given for them become buffers of type double,
#' which are exact; an `NA` among them is refused at once. Called with R's numbers it returns a number, as without torch.
#'
#' @section Operands:
#' `input` is a floating tensor, `target` a tensor of its shape and of any real dtype: integer and logical targets, which
#' torch refuses, are taken in the dtype of `input`. `weight` and `pos_weight` are tensors that broadcast to that shape,
#' and may not enlarge it. R's numbers beside a tensor are taken as tensors on its device; an `NA`
#' among them is refused, and so is `na.action = na.pass`, for a tensor holds none.
#'
#' @section Value:
#' As torch's: the loss has the dtype of `target`, and no dimensions unless `reduction` is `"none"`. It is differentiable
#' any number of times in `input` and `target`, and, as torch's is not, in `weight` and `pos_weight`. With
#' `gradient = TRUE` of [bce_with_logits()] it is detached, and its attribute `"gradient"` is a tensor like `input`.
#'
#' @section Where it is computed:
#' CPU tensors are computed by this package, with the same bits as R's numbers, rounded once to the dtype of the result.
#' They are read where they lie; a tensor that does not begin where its storage does, such as a row of a matrix, is
#' copied. Tensors on other devices, and all under `torch::jit_trace()`, go to torch's own operation.
#'
#' @name bcebridge-torch
#' @examplesIf requireNamespace("torch", quietly = TRUE) && torch::torch_is_installed()
#' logits <- torch::torch_tensor(c(1, -2), requires_grad = TRUE)
#' loss <- nn_bce_with_logits_loss(pos_weight = 3)
#' loss(logits, torch::torch_tensor(c(1, 0)))$backward()
#' logits$grad
NULL

is_tensor <- function(x) inherits(x, "torch_tensor") && typeof(x) == "externalptr"

operand_names <- c("input", "target", "weight", "pos_weight")

# The loss of tensors, of which at least one is input or target; R's numbers beside them become tensors.
evaluate_tensors <- function(operands, reduction, gradient, label_smoothing, call) {
  operands <- as_tensors(operands, call)
  input <- operands$input
  if (!input$dtype$is_floating_point) {
    abort(call, "input is a tensor of dtype ", as.character(input$dtype), ", wants a floating one: use $to()")
  }
  if (gradient) {
    torch::local_enable_grad()
    operands$input <- input <- input$detach()$requires_grad_(TRUE)
  }
  loss <- tensor_loss(operands, reduction, label_smoothing, call)
  if (!gradient) return(loss)
  slope <- torch::autograd_grad(loss$sum(), input)[[1]]
  structure(loss$detach(), gradient = slope)
}

tensor_loss <- function(operands, reduction, label_smoothing, call) {
  if (!all(vapply(operands, in_memory, NA)) || tracing()) return(torch_loss(operands, reduction, label_smoothing))
  shape_of <- function(tensor) paste0("(", paste(tensor$shape, collapse = ", "), ")")
  if (!identical(operands$input$shape, operands$target$shape)) {
    abort(call, "target of shape ", shape_of(operands$target), " must have the input's shape ", shape_of(operands$input))
  }
  differentiable <- vapply(operands, function(tensor) !is.null(tensor) && tensor$requires_grad, NA)
  if (any(differentiable) && grad_enabled()) {
    do.call(differentiable_loss(reduction, label_smoothing, call), operands)
  } else {
    core(operands, "loss", reduction, label_smoothing, call)$loss
  }
}

# R's numbers are exact as doubles on the CPU; the targets' dtype is the loss's, and so theirs is the input's.
as_tensors <- function(operands, call) {
  names(operands) <- operand_names
  given <- Filter(is_tensor, operands[1:2])[[1]]
  device <- given$device
  on_cpu <- device$type == "cpu"
  for (name in operand_names) {
    x <- operands[[name]]
    if (is_tensor(x) || (is.null(x) && name %in% c("weight", "pos_weight"))) next
    dtype <- if (name != "target" && on_cpu) torch::torch_double() else given$dtype
    operands[[name]] <- tensor_of_numbers(check_operand(x, name, call), dtype, device)
  }
  operands
}

# One number without dim has the shape of torch's scalars, that of any other vector is (length). A copy, for torch (0.17) lets a
# tensor of doubles lie in the memory of R's vector, which R takes back.
tensor_of_numbers <- function(x, dtype = torch::torch_double(), device = NULL) {
  storage.mode(x) <- "double"
  tensor <- torch::torch_tensor(x, dtype = dtype, device = device)$clone()
  if (is.null(dim(x)) && length(x) == 1) tensor$squeeze() else tensor
}

core_dtypes <- c("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

# Whether the core can read it. NULL, which is no operand, takes nothing from that.
in_memory <- function(tensor) {
  is.null(tensor) ||
    (tensor$device$type == "cpu" && as.character(tensor$dtype) %in% core_dtypes && !tensor$is_sparse())
}

# Whether torch::jit_trace() is recording: of what the core computes it would see nothing.
tracing <- function() {
  recording <- function(f) identical(f, torch::jit_trace) || identical(f, torch::jit_trace_module)
  any(vapply(seq_len(sys.nframe()), function(i) recording(sys.function(i)), NA))
}

# torch has no public test.
grad_enabled <- function() torch::torch_zeros(1, requires_grad = TRUE)$neg()$requires_grad

torch_loss <- function(operands, reduction, label_smoothing) {
  target <- operands$target
  if (!target$dtype$is_floating_point) target <- target$to(dtype = operands$input$dtype)
  if (label_smoothing > 0) target <- target * (1 - label_smoothing) + label_smoothing / 2
  torch::nnf_binary_cross_entropy_with_logits(operands$input, target, operands$weight, reduction, operands$pos_weight)
}

derivative_names <- c(input = "gradient", target = "d_targets", weight = "d_weight", pos_weight = "d_pos_weight")

# The results of these names, computed by the core: a list of tensors. The loss has the target's layout and dtype, or the
# input's dtype for integer targets; derivatives are those of each element, in weights as doubles still to be summed.
core <- function(operands, names, reduction, label_smoothing, call) {
  input <- operands$input$detach()
  target <- operands$target$detach()
  dtype <- if (target$dtype$is_floating_point) target$dtype else input$dtype
  empty_loss <- function() {
    if (reduction == "none") torch::torch_empty_like(target, dtype = dtype) else torch::torch_scalar_tensor(0, dtype = dtype)
  }
  results <- lapply(c("loss", derivative_names), function(name) {
    if (!name %in% names) return(NULL)
    switch(name,
      loss = empty_loss(),
      gradient = torch::torch_empty_like(input),
      d_targets = torch::torch_empty_like(target),
      torch::torch_empty_like(input, dtype = torch::torch_double())
    )
  })
  names(results) <- c("loss", derivative_names)
  described <- lapply(operands, function(tensor) if (!is.null(tensor)) describe_tensor(at_origin(tensor)))
  wanted <- lapply(results, function(tensor) if (!is.null(tensor)) describe_tensor(tensor))
  answer(.Call(C_tensors, described, label_smoothing, reduction, wanted), call)
  results
}

describe_tensor <- function(tensor) {
  numbers <- lapply(list(tensor$shape, unlist(tensor$stride())), as.double)
  c(list(tensor, tensor$storage()$data_ptr(), as.character(tensor$dtype)), numbers)
}

# The tensor, or a copy, that begins where its storage does: torch tells the address of the storage alone. No sign is pending.
at_origin <- function(tensor) {
  tensor <- tensor$detach()$resolve_neg()
  if (tensor$is_set_to(tensor$as_strided(tensor$shape, tensor$stride(), 0))) tensor else tensor$clone()
}

# Loss and gradient in one pass, as a function of the operands that keeps them and the gradient.
differentiable_loss <- function(reduction, label_smoothing, call) {
  # As promises they would hold the caller's frame, and in it the loss, which holds these functions.
  force(reduction)
  force(label_smoothing)
  force(call)
  torch::autograd_function(
    forward = function(ctx, input, target, weight, pos_weight) {
      operands <- list(input = input, target = target, weight = weight, pos_weight = pos_weight)
      results <- core(operands, c("loss", if (ctx$needs_input_grad$input) "gradient"), reduction, label_smoothing, call)
      ctx$save_for_backward(
        input = input, target = target, weight = weight, pos_weight = pos_weight, gradient = results$gradient
      )
      results$loss
    },
    backward = function(ctx, grad_output) {
      saved <- ctx$saved_variables
      gradients <- lapply(operand_names, function(name) {
        if (!ctx$needs_input_grad[[name]]) return(NULL)
        slope <- derivative(name, if (name == "input") saved$gradient, reduction, label_smoothing)
        slope <- slope(saved$input, saved$target, saved$weight, saved$pos_weight)
        (slope * grad_output)$sum_to_size(saved[[name]]$shape)$to(dtype = saved[[name]]$dtype)
      })
      stats::setNames(gradients, operand_names)
    }
  )
}

# The derivative of each element's loss in the operand of that name, as a function of the operands: known, or else the core's.
# Its own derivatives are torch's operations.
derivative <- function(name, known, reduction, label_smoothing) {
  force(name)
  force(known)
  force(reduction)
  force(label_smoothing)
  torch::autograd_function(
    forward = function(ctx, input, target, weight, pos_weight) {
      ctx$save_for_backward(input = input, target = target, weight = weight, pos_weight = pos_weight)
      if (!is.null(known)) return(known$detach())
      operands <- list(input = input, target = target, weight = weight, pos_weight = pos_weight)
      core(operands, derivative_names[[name]], reduction, label_smoothing, NULL)[[derivative_names[[name]]]]
    },
    backward = function(ctx, grad_output) {
      saved <- ctx$saved_variables
      gradients <- lapply(operand_names, function(other) {
        if (!ctx$needs_input_grad[[other]]) return(NULL)
        second <- second_derivative(saved, name, other, label_smoothing)
        if (reduction == "mean") second <- second / saved$input$numel()
        (second * grad_output$double())$sum_to_size(saved[[other]]$shape)$to(dtype = saved[[other]]$dtype)
      })
      stats::setNames(gradients, operand_names)
    }
  )
}

# The derivative of each element's loss in two of its operands, in double precision, by operations that torch differentiates.
second_derivative <- function(operands, name, other, label_smoothing) {
  x <- operands$input$double()
  one <- torch::torch_ones_like(x)
  k <- 1 - label_smoothing
  y <- operands$target$double() * k + label_smoothing / 2
  w <- if (is.null(operands$weight)) one else operands$weight$double()
  p <- if (is.null(operands$pos_weight)) one else operands$pos_weight$double()
  upper <- function() torch::nnf_logsigmoid(-x)$neg() # log(1 + e^x)
  lower <- function() torch::nnf_logsigmoid(x)$neg() # log(1 + e^-x)
  # a b, where an a of 0 silences an infinite b
  silent <- function(a, b) a * torch::torch_where((a == 0) & b$isinf(), torch::torch_zeros_like(b), b)
  switch(paste(sort(c(name, other)), collapse = " "),
    "input input" = w * (1 - y + p * y) * x$sigmoid() * (-x)$sigmoid(),
    "input target" = -k * w * (x$sigmoid() + p * (-x)$sigmoid()),
    "input weight" = (1 - y) * x$sigmoid() - p * y * (-x)$sigmoid(),
    "input pos_weight" = -w * y * (-x)$sigmoid(),
    "target weight" = k * (silent(p, lower()) - upper()),
    "pos_weight target" = k * silent(w, lower()),
    "pos_weight weight" = silent(y, lower()),
    torch::torch_zeros_like(x)
  )
}

utils::globalVariables("self")

# R torch's module of this name, with the forward pass of this package: its buffers, state_dict() and printed form are torch's.
torch_module <- local({
  generator <- NULL
  function() {
    if (is.null(generator)) {
      generator <<- torch::nn_module(
        inherit = torch::nn_bce_with_logits_loss,
        forward = function(input, target) {
          weights <- list(self$weight, self$pos_weight)
          if (!is_tensor(input) && !is_tensor(target)) weights <- lapply(weights, as_numbers)
          evaluate(input, target, weights[[1]], weights[[2]], self$reduction, call = sys.call())
        }
      )
    }
    generator
  }
})

torch_is_loaded <- function() isNamespaceLoaded("torch") && torch::torch_is_installed()

# Numbers become buffers of doubles, which hold them exactly.
as_buffer <- function(x, name, call) {
  if (is.null(x) || is_tensor(x)) x else tensor_of_numbers(check_operand(x, name, call))
}

as_numbers <- function(x) if (is_tensor(x)) torch::as_array(x$cpu()$double()) else x
