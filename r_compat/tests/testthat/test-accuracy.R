# Logits over the whole range of doubles where nmath itself keeps full precision: its plogis(x) is 0 below -709.78, and
# weights make an error in the last place of a subnormal number a large one.
logits <- local({
  set.seed(20)
  c(rnorm(5e4, 0, 3), runif(5e4, -700, 700), outer(c(-1, 1), 2^runif(2.5e4, -60, 9)))
})
n <- length(logits)
weights <- local({
  set.seed(21)
  data.frame(w = rexp(n), p = rexp(n), y = runif(n))
})

# The bounds are those measured, so they hold both roundings: the core's (2 ULP for hard labels) and nmath's.
test_that("hard labels agree with nmath in both tails, where 1 - plogis(x) would have lost all digits", {
  for (y in 0:1) {
    loss <- elementwise(logits, rep(y, n))
    expect_lte(ulp_error(c(loss), nmath_loss(logits, y)), 3)
    expect_lte(ulp_error(gradient_of(loss), nmath_gradient(logits, y)), 2)
  }
})

# Catches results that are no float32, are rounded twice, lose what float32 can show, or a gradient in another shape.
test_that("float32 results are those of nmath, rounded once", {
  as_float32 <- function(x) readBin(writeBin(x, raw(), size = 4), "double", length(x), size = 4)
  float32_error <- function(got, want) abs(got - want) / 2^pmax(floor(log2(abs(want))) - 23, -149)
  x <- matrix(logits[abs(logits) < 80][1:40000], 200, dimnames = list(NULL, NULL))
  y <- x > 1
  loss <- bce_with_logits(x, y, reduction = "none", gradient = TRUE, dtype = "float32")
  for (result in list(loss, gradient_of(loss))) expect_identical(as_float32(c(result)), c(result))
  expect_lte(max(float32_error(c(loss), c(nmath_loss(x, y)))), 0.5001)
  expect_lte(max(float32_error(c(gradient_of(loss)), c(nmath_gradient(x, y)))), 0.5001)
  expect_identical(dim(gradient_of(loss)), dim(x))
  expect_identical(bce_with_logits(x, y, dtype = "float32"), as_float32(bce_with_logits(x, y)))
  expect_identical(bce_with_logits(-40, 0, dtype = "float32"), as_float32(exp(-40)))
  expect_length(bce_with_logits(double(), double(), reduction = "none", dtype = "float32"), 0)
})

test_that("the tails reach down to the last subnormal number", {
  x <- c(-709.9, -720, -740)
  loss <- elementwise(x, rep(0, 3))
  expect_lte(ulp_error(c(loss), exp(x)), 1)
  expect_lte(ulp_error(gradient_of(loss), exp(x)), 1)
})

test_that("soft labels, weights and pos_weights agree with nmath: each factor is on the term it belongs to", {
  for (y in list(rep(0, n), rep(1, n), weights$y)) {
    loss <- elementwise(logits, y, weights$w, weights$p)
    expect_lte(ulp_error(c(loss), nmath_loss(logits, y, weights$w, weights$p)), 5)
    size <- weights$w * ((1 - y) * plogis(logits) + weights$p * y * plogis(-logits))
    expect_lte(ulp_error(gradient_of(loss), nmath_gradient(logits, y, weights$w, weights$p), size), 5)
  }
})

test_that("targets outside [0, 1] and negative weights are computed as the formula says", {
  loss <- elementwise(c(1, -2, 0.5), c(2, -1, 1), c(1, -2, 3), c(1, 1, -4))
  expect_equal(c(loss), nmath_loss(c(1, -2, 0.5), c(2, -1, 1), c(1, -2, 3), c(1, 1, -4)), tolerance = 1e-15)
})

test_that("the sum is half of the binomial deviance", {
  set.seed(22)
  x <- runif(1000, -5, 5)
  y <- rbinom(1000, 1, 0.5)
  w <- rexp(1000)
  expect_equal(
    bce_with_logits(x, y, w, reduction = "sum"),
    sum(binomial()$dev.resids(y, plogis(x), w)) / 2,
    tolerance = 1e-14
  )
})

test_that("a sum is exact before it is rounded: what cancels leaves nothing behind, in any order", {
  x <- c(1e300, 0.5, 1e300)
  expect_identical(bce_with_logits(x, c(0, 0, 0), c(1, 1, -1), reduction = "sum"), bce_with_logits(0.5, 0))
  shuffled <- rev(seq_len(n))
  for (reduction in c("sum", "mean")) {
    expect_identical(
      bce_with_logits(logits, weights$y, reduction = reduction),
      bce_with_logits(logits[shuffled], weights$y[shuffled], reduction = reduction)
    )
  }
})

test_that("label smoothing is that of the targets, in the loss, its derivatives and its exact sum", {
  # of few enough bits that smoothing rounds nothing, here or there
  y <- floor(weights$y * 2^20) / 2^20
  for (e in c(0, 0.125, 1)) {
    smooth <- y * (1 - e) + e / 2
    loss <- elementwise(logits, y, weights$w, weights$p, label_smoothing = e)
    expect_lte(ulp_error(c(loss), nmath_loss(logits, smooth, weights$w, weights$p)), 5)
    size <- weights$w * ((1 - smooth) * plogis(logits) + weights$p * smooth * plogis(-logits))
    expect_lte(ulp_error(gradient_of(loss), nmath_gradient(logits, smooth, weights$w, weights$p), size), 5)
    expect_identical(
      bce_accumulator()$update(logits, y, weights$w, weights$p, e)$sum(),
      bce_with_logits(logits, y, weights$w, weights$p, "sum", label_smoothing = e)
    )
    expect_lte(ulp_error(bce_curvature(logits, y, reduction = "none", label_smoothing = e), dlogis(logits)), 5)
  }
  expect_identical(elementwise(logits, y, label_smoothing = 0), elementwise(logits, y))
})

# nmath's density of the logistic distribution is sigma(x) sigma(-x).
test_that("the curvature agrees with nmath, weights and pos_weights on the terms they belong to", {
  for (y in list(rep(0, n), rep(1, n), weights$y)) {
    expect_lte(ulp_error(bce_curvature(logits, y, reduction = "none"), dlogis(logits)), 5)
    want <- weights$w * (1 - y + weights$p * y) * dlogis(logits)
    expect_lte(ulp_error(bce_curvature(logits, y, weights$w, weights$p, "none"), want), 8)
  }
  each <- bce_curvature(logits, weights$y, reduction = "none")
  expect_identical(bce_curvature(logits, weights$y, reduction = "sum"), each)
  expect_identical(bce_curvature(c(1, -2), c(1, 0)), bce_curvature(c(1, -2), c(1, 0), reduction = "sum") / 2)
})

test_that("sum and mean are rounded once", {
  # each loss is its logit exactly; 2^54 + 41 is no double, so added one by one they come to 2^54 + 120
  x <- c(2^54, 41, 41, 41)
  expect_identical(bce_with_logits(x, numeric(4), reduction = "sum"), 2^54 + 124)
  expect_identical(bce_with_logits(x, numeric(4)), 2^52 + 31)
})

test_that("the mean is over elements, not over weights", {
  expect_equal(bce_with_logits(c(0, 0), c(0, 0), weight = c(1, 5)), 3 * log(2), tolerance = 1e-15)
  # (3 log(1 + 1/e) + log(1 + 1/e^2)) / 2, computed in 50 digits
  expect_equal(bce_with_logits(c(1, -2), c(1, 0), pos_weight = 3), 0.53335653679882049930, tolerance = 1e-15)
})

test_that("the gradient is that of the reduced loss", {
  each <- gradient_of(elementwise(c(1, -2), c(1, 0)))
  expect_identical(gradient_of(bce_with_logits(c(1, -2), c(1, 0), reduction = "sum", gradient = TRUE)), each)
  expect_identical(gradient_of(bce_with_logits(c(1, -2), c(1, 0), gradient = TRUE)), each / 2)
})
