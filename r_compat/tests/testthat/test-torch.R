# The oracles: R torch's own operation and its derivatives, nmath, glm, and this package on R's numbers.
skip_without_torch <- function() {
  if (!requireNamespace("torch", quietly = TRUE)) skip("torch not installed")
  skip_if_not(torch::torch_is_installed(), "torch not installed")
}

# A copy: torch 0.17 may let the tensor lie in R's vector, and R takes that back.
double <- function(x) torch::torch_tensor(x, dtype = torch::torch_double())$clone()
leaf <- function(tensor) tensor$detach()$clone()$requires_grad_(TRUE)
numbers <- function(tensor) as.vector(torch::as_array(tensor$detach()$to(dtype = torch::torch_double())))
dtype_of <- function(tensor) as.character(tensor$dtype)
ours <- function(...) nn_bce_with_logits_loss(...)
theirs <- function(...) torch::nn_bce_with_logits_loss(...)

problem <- function(shape) {
  n <- prod(shape)
  list(x = double(array(rnorm(n, 0, 3), shape)), y = double(array(runif(n), shape)))
}

# Loss, gradients in both operands, and the gradients of a function of those.
derivatives <- function(loss, x, y) {
  x <- leaf(x)
  y <- leaf(y)
  value <- loss(x, y)$sum()
  first <- torch::autograd_grad(value, list(x, y), create_graph = TRUE)
  second <- torch::autograd_grad((first[[1]]$square() + 2 * first[[2]]$square())$sum(), list(x, y))
  lapply(c(value, first, second), numbers)
}

test_that("a loss is R torch's module: its class, printed form, buffers and state_dict", {
  skip_without_torch()
  for (arguments in list(list(), list(pos_weight = torch::torch_tensor(c(1, 2))), list(torch::torch_ones(2, 1), "su"))) {
    m <- do.call(ours, arguments)
    r <- do.call(theirs, arguments)
    expect_identical(class(m), class(r))
    expect_identical(names(formals(m)), names(formals(r)))
    expect_identical(capture.output(print(m)), capture.output(print(r)))
    expect_identical(names(m$state_dict()), names(r$state_dict()))
    expect_identical(m$reduction, r$reduction)
  }
  m <- ours(pos_weight = 3)
  expect_identical(dtype_of(m$to(dtype = torch::torch_float())$pos_weight), "Float")
  expect_identical(m$to(device = "meta")$pos_weight$device$type, "meta")
  other <- ours(pos_weight = 1)
  other$load_state_dict(ours(pos_weight = 5)$state_dict())
  expect_identical(numbers(other$pos_weight), 5)
  expect_identical(names(theirs(torch::torch_tensor(1))$state_dict()), "weight")
})

# Catches an NA that becomes NaN in a buffer, and a class whose numbers mean something else.
test_that("weights that are no plain numbers are refused when the module is made", {
  skip_without_torch()
  for (missing in list(c(1, NA), c(1L, NA), c(TRUE, NA))) {
    expect_match(refusal(ours(missing)), "weight must have no NA, got NA at [2]", fixed = TRUE)
    expect_match(refusal(ours(pos_weight = missing)), "pos_weight must have no NA, got NA at [2]", fixed = TRUE)
  }
  expect_match(refusal(ours(pos_weight = factor("yes"))), "pos_weight must be a numeric .*, got class factor")
  expect_identical(numbers(ours(c(TRUE, NaN))$weight), c(1, NaN))
  call <- conditionCall(tryCatch(nn_bce_with_logits_loss(NA), error = identity))
  expect_identical(call, quote(nn_bce_with_logits_loss(NA)))
})

# Catches a weight on the wrong term, a transposed tensor, a gradient divided twice, or of the wrong operand.
test_that("loss, gradients and double backward are R torch's, for every reduction, shape and weight", {
  skip_without_torch()
  set.seed(50)
  for (shape in list(5, c(4, 3), c(2, 1, 3, 4))) {
    columns <- utils::tail(shape, 1)
    weights <- list(NULL, double(rexp(columns)), double(array(rexp(prod(shape)), shape)), double(2)$squeeze())
    for (reduction in c("mean", "sum", "none")) {
      for (i in 1:4) {
        with(problem(shape), {
          for (settings in list(list(weights[[i]], reduction), list(weights[[i]], reduction, weights[[5 - i]]))) {
            losses <- list(do.call(ours, settings), do.call(theirs, settings))
            both <- lapply(losses, derivatives, x, y)
            expect_equal(both[[1]], both[[2]], tolerance = 1e-12)
          }
        })
      }
    }
  }
})

test_that("tensors give the bits of R's numbers, and float tensors those rounded once", {
  skip_without_torch()
  set.seed(51)
  x <- matrix(c(rnorm(5990, 0, 10), Inf, -Inf, 0, -0, 740, -740, 40, -40, 1e300, NaN), 3)
  y <- matrix(rbinom(6000, 1, 0.5), 3)
  want <- elementwise(x, y)
  got <- bce_with_logits(double(x), double(y), reduction = "none", gradient = TRUE)
  expect_identical(numbers(got), as.vector(want))
  expect_identical(numbers(attr(got, "gradient")), as.vector(gradient_of(want)))
  smooth <- torch::with_no_grad(elementwise(double(x), double(y), label_smoothing = 0.1))
  want <- elementwise(x, y, label_smoothing = 0.1)
  expect_identical(numbers(smooth), as.vector(want))
  expect_identical(numbers(attr(smooth, "gradient")), as.vector(gradient_of(want)))
  for (reduction in c("mean", "sum")) {
    expect_identical(numbers(ours(reduction = reduction)(double(x[1:5900]), double(y[1:5900]))),
                     bce_with_logits(x[1:5900], y[1:5900], reduction = reduction))
  }
  float <- torch::torch_tensor(x[1:5900])
  exact <- nmath_loss(numbers(float), y[1:5900])
  for (dtype in list(torch::torch_float(), torch::torch_half(), torch::torch_bfloat16())) {
    target <- torch::torch_tensor(y[1:5900], dtype)
    rounded <- ours(reduction = "none")(float, target)
    expect_identical(dtype_of(rounded), as.character(dtype))
    expect_identical(numbers(rounded), numbers(double(exact)$to(dtype = dtype)))
  }
})

# Catches memory read from the start of a storage that the tensor does not begin at, or without its strides or sign.
test_that("a tensor is read as it is: a view, transposed, expanded, negated, of no dimension, of nothing", {
  skip_without_torch()
  set.seed(52)
  base <- double(matrix(rnorm(60, 0, 3), 6))
  views <- list(
    base[2:4, ], base[, 3:9], base[1:6, 2], base$t(), base$t()[2:5, ], base[3, 3], base[2:2, 1:1]$expand(c(4, 5)),
    base[1, 1]$expand(c(2, 3)), base[seq(1, 6, 2), seq(2, 10, 3)], base[1:1, ], base$flip(1), base$narrow(2, 4, 3)$t(),
    torch::torch_empty(0, 3, dtype = torch::torch_double()), torch::torch_complex(base, base)$conj()$imag
  )
  expect_true(views[[length(views)]]$is_neg())
  for (view in views) {
    target <- torch::torch_rand_like(view)
    plain <- function(tensor) double(torch::as_array(tensor))$reshape(tensor$shape)
    got <- bce_with_logits(view, target, weight = view, reduction = "none", gradient = TRUE)
    want <- theirs(plain(view), "none")(plain(view), plain(target))
    expect_identical(got$shape, view$shape)
    expect_equal(numbers(got), numbers(want), tolerance = 1e-12)
    slope <- numbers(view) * (plogis(numbers(view)) - numbers(target))
    expect_equal(numbers(attr(got, "gradient")), slope, tolerance = 1e-12)
  }
})

test_that("operands are left as they were, and memory that is gone is not read", {
  skip_without_torch()
  x <- torch::torch_randn(1000)
  y <- torch::torch_ones(1000)
  before <- numbers(x)
  loss <- ours(reduction = "none")
  want <- numbers(loss(x, y))
  for (i in 1:50) {
    expect_identical(numbers(loss(x$clone(), y$clone())), want)
    gc(FALSE)
  }
  slope <- local({
    z <- leaf(x)
    value <- ours()(z * 1, y * 1)
    gc(FALSE)
    value$backward()
    z$grad
  })
  expect_equal(numbers(slope), -plogis(-before) / 1000, tolerance = 1e-6)
  expect_identical(numbers(x), before)
})

# Catches a loss that is held by what it holds: 4 MB a call, and some hundred cells of R.
test_that("what is let go of is freed, the graph too", {
  skip_without_torch()
  x <- leaf(torch::torch_randn(2^20))
  y <- torch::torch_ones(2^20)
  loss <- ours()
  work <- function() {
    for (i in 1:40) {
      value <- loss(x, y)
      value$backward()
      x$grad$zero_()
    }
    gc()[, 1]
  }
  resident <- function() {
    pages <- tryCatch(readLines("/proc/self/statm"), error = function(e) "0 0", warning = function(w) "0 0")
    as.numeric(strsplit(pages, " ")[[1]][[2]]) * 4096
  }
  work()
  before <- work()
  size <- resident()
  expect_lt(max(work() - before), 40 * 100)
  expect_lt(resident() - size, 40e6)
})

test_that("integer and logical targets are labels, in the input's dtype; R torch refuses them", {
  skip_without_torch()
  x <- torch::torch_tensor(c(1, -2, 0.5))
  want <- numbers(ours()(x, torch::torch_tensor(c(1, 0, 1))))
  for (dtype in list(torch::torch_bool(), torch::torch_long(), torch::torch_int(), torch::torch_uint8())) {
    loss <- ours()(x, torch::torch_tensor(c(1, 0, 1), dtype))
    expect_identical(list(numbers(loss), dtype_of(loss)), list(want, "Float"))
  }
  expect_identical(numbers(ours()(x, c(TRUE, FALSE, TRUE))), want)
})

test_that("R's numbers and tensors meet: weights are exact, targets take the input's dtype, the result is a tensor", {
  skip_without_torch()
  x <- c(1, -2, 0.5)
  y <- c(0.1, 0.7, 1)
  loss <- ours(0.1, "none", c(1, 0.3, 3))
  for (got in list(loss(double(x), y), loss(x, double(y)), bce_with_logits(double(x), double(y), 0.1, c(1, 0.3, 3), "none"))) {
    expect_identical(numbers(got), c(bce_with_logits(x, y, 0.1, c(1, 0.3, 3), "none")))
  }
  expect_identical(dtype_of(loss(torch::torch_tensor(x), y)), "Float")
  # Of numbers alone the loss is a number, with torch as without, to the last bit.
  expect_identical(loss(x, y), bce_with_logits(x, y, 0.1, c(1, 0.3, 3), "none"))
  expect_identical(numbers(ours(2)(double(1)$squeeze(), double(1)$squeeze())), 2 * bce_with_logits(1, 1))
  expect_match(refusal(loss(double(x), c(1, NA, 0))), "target must have no NA, got NA at [2]", fixed = TRUE)
  expect_match(refusal(bce_with_logits(x, y, weight = double(1))), "weight must be .*, got class torch_tensor.*as_array")
})

test_that("reduction may be set later, is matched in part when the loss is called, and NULL is the mean", {
  skip_without_torch()
  x <- double(c(1, -2, 0.5))
  y <- double(c(1, 0, 0.25))
  m <- ours()
  m$reduction <- "su"
  expect_identical(numbers(m(x, y)), bce_with_logits(numbers(x), numbers(y), reduction = "sum"))
  for (reduction in list("me", NULL, c("mean", "sum", "none"))) {
    expect_identical(numbers(nnf_binary_cross_entropy_with_logits(x, y, reduction = reduction)), numbers(ours()(x, y)))
  }
  m$reduction <- "foo"
  expect_match(refusal(m(x, y)), "^reduction is \"foo\": 'arg' should be one of")
  m <- ours(weight = 2)
  m$weight <- torch::nn_buffer(double(c(1, 2, 3)))
  expect_identical(numbers(m(x, y)), bce_with_logits(numbers(x), numbers(y), weight = c(1, 2, 3)))
})

test_that("what does not fit is an error of this package, in the name of the user's call", {
  skip_without_torch()
  x <- torch::torch_zeros(4, 3)
  loss <- ours(torch::torch_ones(4))
  expect_match(refusal(loss(x, x)), "weight must broadcast to the input's shape (4, 3), got shape (4)", fixed = TRUE)
  expect_match(refusal(bce_with_logits(x, x[1, ])), "target must have the input's shape (4, 3), got shape (3)", fixed = TRUE)
  long <- x$to(dtype = torch::torch_long())
  expect_match(refusal(bce_with_logits(long, x)), "input must have a floating dtype, got Long")
  expect_match(refusal(bce_with_logits(x, "a")), "target must be a numeric vector, matrix or array, got type character")
  expect_match(refusal(bce_with_logits(x, NULL)), "target must be a numeric vector, matrix or array, got NULL")
  text <- "input must be numeric logits, got type logical: are input and target the wrong way round"
  expect_match(refusal(bce_with_logits(c(TRUE, FALSE), double(c(1, 0)))), text)
  expect_match(refusal(bce_with_logits(x, x, na.action = na.pass)), "na.action must be na.fail beside tensors, .*, got na.pass")
  expect_match(refusal(bce_with_logits(x, x, dtype = "float32")), "dtype must be \"float64\" beside tensors, got \"float32\"")
  expect_identical(conditionCall(tryCatch(loss(x, x), error = identity)), quote(loss(x, x)))
  expect_identical(conditionCall(tryCatch(loss(leaf(x), x), error = identity)), quote(loss(leaf(x), x)))
})

test_that("what torch does at an infinite logit, of nothing, and without a gradient for \"none\"", {
  skip_without_torch()
  x <- leaf(double(c(Inf, -Inf)))
  loss <- ours()(x, double(c(1, 0)))
  loss$backward()
  expect_identical(c(numbers(loss), numbers(x$grad)), c(0, 0, 0))
  empty <- double(numeric())
  expect_identical(c(numbers(ours()(empty, empty)), numbers(ours(reduction = "sum")(empty, empty))), c(NaN, 0))
  expect_error(ours(reduction = "none")(leaf(double(c(1, 2))), double(c(1, 0)))$backward(), "scalar")
  twice <- leaf(double(c(1, 2)))
  loss <- ours()(twice, double(c(1, 0)))
  loss$backward(retain_graph = TRUE)
  loss$backward()
  expect_equal(numbers(twice$grad), 2 * gradient_of(bce_with_logits(c(1, 2), c(1, 0), gradient = TRUE)))
})

test_that("weight and pos_weight have gradients, where R torch has none, and so have those", {
  skip_without_torch()
  set.seed(53)
  formula <- function(x, y, w, p) {
    (w * ((1 - y) * torch::nnf_logsigmoid(-x) + p * y * torch::nnf_logsigmoid(x)))$mean()$neg()
  }
  loss <- function(x, y, w, p) bce_with_logits(x, y, w, p)
  results <- lapply(list(loss, formula), function(f) {
    set.seed(54)
    operands <- lapply(list(c(4, 3), c(4, 3), c(4, 1), 3), function(shape) leaf(double(array(rexp(prod(shape)), shape))))
    first <- torch::autograd_grad(do.call(f, operands), operands, create_graph = TRUE)
    second <- torch::autograd_grad(Reduce(`+`, lapply(first, function(g) g$square()$sum())), operands, create_graph = TRUE)
    third <- torch::autograd_grad(Reduce(`+`, lapply(second, function(g) g$square()$sum())), operands)
    lapply(c(first, second, third), numbers)
  })
  expect_equal(results[[1]], results[[2]], tolerance = 1e-12)
})

# Catches a constant in the place of the loss in what is recorded.
test_that("jit_trace records the loss, and no gradient is kept where none is wanted", {
  skip_without_torch()
  x <- torch::torch_tensor(c(1, -2))
  y <- torch::torch_tensor(c(1, 0))
  loss <- ours()
  for (traced in list(torch::jit_trace(function(x, y) loss(x, y), x, y), torch::jit_trace(loss, x, y))) {
    expect_equal(numbers(traced(3 * x, y)), numbers(theirs()(3 * x, y)), tolerance = 1e-6)
  }
  torch::with_no_grad(expect_false(loss(leaf(x), y)$requires_grad))
  expect_false(loss(x, y)$requires_grad)
  expect_true(loss(leaf(x), y)$requires_grad)
})

test_that("tensors that are not in the CPU's memory go to torch's own operation", {
  skip_without_torch()
  # libtorch 2.8 cannot do it for tensors without memory, and says so.
  meta <- torch::torch_empty(4, 3, device = "meta")
  for (loss in list(ours(), theirs())) expect_error(loss(meta, meta), "log_sigmoid.*Meta")
  for (device in c(if (torch::cuda_is_available()) "cuda", if (torch::backends_mps_is_available()) "mps")) {
    x <- torch::torch_tensor(c(1, -2), device = device)
    want <- bce_with_logits(c(1, -2), c(1, 0), pos_weight = 3)
    expect_equal(numbers(ours(pos_weight = 3)(x, c(1, 0))$cpu()), want, tolerance = 1e-6)
  }
})

test_that("in a module it trains a logistic regression to glm's coefficients, and is saved and copied with it", {
  skip_without_torch()
  net <- torch::nn_module(
    initialize = function() {
      self$linear <- torch::nn_linear(2, 1)$to(dtype = torch::torch_double())
      self$criterion <- nn_bce_with_logits_loss(pos_weight = torch::torch_ones(1))
    },
    forward = function(x, y) self$criterion(self$linear(x), y)
  )()
  expect_identical(names(net$state_dict()), c("linear.weight", "linear.bias", "criterion.pos_weight"))
  x <- double(as.matrix(infert[c("spontaneous", "induced")]))
  y <- double(matrix(infert$case))
  optimizer <- torch::optim_lbfgs(net$parameters, lr = 1, max_iter = 100, tolerance_grad = 1e-12, tolerance_change = 1e-14)
  optimizer$step(function() {
    optimizer$zero_grad()
    loss <- net(x, y)
    loss$backward()
    loss
  })
  want <- unname(coef(glm(case ~ spontaneous + induced, binomial, infert, epsilon = 1e-14)))
  expect_equal(c(numbers(net$linear$bias), numbers(net$linear$weight)), want, tolerance = 1e-6)
  file <- tempfile()
  on.exit(unlink(file))
  torch::torch_save(net, file)
  for (copy in list(torch::torch_load(file), net$clone(deep = TRUE))) expect_identical(numbers(copy(x, y)), numbers(net(x, y)))
})

test_that("luz takes it as a loss", {
  skip_without_torch()
  skip_if_not_installed("luz")
  module <- torch::nn_module(
    initialize = function() self$linear <- torch::nn_linear(2, 1),
    forward = function(x) self$linear(x)
  )
  data <- list(as.matrix(infert[c("spontaneous", "induced")]), matrix(as.numeric(infert$case)))
  losses <- lapply(list(ours(), theirs()), function(loss) {
    torch::torch_manual_seed(1)
    fitted <- luz::fit(
      luz::setup(module, loss = loss, optimizer = torch::optim_adam), lapply(data, torch::torch_tensor),
      epochs = 2, verbose = FALSE, accelerator = luz::accelerator(cpu = TRUE)
    )
    unlist(fitted$records$metrics$train)
  })
  expect_equal(losses[[1]], losses[[2]], tolerance = 1e-5)
})

# bcebridge takes lantern where that answers as it should; here the exported way.
with_exported_functions <- function(code) {
  held <- environment(bcebridge:::lantern)
  opened <- held$opened
  on.exit(held$opened <- opened)
  held$opened <- FALSE
  force(code)
}

# Catches an exported way that nobody takes, and a quick way that was refused and so is not tested above.
test_that("by torch's exported functions alone everything is the same", {
  skip_without_torch()
  expect_true(bcebridge:::lantern())
  set.seed(55)
  with(problem(c(4, 3)), {
    for (x in list(x, x$t()$clone()$t(), x[1:4, 1:2])) {
      y <- torch::torch_rand_like(x)
      for (reduction in c("mean", "none")) {
        loss <- ours(torch::torch_rand(4, 1), reduction, torch::torch_tensor(3))
        expect_identical(derivatives(loss, x, y), with_exported_functions(derivatives(loss, x, y)))
      }
      expect_identical(numbers(ours()(x, y)), with_exported_functions(numbers(ours()(x, y))))
    }
  })
})

test_that("the loss can be changed in place, as R torch's", {
  skip_without_torch()
  for (make in list(ours, theirs)) {
    x <- leaf(double(c(1, -2)))
    loss <- make()(x, double(c(1, 0)))
    loss$div_(2)
    loss$backward()
    expect_equal(numbers(x$grad), (plogis(c(1, -2)) - c(1, 0)) / 4)
  }
})

test_that("a batch of one, with a number of R's beside it; and a buffer made of one number has the shape (1)", {
  skip_without_torch()
  x <- torch::torch_tensor(0.5)
  expect_equal(numbers(nnf_binary_cross_entropy_with_logits(x, 1)), numbers(theirs()(x, torch::torch_tensor(1))))
  expect_identical(nnf_binary_cross_entropy_with_logits(x, 1, reduction = "none")$shape, 1L)
  got <- nnf_binary_cross_entropy_with_logits(x$squeeze(), 1, 2, "sum", 3)
  expect_equal(numbers(got), 6 * numbers(theirs()(x, x$new_ones(1))))
  module <- ours(pos_weight = 3)
  module$load_state_dict(theirs(pos_weight = torch::torch_tensor(4))$state_dict())
  expect_identical(numbers(module$pos_weight), 4)
})

# Catches a graph that grows with every gradient that is kept.
test_that("gradients have no graph unless one is asked for", {
  skip_without_torch()
  x <- leaf(double(c(1, -2)))
  y <- double(c(1, 0))
  for (by in list(force, with_exported_functions)) {
    by({
      got <- bce_with_logits(x, y, gradient = TRUE)
      expect_false(got$requires_grad || attr(got, "gradient")$requires_grad)
      for (reduction in c("mean", "none")) {
        loss <- ours(reduction = reduction)
        expect_false(torch::autograd_grad(loss(x, y)$sum(), x)[[1]]$requires_grad)
        expect_true(torch::autograd_grad(loss(x, y)$sum(), x, create_graph = TRUE)[[1]]$requires_grad)
      }
    })
  }
})

# Catches a gradient that backward() takes from what its user has since changed, and operands that have.
test_that("another backward of the same graph is right, and an operand changed in between is refused", {
  skip_without_torch()
  x <- leaf(double(c(1, -2)))
  y <- double(c(1, 0))
  loss <- ours(reduction = "sum")(x, y)
  loss$backward(retain_graph = TRUE)
  want <- numbers(x$grad)
  x$grad$zero_()
  loss$backward(retain_graph = TRUE)
  expect_identical(numbers(x$grad), want)
  # One that the user has, and changes.
  for (i in 1:2) {
    gradient <- torch::autograd_grad(loss, x, retain_graph = TRUE)[[1]]
    expect_identical(numbers(gradient), want)
    gradient$zero_()
  }
  expect_identical(numbers(torch::autograd_grad(loss * 2, x, retain_graph = TRUE)[[1]]), 2 * want)
  y$add_(1)
  expect_error(loss$backward(), "modified by an inplace operation")
})

test_that("the constructor is a module generator, from which others inherit", {
  skip_without_torch()
  expect_s3_class(nn_bce_with_logits_loss, "nn_module_generator")
  expect_identical(class(nn_bce_with_logits_loss), class(torch::nn_bce_with_logits_loss))
  negative <- torch::nn_module("negative", inherit = nn_bce_with_logits_loss, forward = function(x, y) -super$forward(x, y))
  x <- double(c(1, -2))
  y <- double(c(1, 0))
  expect_identical(numbers(negative(pos_weight = 3)(x, y)), -bce_with_logits(c(1, -2), c(1, 0), pos_weight = 3))
})

test_that("autocast computes in float, as R torch does", {
  skip_without_torch()
  x <- torch::torch_randn(6)$to(dtype = torch::torch_bfloat16())
  y <- torch::torch_ones(6, dtype = torch::torch_bfloat16())
  types <- function(make) {
    torch::with_autocast(device_type = "cpu", dtype = torch::torch_bfloat16(), dtype_of(make()(x, y)))
  }
  expect_identical(c(types(ours), types(theirs), dtype_of(ours()(x, y))), c("Float", "Float", "BFloat16"))
})

test_that("a saved module that is read where bcebridge is absent says what is missing", {
  skip_without_torch()
  file <- tempfile(fileext = ".pt")
  on.exit(unlink(file))
  torch::torch_save(ours(), file)
  code <- sprintf("m <- torch::torch_load('%s'); m(torch::torch_ones(2), torch::torch_ones(2))", normalizePath(file))
  elsewhere <- paste(setdiff(.libPaths(), dirname(find.package("bcebridge"))), collapse = .Platform$path.sep)
  said <- suppressWarnings(system2(
    file.path(R.home("bin"), "Rscript"), c("--vanilla", "-e", shQuote(code)), stdout = TRUE, stderr = TRUE,
    env = c(paste0("R_LIBS=", elsewhere), "R_LIBS_SITE=", "R_LIBS_USER=")
  ))
  expect_match(paste(said, collapse = " "), "there is no package called .bcebridge")
})

test_that("an error's call does not hold the operands", {
  x <- as.double(1:20000)
  call <- conditionCall(tryCatch(do.call(bce_with_logits, list(x, x[-1])), error = identity))
  expect_lt(nchar(paste(deparse(call), collapse = "")), 2000)
})
