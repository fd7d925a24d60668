#' Binary cross entropy with logits, as a loss that holds its settings
#'
#' R torch's constructor of this name, for vectors, matrices and arrays. The settings are looked at when the loss is
#' called, not before; they can be read and replaced with `$`. As with a torch module, copies of a loss share their
#' settings.
#'
#' @inheritParams nnf_binary_cross_entropy_with_logits
#' @param reduction `"mean"`, `"sum"` or `"none"`, in part or in full; `NULL` for `"mean"`.
#' @return A `function(input, target)` of class `nn_bce_with_logits_loss`, which returns what
#'   [nnf_binary_cross_entropy_with_logits()] does.
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @references <https://torch.mlverse.org/docs/reference/nn_bce_with_logits_loss>
#' @seealso [bce_with_logits()] for the gradient; [bcebridge-torch] for the module it is once torch is loaded.
#' @export
#' @examples
#' loss <- nn_bce_with_logits_loss(pos_weight = 3)
#' loss(c(1, -2), c(1, 0))
#' loss$reduction <- "none"
#' loss(c(1, -2), c(1, 0))
#' loss
nn_bce_with_logits_loss <- function(weight = NULL, reduction = "mean", pos_weight = NULL) {
  force(weight)
  force(reduction)
  force(pos_weight)
  structure(
    function(input, target) evaluate(input, target, weight, pos_weight, reduction, call = sys.call()),
    class = c("nn_bce_with_logits_loss", "nn_loss", "bcebridge_loss", "function")
  )
}

settings <- c("weight", "reduction", "pos_weight")

#' @export
`$.bcebridge_loss` <- function(x, name) {
  if (name %in% settings) get(name, envir = environment(x))
}

#' @export
`$<-.bcebridge_loss` <- function(x, name, value) {
  if (!name %in% settings) abort(NULL, "the setting must be weight, reduction or pos_weight, got ", name)
  assign(name, value, envir = environment(x))
  x
}

# A buffer's type and shape, as torch prints them.
describe_buffers <- function(x) {
  buffers <- Filter(Negate(is.null), list(weight = x$weight, pos_weight = x$pos_weight))
  shapes <- lapply(buffers, function(b) paste0("1:", if (is.null(dim(b))) length(b) else dim(b), collapse = ", "))
  if (length(buffers)) sprintf("%s: %s [%s]", names(buffers), vapply(buffers, typeof, ""), shapes)
}

#' @export
format.bcebridge_loss <- function(x, ...) {
  buffers <- describe_buffers(x)
  c(
    sprintf("An `nn_bce_with_logits_loss` containing 0 parameters, reduction = %s", deparse(x$reduction, nlines = 1)),
    if (length(buffers)) c("", "-- Buffers", paste("*", buffers))
  )
}

#' @export
print.bcebridge_loss <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

#' @importFrom utils str
#' @export
str.bcebridge_loss <- function(object, ...) {
  held <- c(paste("reduction:", deparse(object$reduction, nlines = 1)), describe_buffers(object))
  cat(" nn_bce_with_logits_loss function (input, target), ", paste(held, collapse = ", "), "\n", sep = "")
}
