x <- c(1, -2, 0.5)
y <- c(1, 0, 0.25)

test_that("the three functions are one loss", {
  for (reduction in c("mean", "sum", "none")) {
    want <- bce_with_logits(x, y, weight = 2, pos_weight = 3, reduction = reduction)
    expect_identical(nnf_binary_cross_entropy_with_logits(x, y, 2, reduction, 3), want)
    expect_identical(nn_bce_with_logits_loss(2, reduction, 3)(x, y), want)
  }
})

test_that("arguments stand in R torch's order, with its defaults", {
  defaults <- as.pairlist(alist(weight = NULL, reduction = "mean", pos_weight = NULL))
  expect_identical(formals(nn_bce_with_logits_loss), defaults)
  expect_named(formals(nnf_binary_cross_entropy_with_logits), c("input", "target", "weight", "reduction", "pos_weight"))
  expect_named(formals(nn_bce_with_logits_loss()), c("input", "target"))
})

test_that("reduction is matched in part; NULL and the vector of choices are the mean", {
  mean_loss <- bce_with_logits(x, y)
  for (reduction in list("me", NULL, c("mean", "sum", "none"))) {
    expect_identical(nnf_binary_cross_entropy_with_logits(x, y, reduction = reduction), mean_loss)
    expect_identical(nn_bce_with_logits_loss(reduction = reduction)(x, y), mean_loss)
  }
  expect_identical(bce_with_logits(x, y, reduction = "s"), bce_with_logits(x, y, reduction = "sum"))
})

test_that("the constructor looks at nothing, as R torch's; the call does", {
  loss <- nn_bce_with_logits_loss(weight = "heavy", reduction = "foo")
  expect_match(refusal(loss(x, y)), "^reduction must be \"mean\", \"sum\" or \"none\", got \"foo\"")
  loss$reduction <- "mean"
  expect_match(refusal(loss(x, y)), "^weight must be a numeric vector, matrix or array, got type character")
})

test_that("settings can be read, replaced and removed; the next call follows", {
  loss <- nn_bce_with_logits_loss(weight = 2)
  expect_identical(loss$weight, 2)
  expect_null(loss$pos_weight)
  loss$reduction <- "sum"
  loss$pos_weight <- 3
  expect_identical(loss(x, y), bce_with_logits(x, y, 2, 3, "sum"))
  loss$weight <- NULL
  expect_identical(loss(x, y), bce_with_logits(x, y, pos_weight = 3, reduction = "sum"))
  expect_null(loss$gamma)
  expect_match(refusal(loss$gamma <- 2), "the setting must be weight, reduction or pos_weight, got gamma")
})

test_that("a setting is fixed when the loss is made, not when it is first called", {
  w <- 2
  loss <- nn_bce_with_logits_loss(weight = w)
  w <- 5
  expect_identical(loss(x, y), bce_with_logits(x, y, weight = 2))
})

test_that("the object is a function of R torch's class and prints as a module does", {
  loss <- nn_bce_with_logits_loss(pos_weight = matrix(1, 2, 3))
  expect_s3_class(loss, c("nn_bce_with_logits_loss", "nn_loss"))
  expect_true(is.function(loss))
  text <- c(
    "An `nn_bce_with_logits_loss` containing 0 parameters, reduction = \"mean\"",
    "",
    "-- Buffers",
    "* pos_weight: double [1:2, 1:3]"
  )
  expect_identical(format(loss), text)
  expect_output(expect_identical(withVisible(print(loss))$visible, FALSE), paste(text, collapse = "\n"), fixed = TRUE)
  expect_length(format(nn_bce_with_logits_loss()), 1)
  expect_output(str(loss), "function (input, target), reduction: \"mean\", pos_weight: double [1:2, 1:3]", fixed = TRUE)
})
