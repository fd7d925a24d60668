# identical() tells NA from NaN among doubles.
test_that("na.pass: NA where an element meets one, NaN where only that, numbers elsewhere", {
  x <- c(a = 1, b = NA, c = NaN, d = NA, e = -2)
  y <- c(0, 1, 1, NaN, 1)
  for (pass in list(na.pass, "na.pass")) {
    loss <- elementwise(x, y, na.action = pass)
    known <- elementwise(x[c("a", "e")], y[c(1, 5)])
    expect_identical(c(loss), c(known["a"], b = NA, c = NaN, d = NA, known["e"]))
    slope <- gradient_of(known)
    expect_identical(gradient_of(loss), c(slope["a"], b = NA, c = NaN, d = NA, slope["e"]))
    expect_identical(is.nan(loss), c(a = FALSE, b = FALSE, c = TRUE, d = FALSE, e = FALSE))
    curvature <- bce_curvature(x, y, reduction = "none", na.action = pass)
    expect_identical(curvature[2:4], c(b = NA, c = NaN, d = NA))
  }
})

# Catches the integer -2147483648, which NA is among integers and logicals, as a number.
test_that("na.pass: NA of any type in any operand, also one that is broadcast", {
  x <- matrix(1:6 / 2, 2, dimnames = list(NULL, c("a", "b", "c")))
  one <- x * 0 + 1
  middle <- col(x) == 2
  for (missing in list(NA, NA_integer_, NA_real_)) {
    corner <- elementwise(x, replace(one, 1, missing), na.action = na.pass)
    expect_identical(which(is.na(corner)), 1L)
    expect_identical(which(is.na(gradient_of(corner))), 1L)
    for (name in c("weight", "pos_weight")) {
      for (value in list(c(1, missing, 1), matrix(c(1, missing, 1), 1), replace(one, middle, missing))) {
        operands <- structure(list(x, one, value), names = c("input", "target", name))
        loss <- do.call(elementwise, c(operands, list(na.action = na.pass)))
        expect_identical(unname(is.na(loss) & !is.nan(loss)), middle)
        expect_identical(loss[, -2], elementwise(x, one)[, -2])
        expect_identical(dimnames(gradient_of(loss)), dimnames(x))
      }
    }
  }
  expect_identical(elementwise(c(1L, NA), 0:1, na.action = na.pass)[1], c(elementwise(1, 0)))
  expect_identical(c(elementwise(1, 1, weight = NA, na.action = na.pass)), NA_real_)
})

test_that("na.pass: a mean or sum over NA is NA, over NaN alone NaN, of nothing what it is", {
  for (reduction in c("mean", "sum")) {
    loss <- bce_with_logits(c(1, NA, NaN), c(1, 1, 1), reduction = reduction, gradient = TRUE, na.action = na.pass)
    expect_identical(c(loss), NA_real_)
    whole <- bce_with_logits(c(1, 1, 1), c(1, 1, 1), reduction = reduction, gradient = TRUE)
    expect_identical(gradient_of(loss), c(gradient_of(whole)[1], NA, NaN))
    expect_identical(bce_with_logits(c(1, NaN), c(1, 1), reduction = reduction, na.action = na.pass), NaN)
    empty <- matrix(0, 0, 2)
    want <- bce_with_logits(empty, empty, reduction = reduction)
    expect_identical(bce_with_logits(empty, empty, c(1, NA), reduction = reduction, na.action = na.pass), want)
  }
})

test_that("without NA, na.pass changes nothing", {
  x <- c(u = 1, v = NaN)
  expect_identical(elementwise(x, c(1, 0), 2, 3, na.action = na.pass), elementwise(x, c(1, 0), 2, 3))
})

test_that("the default is na.fail; what would shorten the data is refused", {
  for (fail in list(na.fail, "na.fail")) {
    text <- "input must have no NA, got NA at [2]"
    expect_match(refusal(bce_with_logits(c(1, NA), c(1, 0), na.action = fail)), text, fixed = TRUE)
    expect_match(refusal(bce_curvature(c(1, NA), c(1, 0), na.action = fail)), text, fixed = TRUE)
  }
  for (bad in list(na.omit, "na.omit", NULL, TRUE, c("na.fail", "na.pass"))) {
    expect_match(refusal(bce_with_logits(1, 1, na.action = bad)), "^na.action must be na.fail or na.pass, got .")
  }
})

test_that("na.pass is no way round the other checks", {
  text <- "target must have the input's shape (2), got shape (1)"
  expect_match(refusal(bce_with_logits(c(1, NA), 1, na.action = na.pass)), text, fixed = TRUE)
  expect_match(refusal(bce_with_logits(1, factor(NA), na.action = na.pass)), "target must be a numeric .*, got class factor")
})
