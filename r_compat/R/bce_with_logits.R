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
#' @inherit nnf_binary_cross_entropy_with_logits return
#' @inheritSection bcebridge-package Accuracy
#' @inheritSection bcebridge-package Limits
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @export
#' @examples
#' bce_with_logits(c(a = 0.5, b = -40), c(0, 0), reduction = "none", gradient = TRUE)
#'
#' # one weight of the positive class for each column
#' logits <- matrix(c(2, -1, 0.5, -3, 1, 0), 3, dimnames = list(NULL, c("cat", "dog")))
#' labels <- matrix(c(TRUE, FALSE, TRUE, FALSE, TRUE, TRUE), 3)
#' bce_with_logits(logits, labels, pos_weight = c(1, 4), reduction = "none")
#'
#' # logistic regression: the gradient with respect to the coefficients is by the chain rule
#' x <- model.matrix(~ spontaneous + induced, infert)
#' objective <- function(beta) {
#'   loss <- bce_with_logits(drop(x %*% beta), infert$case, gradient = TRUE)
#'   structure(c(loss), gradient = drop(attr(loss, "gradient") %*% x))
#' }
#' fit <- nlm(objective, c(0, 0, 0), gradtol = 1e-10)
#' rbind(nlm = fit$estimate, glm = coef(glm(case ~ spontaneous + induced, binomial, infert)))
bce_with_logits <- function(input, target, weight = NULL, pos_weight = NULL, reduction = "mean", gradient = FALSE) {
  call <- sys.call()
  if (!isTRUE(gradient) && !isFALSE(gradient)) {
    abort(call, "gradient is ", deparse(gradient, nlines = 1), ", wants TRUE or FALSE")
  }
  evaluate(input, target, weight, pos_weight, reduction, gradient, call)
}
