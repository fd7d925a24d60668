#' Second derivative of binary cross entropy with logits
#'
#' \deqn{\frac{d^2 l}{dx^2} = w (1 - y + p y) \sigma(x) \sigma(-x),}{
#'   d2l/dx2 = w (1 - y + p y) plogis(x) plogis(-x),}
#' the derivative of the gradient that [bce_with_logits()] attaches: what Newton steps, iteratively reweighted least
#' squares and gradient boosting divide by. For \eqn{p = 1} it is the weight that [stats::glm()] gives an observation, and
#' does not depend on the target.
#'
#' @inheritParams bce_with_logits
#' @return Doubles with the dim, and the dimnames or names, of `input`: each the second derivative of the reduced loss with
#'   respect to that element. Under `"mean"` they are divided by the number of elements; `"sum"` and `"none"` are the same.
#'   (The mixed derivatives are zero.)
#' @inheritSection bcebridge-package Limits
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @references McCullagh and Nelder (1989), Generalized Linear Models, section 4.4.
#' @export
#' @examples
#' bce_curvature(c(-2, 0, 2), c(0, 0, 1), reduction = "none")
#'
#' # logistic regression by Newton's method
#' x <- model.matrix(~ spontaneous + induced, infert)
#' beta <- numeric(ncol(x))
#' for (step in 1:6) {
#'   logits <- drop(x %*% beta)
#'   gradient <- attr(bce_with_logits(logits, infert$case, gradient = TRUE), "gradient")
#'   beta <- beta - solve(crossprod(x, bce_curvature(logits, infert$case) * x), crossprod(x, gradient))
#' }
#' rbind(newton = drop(beta), glm = coef(glm(case ~ spontaneous + induced, binomial, infert)))
bce_curvature <- function(input, target, weight = NULL, pos_weight = NULL, reduction = "mean", na.action = na.fail,
                          label_smoothing = 0) {
  evaluate(
    input, target, weight, pos_weight, reduction,
    na.action = na.action, label_smoothing = label_smoothing, call = sys.call(), curvature = TRUE
  )
}
