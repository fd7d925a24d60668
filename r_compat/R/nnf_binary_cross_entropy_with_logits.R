#' Binary cross entropy with logits, as a function
#'
#' R torch's function of this name, on vectors, matrices and arrays.
#'
#' @param input The logits \eqn{x}: double or integer.
#' @param target The targets \eqn{y}, of the shape of `input`: double, integer or logical. Usually 0 and 1, or
#'   probabilities between; others are computed as the formula says.
#' @param weight \eqn{w}, a weight for each element, broadcast to the shape of `input`; `NULL` for 1.
#' @param reduction `"mean"` (the default, and what `NULL` means), `"sum"` or `"none"`, in part or in full.
#' @param pos_weight \eqn{p}, a weight of the positive class, usually one number or one for each column (class),
#'   broadcast to the shape of `input`; `NULL` for 1.
#' @return One double or, under `reduction = "none"`, doubles with the dim, and the dimnames or names, of `input`. The
#'   mean is over the number of elements, not the sum of their weights.
#' @inheritSection bcebridge-package Accuracy
#' @inheritSection bcebridge-package Limits
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @references The formula and the arguments are those of
#'   <https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html>.
#' @seealso [bce_with_logits()] for the gradient, [nn_bce_with_logits_loss()] for a loss that holds its settings.
#' @export
#' @examples
#' nnf_binary_cross_entropy_with_logits(c(1, -2), c(1, 0), pos_weight = 3)
#' nnf_binary_cross_entropy_with_logits(matrix(0, 2, 3), matrix(1, 2, 3), reduction = "none")
#'
#' # half of the deviance of a logistic regression
#' fit <- glm(case ~ spontaneous + induced, binomial, infert)
#' nnf_binary_cross_entropy_with_logits(predict(fit), infert$case, reduction = "sum")
#' deviance(fit) / 2
nnf_binary_cross_entropy_with_logits <- function(input, target, weight = NULL, reduction = c("mean", "sum", "none"),
                                                 pos_weight = NULL) {
  evaluate(input, target, weight, pos_weight, reduction, call = sys.call())
}
