# The one way from the exported functions to the C core.
evaluate <- function(input, target, weight, pos_weight, reduction, gradient = FALSE, call) {
  reduction <- match_reduction(reduction, call)
  operands <- check_operands(input, target, weight, pos_weight, call)
  answer(.Call(C_evaluate, operands[[1]], operands[[2]], operands[[3]], operands[[4]], reduction, gradient), call)
}

# The operands as the core takes them.
check_operands <- function(input, target, weight, pos_weight, call) {
  check_operand(input, "input", call)
  if (is.logical(input)) {
    abort(call, "input is of type logical, wants numeric logits: are input and target the wrong way round?")
  }
  storage.mode(input) <- "double"
  check_operand(target, "target", call)
  if (!is.null(weight)) check_operand(weight, "weight", call)
  if (!is.null(pos_weight)) check_operand(pos_weight, "pos_weight", call)
  list(input, target, weight, pos_weight)
}

# What C returns, unless that is the message of an error.
answer <- function(result, call) {
  if (is.character(result)) abort(call, in_terms_of_r(result))
  result
}

# As R torch: matched when the loss is called, in part or in full, NULL being the first choice.
match_reduction <- function(reduction, call) {
  tryCatch(
    match.arg(reduction, c("mean", "sum", "none")),
    error = function(e) abort(call, "reduction is ", deparse(reduction, nlines = 1), ": ", conditionMessage(e))
  )
}

# The core's message with the arguments' names here, and what a shape is in R.
in_terms_of_r <- function(message) {
  terms <- c("logits'" = "input's", logits = "input", targets = "target", ",)" = ")")
  for (term in names(terms)) message <- gsub(term, terms[[term]], message, fixed = TRUE)
  if (!grepl("of shape", message, fixed = TRUE)) return(message)
  paste0(message, ": a vector without dim has the shape (length), and dimensions are aligned from the last")
}
