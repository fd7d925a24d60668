# libtorch gives NaN at the silenced terms, which breaks masking by -Inf.
test_that("at an infinite logit a term with a zero coefficient is silent, and the other is its limit", {
  loss <- elementwise(c(Inf, -Inf, Inf, -Inf), c(1, 0, 0, 1))
  expect_identical(c(loss), c(0, 0, Inf, Inf))
  expect_equal(gradient_of(loss), c(0, 0, 1, -1))
})

test_that("weight and pos_weight scale the limits of the gradient", {
  loss <- elementwise(c(Inf, -Inf), c(0, 1), weight = 2, pos_weight = 3)
  expect_identical(c(loss), c(Inf, Inf))
  expect_identical(gradient_of(loss), c(2, -6))
})

test_that("weight 0 silences an element, pos_weight 0 its positive term", {
  loss <- elementwise(c(Inf, -Inf, 3), c(0, 1, 0.5), weight = 0)
  expect_equal(c(loss), c(0, 0, 0))
  expect_equal(gradient_of(loss), c(0, 0, 0))
  expect_equal(c(elementwise(-Inf, 1, pos_weight = 0)), 0)
})

test_that("NaN in any operand, weight 0 or not, gives NaN, and not NA", {
  operands <- list(input = 1, target = 1, weight = 0, pos_weight = 2)
  for (name in names(operands)) {
    loss <- do.call(elementwise, replace(operands, name, NaN))
    expect_identical(c(loss), NaN, info = name)
    expect_identical(gradient_of(loss), NaN, info = name)
  }
})

test_that("a finite logit, however large, gives a finite loss", {
  expect_identical(bce_with_logits(c(-1, 1) * .Machine$double.xmax, c(0, 1)), 0)
  expect_identical(bce_with_logits(.Machine$double.xmax, 0), .Machine$double.xmax)
})

test_that("of nothing the sum is 0, the mean NaN, and elementwise there is nothing, in its shape", {
  for (empty in list(numeric(0), matrix(0, 0, 3), array(0, c(2, 0, 4)))) {
    expect_identical(bce_with_logits(empty, empty, reduction = "sum"), 0)
    expect_identical(bce_with_logits(empty, empty), NaN)
    loss <- elementwise(empty, empty)
    expect_identical(structure(loss, gradient = NULL), empty)
    expect_identical(gradient_of(loss), empty)
  }
})
