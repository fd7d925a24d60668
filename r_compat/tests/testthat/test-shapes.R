# The weight that element [i, j, ...] of an array of dim d meets, by torch's rule, in plain R.
broadcast <- function(weight, d) {
  own <- if (is.null(dim(weight))) length(weight) else dim(weight)
  own <- c(rep(1, length(d) - length(own)), own)
  at <- arrayInd(seq_len(prod(d)), d)
  at[, own == 1] <- 1
  array(array(weight, own)[at], d)
}

test_that("weight and pos_weight broadcast from the last dimension, whatever their rank", {
  set.seed(30)
  for (d in list(4, c(4, 3), c(3, 3), c(2, 3, 4), c(3, 3, 3), c(2, 1, 3, 4))) {
    x <- array(rnorm(prod(d)), d)
    y <- array(runif(prod(d)), d)
    for (kept in seq_along(d)) {
      # all subsets of the last `kept` dimensions, the others of size 1
      tail_dim <- utils::tail(d, kept)
      for (mask in seq_len(2^kept) - 1) {
        own <- ifelse(bitwAnd(mask, 2^(seq_len(kept) - 1)) > 0, tail_dim, 1)
        w <- array(rexp(prod(own)), own)
        full <- broadcast(w, d)
        expect_identical(elementwise(x, y, weight = w), elementwise(x, y, weight = full))
        expect_identical(elementwise(x, y, pos_weight = w), elementwise(x, y, pos_weight = full))
        expect_identical(
          bce_with_logits(x, y, w, w, "sum"),
          bce_with_logits(x, y, full, full, "sum")
        )
      }
    }
  }
})

test_that("a plain vector is one number a column, not recycled down the rows, even where the matrix is square", {
  loss <- elementwise(matrix(0, 2, 2), matrix(0, 2, 2), weight = c(1, 10))
  expect_identical(loss[2, ] / loss[1, ], c(1, 1))
  expect_identical(loss[, 2] / loss[, 1], c(10, 10))
})

test_that("a column-major array is read as such: element [i, j] of each operand meets the others'", {
  x <- matrix(c(1, -2, 3, 0.5, -1, 2), 2)
  y <- matrix(c(1, 0, 0, 1, 1, 0), 2)
  loss <- elementwise(x, y)
  for (i in 1:2) for (j in 1:3) expect_identical(loss[i, j], bce_with_logits(x[i, j], y[i, j]))
})

test_that("dim, dimnames and names of the input are kept, elementwise and in every gradient, and nothing else is", {
  named <- c(a = 1, b = 2)
  labelled <- matrix(c(1, 2), 1, dimnames = list(row = "r", column = c("a", "b")))
  one_d <- array(c(1, 2), 2, dimnames = list(class = c("a", "b")))
  for (x in list(named, labelled, one_d)) {
    loss <- elementwise(structure(x, "scaled:center" = 3), unname(x) * 0)
    expect_identical(attributes(gradient_of(loss)), attributes(x))
    expect_identical(attributes(structure(loss, gradient = NULL)), attributes(x))
    expect_identical(names(attributes(bce_with_logits(x, x, gradient = TRUE))), "gradient")
  }
  expect_null(attributes(bce_with_logits(named, named)))
})

test_that("operands are left as they were", {
  x <- c(1L, 2L)
  y <- c(TRUE, FALSE)
  elementwise(x, y)
  expect_identical(list(x, y), list(1:2, c(TRUE, FALSE)))
})

test_that("integer and logical operands are the doubles of the same value", {
  x <- matrix(c(-3, 0, 1, 2), 2)
  y <- matrix(c(1, 0, 0, 1), 2)
  want <- elementwise(x, y, weight = c(2, 1), pos_weight = c(1, 3))
  integers <- function(v) `storage.mode<-`(v, "integer")
  expect_identical(elementwise(integers(x), integers(y), weight = c(2L, 1L), pos_weight = c(1L, 3L)), want)
  expect_identical(elementwise(x, y == 1, weight = c(2, 1), pos_weight = c(1, 3)), want)
  expect_identical(elementwise(x, y, weight = c(TRUE, FALSE)), elementwise(x, y, weight = c(1, 0)))
})

test_that("a sequence that R has not laid out in memory is computed all the same", {
  expect_identical(c(elementwise(1:5, 0:4)), c(elementwise(c(1, 2, 3, 4, 5), c(0, 1, 2, 3, 4))))
})
