#' Binary cross entropy with logits, with its gradient
#'
#' The loss of [nnf_binary_cross_entropy_with_logits()] and, from the same pass over the data, its derivative with
#' respect to `input` in the form that [stats::nlm()] and [stats::deriv()] use: an attribute named `"gradient"`.
#'
#' @inheritParams nnf_binary_cross_entropy_with_logits
#' @param reduction `"mean"`, `"sum"` or `"none"`, in part or in full; `NULL` for `"mean"`.
#' @param gradient `TRUE` to attach the gradient: a double vector with the dim, and the dimnames or names, of `input`.
#'   It is that of the reduced loss: under `"mean"` it is divided by the number of elements, under `"none"` each element
#'   is the derivative of its own loss.
#' @param na.action What to do about `NA`, as a function or its name: [stats::na.fail()] refuses it; with
#'   [stats::na.pass()] the loss and the gradient of an element that meets an `NA` in any operand are `NA`, and so is
#'   the mean or sum over such elements. `NaN` is computed through either way.
#' @param label_smoothing \eqn{e}, a number in \eqn{[0, 1]}: each target \eqn{y} becomes \eqn{y (1 - e) + e / 2}.
#' @param dtype `"float64"` or `"float32"`, to which the results are rounded, once; they are doubles either way. The
#'   operands are taken as they are: for the numbers of a model in float32, round them first. Tensors have dtypes of their
#'   own, and want `"float64"` here.
#' @inherit nnf_binary_cross_entropy_with_logits return
#' @inheritSection bcebridge-package Accuracy
#' @inheritSection bcebridge-package Limits
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @inheritSection bcebridge-package Interrupts
#' @seealso [bce_curvature()] for the second derivative.
#' @importFrom stats na.fail
#' @export
#' @examples
#' bce_with_logits(c(a = 0.5, b = -40), c(0, 0), reduction = "none", gradient = TRUE)
#'
#' # one weight of the positive class for each column
#' logits <- matrix(c(2, -1, 0.5, -3, 1, 0), 3, dimnames = list(NULL, c("cat", "dog")))
#' labels <- matrix(c(TRUE, FALSE, TRUE, FALSE, TRUE, TRUE), 3)
#' bce_with_logits(logits, labels, pos_weight = c(1, 4), reduction = "none")
#'
#' # the logit that costs least, at each target
#' nlm(bce_with_logits, c(0, 0), target = c(0.2, 0.9), gradient = TRUE)$estimate
#' qlogis(c(0.2, 0.9))
#'
#' # logistic regression: the gradient with respect to the coefficients is by the chain rule
#' x <- model.matrix(~ spontaneous + induced, infert)
#' loss <- function(beta) bce_with_logits(drop(x %*% beta), infert$case, gradient = TRUE)
#' gradient <- function(beta) drop(attr(loss(beta), "gradient") %*% x)
#' fit <- optim(c(0, 0, 0), loss, gradient, method = "L-BFGS-B", control = list(factr = 0))
#' rbind(optim = fit$par, glm = coef(glm(case ~ spontaneous + induced, binomial, infert)))
#'
#' bce_with_logits(c(1, NA), c(1, 0), reduction = "none", na.action = na.pass)
#'
#' # as a model in float32 would have it
#' print(bce_with_logits(0.5, 1, dtype = "float32"), digits = 17)
bce_with_logits <- function(input, target, weight = NULL, pos_weight = NULL, reduction = "mean", gradient = FALSE,
                            na.action = na.fail, label_smoothing = 0, dtype = "float64") {
  call <- sys.call()
  if (!identical(dtype, "float64") && !identical(dtype, "float32")) {
    abort(call, "dtype must be \"float64\" or \"float32\", got ", deparse(dtype, nlines = 1))
  }
  if (!isTRUE(gradient) && !isFALSE(gradient)) {
    abort(call, "gradient must be TRUE or FALSE, got ", deparse(gradient, nlines = 1))
  }
  evaluate(input, target, weight, pos_weight, reduction, gradient, na.action, label_smoothing, call, dtype = dtype)
}
