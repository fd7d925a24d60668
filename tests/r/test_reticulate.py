"""The R package and the Python package in one process of R, by reticulate. Oracle: either package alone."""

import sys

import pytest
from embedded_r import rscript

pytestmark = pytest.mark.r

CODE = """
    ready <- requireNamespace("reticulate", quietly = TRUE) && reticulate::py_numpy_available(TRUE)
    if (ready) ready <- tryCatch(is.numeric(reticulate::py_to_r(reticulate::import("numpy", convert = FALSE)$zeros(2L))),
                                 error = function(e) FALSE)
    if (!ready) {
      cat("SKIP: R's package reticulate is missing, or too old for this NumPy")
      quit()
    }
    library(bcebridge)
    np <- reticulate::import("numpy", convert = FALSE)
    torch <- reticulate::import("torch", convert = FALSE)
    x <- matrix(c(1, -2, 0.5, 30, -0.25, 3), 2)
    y <- matrix(c(1, 0, 0.25, 1, 0, 1), 2)
"""


def run(code):
    said = rscript(CODE + code, RETICULATE_PYTHON=sys.executable)
    if said.startswith("SKIP: "):
        pytest.skip(said.removeprefix("SKIP: "))


# Catches an array of Python's that is read in another order, and a tensor that loses bits on the way.
def test_arrays_and_tensors_of_python_in_r():
    run("""
        want <- bce_with_logits(x, y, pos_weight = c(1, 2, 3), reduction = "none", gradient = TRUE)
        a <- np$array(x)
        got <- bce_with_logits(a, np$array(y), pos_weight = np$array(c(1, 2, 3)), reduction = "none", gradient = TRUE)
        stopifnot(identical(got, want))
        stopifnot(identical(bce_with_logits(a$T, t(y)), bce_with_logits(t(x), t(y))))
        halves <- torch$tensor(np$array(x), dtype = torch$bfloat16, requires_grad = TRUE)
        stopifnot(identical(nn_bce_with_logits_loss()(halves, y), bce_with_logits(x, y)))
        stopifnot(identical(nn_bce_with_logits_loss()(x, np$array(y > 0.4)), bce_with_logits(x, y > 0.4)))
        said <- tryCatch(bce_with_logits(np$array(list("a", "b")), c(1, 0)), bce_bridge_error = conditionMessage)
        stopifnot(grepl("^input must be a numeric vector, matrix or array, got ", said))
    """)


# Catches R's vectors, matrices and logical values that do not arrive as the array they stand for.
def test_objects_of_r_in_python():
    run("""
        core <- reticulate::import("bce_bridge.core")
        functional <- reticulate::import("bce_bridge")
        stopifnot(identical(as.vector(core$loss(x, y)), bce_with_logits(x, y)))
        stopifnot(identical(as.vector(core$loss(c(1, -2), c(TRUE, FALSE))), bce_with_logits(c(1, -2), c(TRUE, FALSE))))
        both <- core$loss_and_grad(x, y, pos_weight = c(1, 2, 3), reduction = "none")
        want <- bce_with_logits(x, y, pos_weight = c(1, 2, 3), reduction = "none", gradient = TRUE)
        stopifnot(identical(both[[2]], attr(want, "gradient")))
        attr(want, "gradient") <- NULL
        stopifnot(identical(both[[1]], want))
        tensors <- lapply(list(x, y), function(numbers) torch$tensor(np$array(numbers)))
        loss <- functional$binary_cross_entropy_with_logits(tensors[[1]], tensors[[2]])
        stopifnot(identical(loss$item(), bce_with_logits(x, y)))
    """)
