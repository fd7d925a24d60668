#' The losses on R torch's tensors
#'
#' Where `input` or `target` is a tensor of the package `torch`, [nn_bce_with_logits_loss()],
#' [nnf_binary_cross_entropy_with_logits()] and [bce_with_logits()] return a tensor. `torch` is not needed for anything
#' else; the losses do not load it.
#'
#' @section Module:
#' Once `torch` is loaded, `nn_bce_with_logits_loss` is the generator of a module that inherits from torch's own of this
#' name: others can inherit from it, it can be a part of an `nn_module()` or the loss of `luz::setup()`, its `weight` and
#' `pos_weight` are buffers that `$to()` moves and `$state_dict()` holds, and it prints as torch's does. Numbers given for
#' them become buffers of type double, which are exact; an `NA` among them is refused at once. Called with R's numbers it
#' returns a number, as without torch. A loss made before torch was loaded takes tensors, but is no module: it has no buffers.
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
#' `gradient = TRUE` of [bce_with_logits()] it is detached, and so is its attribute `"gradient"`, a tensor like `input`.
#'
#' @section Where it is computed:
#' CPU tensors are computed by this package, with the same bits as R's numbers, rounded once to the dtype of the result.
#' They are read where they lie. Tensors on other devices, and all under `torch::jit_trace()`, go to torch's own operation.
#' Under `torch::with_autocast()` half precision is computed in float, as torch does. The number of threads is that of
#' [bce_num_threads()]; `torch::torch_set_num_threads()` has no part in it.
#'
#' For speed, tensors are read, made and connected to their gradients by torch's library lantern, if what the package tries when
#' torch is first used answers as it should; else by torch's exported functions, which take several times as long.
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
  if (lantern() && !tracing()) {
    o <- operands
    result <- loss_by_lantern(o$input, o$target, o$weight, o$pos_weight, reduction, gradient, label_smoothing)
    if (!is.null(result)) return(answer(result, call))
  }
  described <- lapply(operands, describe)
  if (is.list(described$input) && !length(described$input$shape)) {
    weights <- c("weight", "pos_weight")[!vapply(operands[3:4], is.null, NA)]
    operands[weights] <- lapply(operands[weights], without_dimension)
    described <- lapply(operands, describe)
  }
  check_floating(described$input, operands$input, call)
  if (any(vapply(described, is.character, NA)) || tracing()) {
    return(torch_loss(operands, reduction, gradient, label_smoothing))
  }
  if (!identical(described$input$shape, described$target$shape)) {
    shapes <- vapply(described[1:2], function(operand) paste0("(", paste(operand$shape, collapse = ", "), ")"), "")
    abort(call, "target must have the input's shape ", shapes[["input"]], ", got shape ", shapes[["target"]])
  }
  if (cast_by_autocast(described$input, described$target)) {
    operands <- lapply(operands, function(tensor) if (!is.null(tensor)) tensor$to(dtype = torch::torch_float()))
    described <- lapply(operands, describe)
  }
  if (gradient) {
    results <- core(described, c("loss", "gradient"), reduction, label_smoothing, call)
    return(structure(results$loss, gradient = results$gradient))
  }
  needs <- vapply(described, function(operand) !is.null(operand) && operand$requires_grad, NA)
  if (any(needs) && grad_enabled()) {
    differentiable_loss(operands, described, needs, reduction, label_smoothing, call)
  } else {
    core(described, "loss", reduction, label_smoothing, call)$loss
  }
}

check_floating <- function(described, input, call) {
  dtype <- if (is.character(described)) as.character(input$dtype) else described$dtype
  if (!dtype %in% floating_dtypes) {
    abort(call, "input must have a floating dtype, got ", dtype, ": use $to()")
  }
}

narrow_dtypes <- c("Half", "BFloat16")
floating_dtypes <- c("Float", "Double", narrow_dtypes)

# torch computes this loss in float under autocast. It has no public test of that; a tensor of one element shows it.
cast_by_autocast <- function(input, target) {
  if (!input$dtype %in% narrow_dtypes && !target$dtype %in% narrow_dtypes) return(FALSE)
  one <- torch::torch_zeros(1, dtype = torch::torch_bfloat16())
  as.character(torch::nnf_binary_cross_entropy_with_logits(one, one)$dtype) == "Float"
}

# R's numbers are exact as doubles on the CPU; the targets' dtype is the loss's, and so theirs is the input's.
as_tensors <- function(operands, call) {
  optional <- c(FALSE, FALSE, TRUE, TRUE)
  numbers <- !vapply(operands, is_tensor, NA) & !(optional & vapply(operands, is.null, NA))
  if (!any(numbers)) return(operands)
  given <- Filter(is_tensor, operands[1:2])[[1]]
  device <- given$device
  on_cpu <- device$type == "cpu"
  for (name in operand_names[numbers]) {
    dtype <- if (name != "target" && on_cpu) torch::torch_double() else given$dtype
    tensor <- tensor_of_numbers(check_operand(operands[[name]], name, call), dtype, device)
    operands[[name]] <- if (!length(given$shape)) without_dimension(tensor) else tensor
  }
  operands
}

# One number is also one beside an input that has no dimension.
without_dimension <- function(tensor) if (identical(as.integer(tensor$shape), 1L)) tensor$squeeze() else tensor

# A copy, for torch (0.17) lets a tensor of doubles lie in the memory of R's vector, which R takes back.
tensor_of_numbers <- function(x, dtype = torch::torch_double(), device = NULL) {
  storage.mode(x) <- "double"
  torch::torch_tensor(x, dtype = dtype, device = device)$clone()
}

# Whether torch::jit_trace() is recording: of what the core computes it would see nothing.
tracing <- function() {
  tracers <- list(torch::jit_trace, torch::jit_trace_module)
  for (i in seq_len(sys.nframe())) {
    f <- sys.function(i)
    if (identical(f, tracers[[1]]) || identical(f, tracers[[2]])) return(TRUE)
  }
  FALSE
}

# By torch's own operation.
torch_loss <- function(operands, reduction, gradient, label_smoothing) {
  input <- operands$input
  target <- operands$target
  if (gradient) {
    torch::local_enable_grad()
    input <- input$detach()$requires_grad_(TRUE)
  }
  if (!target$dtype$is_floating_point) target <- target$to(dtype = input$dtype)
  if (label_smoothing > 0) target <- target * (1 - label_smoothing) + label_smoothing / 2
  loss <- torch::nnf_binary_cross_entropy_with_logits(input, target, operands$weight, reduction, operands$pos_weight)
  if (!gradient) return(loss)
  structure(loss$detach(), gradient = torch::autograd_grad(loss$sum(), input)[[1]]$detach())
}

core_dtypes <- c(floating_dtypes, "Long", "Int", "Short", "Char", "Byte", "Bool")

# What C_tensors reads, in this order: the tensor or a copy of it, kept alive, its address, dtype, shape and strides, NULL if it
# is contiguous; and whether it requires a gradient. Or, where the core cannot read it, why. NULL is no tensor.
describe <- function(tensor) {
  if (is.null(tensor)) return(NULL)
  dtype <- as.character(tensor$dtype)
  if (tensor$device$type != "cpu" || tensor$is_sparse()) return("not in the CPU's memory")
  if (!dtype %in% core_dtypes) return(dtype)
  requires_grad <- tensor$requires_grad
  tensor <- at_origin(tensor$detach())
  list(
    tensor = tensor, address = tensor$storage()$data_ptr(), dtype = dtype, shape = as.double(tensor$shape),
    strides = if (!tensor$is_contiguous()) as.double(unlist(tensor$stride())), requires_grad = requires_grad
  )
}

# The tensor, or a copy, that begins where its storage does: torch tells the address of the storage alone. No sign is pending.
at_origin <- function(tensor) {
  tensor <- tensor$resolve_neg()
  if (tensor$is_set_to(tensor$as_strided(tensor$shape, tensor$stride(), 0))) tensor else tensor$clone()
}

# torch has no public test of that; a new tensor shows it.
grad_enabled <- function() torch::torch_zeros(1, requires_grad = TRUE)$neg()$requires_grad

derivative_names <- c(input = "gradient", target = "d_targets", weight = "d_weight", pos_weight = "d_pos_weight")

# The results of these names, computed by the core from described operands: a list of tensors. The loss has the target's layout
# and dtype, or the input's dtype for integer targets; derivatives are those of each element, in weights as doubles still to be
# summed.
core <- function(described, names, reduction, label_smoothing, call) {
  input <- described$input
  target <- described$target
  dtype <- if (target$dtype %in% floating_dtypes) target$dtype else input$dtype
  like <- function(operand, dtype) describe(empty_like(operand, dtype))
  wanted <- vector("list", 1 + length(derivative_names))
  names(wanted) <- c("loss", derivative_names)
  for (name in names) {
    wanted[[name]] <- switch(name,
      loss = if (reduction == "none") like(target, dtype) else describe(new_scalar(dtype)),
      gradient = like(input, input$dtype),
      d_targets = like(target, target$dtype),
      like(input, "Double")
    )
  }
  answer(.Call(C_tensors, unname(described), label_smoothing, reduction, unname(wanted)), call)
  lapply(wanted[names], function(result) result$tensor)
}

new_scalar <- function(dtype) torch::torch_scalar_tensor(0, dtype = torch_dtypes(dtype))

torch_dtypes <- function(name) {
  switch(name,
    Float = torch::torch_float(),
    Double = torch::torch_double(),
    Half = torch::torch_half(),
    BFloat16 = torch::torch_bfloat16()
  )
}

empty_like <- function(described, dtype) {
  if (dtype == described$dtype) {
    torch::torch_empty_like(described$tensor, requires_grad = FALSE)
  } else {
    torch::torch_empty_like(described$tensor, dtype = torch_dtypes(dtype), requires_grad = FALSE)
  }
}

# Loss and gradient in one pass.
differentiable_loss <- function(operands, described, needs, reduction, label_smoothing, call) {
  results <- core(described, c("loss", if (needs[["input"]]) "gradient"), reduction, label_smoothing, call)
  connected <- connect(names(which(needs)), results$loss, results$gradient, reduction, label_smoothing)
  do.call(connected, operands)
}

# The loss as a function of the operands, of which those of these names need a gradient.
connect <- function(names, loss, gradient, reduction, label_smoothing) {
  for (argument in list(names, gradient, reduction, label_smoothing)) force(argument)
  torch::autograd_function(
    forward = function(ctx, input, target, weight, pos_weight) {
      ctx$save_for_backward(input = input, target = target, weight = weight, pos_weight = pos_weight)
      # It must not be held by what it holds.
      result <- loss
      loss <<- NULL
      result
    },
    backward = function(ctx, grad_output) {
      create_graph <- creating_graph()
      # Reading them, torch refuses operands that have been changed in place since.
      operands <- ctx$saved_variables
      gradients <- lapply(names, function(name) {
        slope <- if (name == "input" && !create_graph) gradient
        gradient_in(name, operands, grad_output, reduction, label_smoothing, create_graph, slope)
      })
      stats::setNames(gradients, names)
    }
  )
}

# The gradient in the operand of that name, itself a function of the operands if a graph is to be created.
gradient_in <- function(name, operands, grad_output, reduction, label_smoothing, create_graph, slope = NULL) {
  if (create_graph) {
    slope <- do.call(derivative(name, reduction, label_smoothing), operands)
  } else if (is.null(slope)) {
    slope <- core(lapply(operands, describe), derivative_names[[name]], reduction, label_smoothing, NULL)[[1]]
  }
  (slope * grad_output)$sum_to_size(operands[[name]]$shape)$to(dtype = operands[[name]]$dtype)
}

# Whether the innermost backward() or autograd_grad() is to make a graph. Functions of R it runs with gradients enabled either
# way.
creating_graph <- function() {
  for (i in rev(seq_len(sys.nframe()))) {
    frame <- sys.frame(i)
    if (exists("create_graph", envir = frame, inherits = FALSE)) return(isTRUE(get("create_graph", envir = frame)))
  }
  TRUE
}

# The derivative of each element's loss in the operand of that name, as a function of the operands. Its own derivatives are
# torch's operations.
derivative <- function(name, reduction, label_smoothing) {
  force(name)
  force(reduction)
  force(label_smoothing)
  torch::autograd_function(
    forward = function(ctx, input, target, weight, pos_weight) {
      ctx$save_for_backward(input = input, target = target, weight = weight, pos_weight = pos_weight)
      operands <- list(input = input, target = target, weight = weight, pos_weight = pos_weight)
      core(lapply(operands, describe), derivative_names[[name]], reduction, label_smoothing, NULL)[[1]]
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
  y <- operands$target$double()
  complement <- (1 - y) * k + label_smoothing / 2
  y <- y * k + label_smoothing / 2
  w <- if (is.null(operands$weight)) one else operands$weight$double()
  p <- if (is.null(operands$pos_weight)) one else operands$pos_weight$double()
  upper <- function() torch::nnf_logsigmoid(-x)$neg() # log(1 + e^x)
  lower <- function() torch::nnf_logsigmoid(x)$neg() # log(1 + e^-x)
  # a b, where an a of 0 silences an infinite b
  silent <- function(a, b) a * torch::torch_where((a == 0) & b$isinf(), torch::torch_zeros_like(b), b)
  switch(paste(sort(c(name, other)), collapse = " "),
    "input input" = w * (complement + p * y) * x$sigmoid() * (-x)$sigmoid(),
    "input target" = -k * w * (x$sigmoid() + p * (-x)$sigmoid()),
    "input weight" = complement * x$sigmoid() - p * y * (-x)$sigmoid(),
    "input pos_weight" = -w * y * (-x)$sigmoid(),
    "target weight" = k * (silent(p, lower()) - upper()),
    "pos_weight target" = k * silent(w, lower()),
    "pos_weight weight" = silent(y, lower()),
    torch::torch_zeros_like(x)
  )
}

utils::globalVariables(c("self", "super"))

# R torch's module of this name, with the forward pass of this package: its buffers, state_dict() and printed form are torch's.
# Its generator takes R's numbers too, and refuses in the name of the user's call.
torch_module <- local({
  generator <- NULL
  function() {
    if (is.null(generator)) {
      made <- torch::nn_module(
        inherit = torch::nn_bce_with_logits_loss,
        initialize = function(weight = NULL, reduction = "mean", pos_weight = NULL) {
          super$initialize(as_buffer(weight, "weight", NULL), reduction, as_buffer(pos_weight, "pos_weight", NULL))
        },
        forward = function(input, target) {
          # A module may be saved here and read where this package is not, which loadNamespace() says.
          if (!isNamespaceLoaded("bcebridge")) loadNamespace("bcebridge")
          module_forward(self, input, target, sys.call())
        }
      )
      generator <<- structure(
        function(weight = NULL, reduction = "mean", pos_weight = NULL) {
          call <- sys.call()
          made(as_buffer(weight, "weight", call), reduction, as_buffer(pos_weight, "pos_weight", call))
        },
        class = class(made), module = attr(made, "module")
      )
    }
    generator
  }
})

module_forward <- function(module, input, target, call) {
  weights <- list(module$weight, module$pos_weight)
  if (!is_tensor(input) && !is_tensor(target)) weights <- lapply(weights, as_numbers)
  evaluate(input, target, weights[[1]], weights[[2]], module$reduction, call = call)
}

# Where torch is loaded, the constructor is the generator of its module, from which others can inherit.
.onLoad <- function(libname, pkgname) {
  without_torch <- nn_bce_with_logits_loss
  namespace <- topenv()
  rm("nn_bce_with_logits_loss", envir = namespace)
  constructor <- function() if (torch_is_loaded()) torch_module() else without_torch
  makeActiveBinding("nn_bce_with_logits_loss", constructor, namespace)
}

torch_is_loaded <- function() isNamespaceLoaded("torch") && torch::torch_is_installed()

# Numbers become buffers of doubles, which hold them exactly.
as_buffer <- function(x, name, call) {
  if (is.null(x) || is_tensor(x)) x else tensor_of_numbers(check_operand(x, name, call))
}

as_numbers <- function(x) if (is_tensor(x)) torch::as_array(x$cpu()$double()) else x
