test_that("a target of another shape is refused, not recycled", {
  expect_match(refusal(bce_with_logits(1:6, 1)), "target must have the input's shape (6), got shape (1)", fixed = TRUE)
  expect_match(refusal(bce_with_logits(1, 1:6)), "target must have the input's shape (1), got shape (6)", fixed = TRUE)
  message <- refusal(bce_with_logits(matrix(0, 3, 1), c(1, 0, 1)))
  expect_match(message, "target must have the input's shape (3, 1), got shape (3): a vector without dim", fixed = TRUE)
})

test_that("a weight that does not broadcast, or would enlarge the result, is refused by its name", {
  x <- matrix(0, 4, 3)
  expect_match(
    refusal(bce_with_logits(x, x, weight = 1:4)),
    "weight must broadcast to the input's shape (4, 3), got shape (4)",
    fixed = TRUE
  )
  expect_match(
    refusal(bce_with_logits(1:4, 1:4, pos_weight = matrix(1, 4))),
    "pos_weight must broadcast to the input's shape (4), got shape (4, 1)",
    fixed = TRUE
  )
  of_one <- "weight must broadcast to the input's shape (1), got shape "
  expect_match(refusal(bce_with_logits(1, 1, weight = 1:2)), paste0(of_one, "(2)"), fixed = TRUE)
  expect_match(refusal(bce_with_logits(1, 1, weight = numeric(0))), paste0(of_one, "(0)"), fixed = TRUE)
})

test_that("whatever is no plain numbers is refused as each operand, with the way to numbers", {
  bad <- list(
    "class factor.*== \"yes\"" = factor("yes"),
    "class ordered.*== \"yes\"" = ordered("yes"),
    "class data.frame.*as.matrix.*\\[\\[" = data.frame(x = 1),
    "class integer64.*as.numeric.*bit64" = structure(4.94065645841247e-324, class = "integer64"),
    "class torch_tensor.*as_array" = structure(list(), class = c("torch_tensor", "R7")),
    "class Date" = as.Date("2020-01-01"),
    "class POSIXlt" = as.POSIXlt("2020-01-01", tz = "UTC"),
    "class difftime" = as.difftime(1, units = "secs"),
    "class table" = table(1),
    "type character.*as.numeric" = "1",
    "type complex.*Re" = 1i,
    "type list.*unlist" = list(1),
    "type raw.*as.integer" = as.raw(1),
    "type closure" = function(x) x,
    "type environment" = globalenv()
  )
  operands <- list(input = 1, target = 1, weight = 1, pos_weight = 1)
  for (pattern in names(bad)) {
    for (name in names(operands)) {
      expect_match(
        refusal(do.call(bce_with_logits, replace(operands, name, bad[pattern]))),
        paste0("^", name, " must be a numeric vector, matrix or array, got ", pattern)
      )
    }
  }
  expect_match(refusal(bce_with_logits(NULL, 1)), "^input must be a numeric vector, matrix or array, got NULL$")
  expect_match(refusal(bce_with_logits(1, NULL)), "^target must be a numeric vector, matrix or array, got NULL$")
})

# Catches a class of another package that does not look as the test above makes believe.
test_that("tibbles and integer64 are refused, with the way to numbers", {
  skip_if_not_installed("tibble")
  skip_if_not_installed("bit64")
  table <- tibble::tibble(x = 1)
  expect_match(refusal(bce_with_logits(1, table)), "target must be a numeric .*, got class tbl_df: use as.matrix")
  expect_identical(bce_with_logits(1, table[["x"]]), bce_with_logits(1, 1))
  expect_identical(bce_with_logits(as.matrix(table), as.matrix(table)), bce_with_logits(1, 1))
  big <- bit64::as.integer64(1)
  expect_match(refusal(bce_with_logits(big, 1)), "input must be a numeric .*, got class integer64: use as.numeric")
  expect_match(refusal(bce_with_logits(1, big)), "target must be a numeric .*, got class integer64: use as.numeric")
})

test_that("label_smoothing is a number in [0, 1]", {
  for (bad in list(-0.1, 1.1, NA, NaN, "0.1", NULL, c(0.1, 0.2), list(0.1), structure(0, class = "integer64"))) {
    text <- "^label_smoothing must be a number in \\[0, 1\\], got ."
    expect_match(refusal(bce_with_logits(1, 1, label_smoothing = bad)), text)
    expect_match(refusal(bce_accumulator()$update(1, 1, label_smoothing = bad)), text)
  }
})

test_that("logical logits are taken for what they are, targets in the wrong place", {
  text <- "input must be numeric logits, got type logical: are input and target the wrong way round"
  expect_match(refusal(bce_with_logits(c(TRUE, FALSE), c(1, -2))), text)
})

test_that("NA of any type is refused with its first position, never taken for a number or for NaN", {
  operands <- list(input = c(1, 2, 3), target = c(0, 1, 1), weight = c(1, 1, 1), pos_weight = c(2, 2, 2))
  for (name in names(operands)) {
    expect_match(
      refusal(do.call(bce_with_logits, replace(operands, name, list(c(NaN, NA, NA))))),
      paste(name, "must have no NA, got NA at [2]"),
      fixed = TRUE
    )
  }
  expect_match(refusal(bce_with_logits(1:2, c(1L, NA))), "target must have no NA, got NA at [2]", fixed = TRUE)
  expect_match(refusal(bce_with_logits(1:2, c(NA, TRUE))), "target must have no NA, got NA at [1]", fixed = TRUE)
  expect_match(refusal(bce_with_logits(c(NA, 1L), 0:1)), "input must have no NA, got NA at [1]", fixed = TRUE)
  # Catches an NA that no element shows, and one beside operands of other types.
  empty <- matrix(0, 0, 2)
  text <- "weight must have no NA, got NA at [2]"
  for (weight in list(c(1, NA), c(1L, NA), c(TRUE, NA))) {
    expect_match(refusal(bce_with_logits(empty, empty, weight, reduction = "sum")), text, fixed = TRUE)
    expect_match(refusal(bce_with_logits(matrix(1L, 3, 2), matrix(TRUE, 3, 2), weight)), text, fixed = TRUE)
  }
  x <- matrix(0, 2, 3)
  expect_match(refusal(bce_with_logits(x, replace(x, 4, NA))), "target must have no NA, got NA at [2, 2]", fixed = TRUE)
})

test_that("an unknown reduction is refused in the words of match.arg, when the loss is called", {
  reduction <- "reduction must be \"mean\", \"sum\" or \"none\", got"
  expect_match(
    refusal(bce_with_logits(1, 1, reduction = "foo")),
    paste(reduction, "\"foo\": 'arg' should be one of"),
    fixed = TRUE
  )
  nnf <- nnf_binary_cross_entropy_with_logits
  expect_match(refusal(nnf(1, 1, reduction = 3)), paste(reduction, "3: 'arg' must be NULL or"), fixed = TRUE)
  expect_match(refusal(nnf(1, 1, reduction = c("a", "b"))), "'arg' must be of length 1")
  expect_match(refusal(nn_bce_with_logits_loss(reduction = "foo")(1, 1)), "'arg' should be one of")
})

test_that("dtype is the name of a type that results can have", {
  for (dtype in list("float16", "double", NULL, 32, c("float32", "float64"))) {
    expect_match(refusal(bce_with_logits(1, 1, dtype = dtype)), "^dtype must be \"float64\" or \"float32\", got .")
  }
})

test_that("gradient is a flag", {
  for (bad in list(NA, "yes", 1, NULL, c(TRUE, TRUE))) {
    expect_match(refusal(bce_with_logits(1, 1, gradient = bad)), "^gradient must be TRUE or FALSE, got .")
  }
})

test_that("more dimensions than the core has are refused, not written past", {
  x <- array(0, rep(1, 65))
  expect_match(refusal(bce_with_logits(x, x)), "input must have 0 to 64 dimensions, got 65")
})

test_that("an error is raised in the name of the user's call", {
  call_of <- function(expression) conditionCall(tryCatch(expression, bce_bridge_error = identity))
  expect_identical(call_of(bce_with_logits("a", 1)), quote(bce_with_logits("a", 1)))
  loss <- nn_bce_with_logits_loss()
  expect_identical(call_of(loss("a", 1)), quote(loss("a", 1)))
})
