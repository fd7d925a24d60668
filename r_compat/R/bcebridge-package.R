#' bcebridge: binary cross entropy with logits, the same bits in R and in Python
#'
#' For a logit \eqn{x}, a target \eqn{y}, a weight \eqn{w} and a weight \eqn{p} of the positive class (both 1 when not
#' given),
#' \deqn{l = w \left[(1 - y) \log(1 + e^x) + p y \log(1 + e^{-x})\right],}{
#'   l = w [(1 - y) log(1 + exp(x)) + p y log(1 + exp(-x))],}
#' \deqn{\frac{dl}{dx} = w \left[(1 - y) \sigma(x) - p y \sigma(-x)\right],}{
#'   dl/dx = w [(1 - y) plogis(x) - p y plogis(-x)],}
#' which is the negative log-likelihood of a Bernoulli observation \eqn{y} with log-odds \eqn{x}: half of the deviance
#' of [stats::binomial()] when \eqn{y} is 0 or 1 and \eqn{p = 1}. The names, arguments and defaults are those of R
#' torch's `nn_bce_with_logits_loss()`; `torch` itself is not needed. `vignette("bcebridge")` shows the same numbers in Python.
#'
#' @section Accuracy:
#' Without weights, losses and gradients are within 2 units in the last place for targets 0 and 1, at any finite logit;
#' no probability is rounded to 0 or 1 on the way. A sum is the correctly rounded sum of the element losses and a mean
#' is that exact sum divided by their number and rounded once, so neither depends on the order of the elements.
#'
#' @section Limits:
#' A coefficient that is zero silences its term, even at an infinite logit: `(Inf, 1)`, `(-Inf, 0)` and `weight = 0`
#' give 0; `(Inf, 0)` and `(-Inf, 1)` give `Inf`. `NaN` in any operand gives `NaN`; `NA` is refused, unless
#' `na.action = na.pass` is given where there is that argument. Of nothing the sum is 0 and the mean `NaN`.
#'
#' @section Shapes:
#' The shape of an R object is its [dim()]; a vector without one has the shape `(length)`. `target` has the shape of
#' `input`. `weight` and `pos_weight` broadcast to it, as in torch: dimensions are aligned from the last, and each of
#' them is 1 or that of `input`. So against a matrix with one column a class, a plain vector of length `ncol(input)` is
#' one number a class, and a matrix with one column is one number an observation. R's recycling plays no part.
#'
#' @section Types:
#' Everything is computed in double precision (torch turns plain R numbers into float32 tensors). `input` is double or
#' integer; `target`, `weight` and `pos_weight` may be logical as well. An operand of another type, or
#' of any class, is refused by a condition of class `bce_bridge_error`, whose message names the argument, what it must be
#' and what it got. A NumPy array, or a tensor of torch in Python, that the package reticulate holds stands for its
#' numbers.
#'
#' @section Interrupts:
#' A long call can be interrupted as R code can, by Ctrl-C or Esc. An accumulator is then as it was before.
#'
#' @keywords internal
#' @useDynLib bcebridge, .registration = TRUE, .fixes = "C_"
"_PACKAGE"
