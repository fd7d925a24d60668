# NaN is a result of arithmetic and is computed through; NA is a value that is not there.
is_na <- function(x) is.na(x) & !is.nan(x)

refuse_na <- function(operands, call) for (name in names(operands)) check_na(operands[[name]], name, call)

check_na <- function(x, name, call) {
  if (!anyNA(x)) return()
  first <- which(is_na(x))[1]
  if (!is.na(first)) {
    at <- paste(if (is.null(dim(x))) first else arrayInd(first, dim(x)), collapse = ", ")
    abort(call, name, " must have no NA, got NA at [", at, "]: leave such elements out")
  }
}

# Whether NA may pass.
match_na_action <- function(na.action, call) {
  if (identical(na.action, stats::na.fail) || identical(na.action, "na.fail")) return(FALSE)
  if (identical(na.action, stats::na.pass) || identical(na.action, "na.pass")) return(TRUE)
  got <- if (is.function(na.action)) "another function" else deparse(na.action, nlines = 1)
  abort(call, "na.action must be na.fail or na.pass, got ", got, ": leave elements out before the call")
}

# The elements of input that meet an NA in any operand. Weights are broadcast by the core: where one is 1, log(2) remains.
where_na <- function(operands) {
  zero <- operands$input
  zero[] <- 0
  met <- is_na(operands$input) | is_na(operands$target)
  for (weight in Filter(anyNA, operands[c("weight", "pos_weight")])) {
    met <- met | .Call(C_loss, zero, zero, is_na(weight), NULL, 0, "none", FALSE, FALSE) > 0
  }
  met
}

# NA is the result of an element that meets one, and of a reduction over such elements.
mark_na <- function(result, met) {
  gradient <- attr(result, "gradient")
  if (!is.null(gradient)) attr(result, "gradient") <- replace(gradient, met, NA)
  replace(result, if (length(result) == length(met)) met else any(met), NA)
}
