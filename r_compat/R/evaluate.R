# The one way from the exported functions to the C core. With curvature = TRUE it is that alone, in the shape of input.
evaluate <- function(input, target, weight, pos_weight, reduction, gradient = FALSE, na.action = na.fail,
                     label_smoothing = 0, call, curvature = FALSE, dtype = "float64") {
  reduction <- match_reduction(reduction, call)
  pass_na <- match_na_action(na.action, call)
  label_smoothing <- check_label_smoothing(label_smoothing, call)
  o <- list(input = input, target = target, weight = weight, pos_weight = pos_weight)
  # Quick for what is used most, in which there is nothing to check or convert.
  plain <- is.double(input) && !is.object(input) && !is.object(target) &&
    (is.double(target) || (is.logical(target) || is.integer(target)) && !anyNA(target)) &&
    (is.null(weight) || is.double(weight) && !is.object(weight)) &&
    (is.null(pos_weight) || is.double(pos_weight) && !is.object(pos_weight))
  if (!plain) {
    for (name in names(o)) if (is_python(o[[name]])) o[[name]] <- from_python(o[[name]], name, call)
    input <- o$input
    target <- o$target
    if (!curvature && (is_tensor(input) || is_tensor(target))) {
      if (pass_na) abort(call, "na.action must be na.fail beside tensors, which have NaN but no NA, got na.pass")
      if (dtype != "float64") abort(call, "dtype must be \"float64\" beside tensors, got \"float32\": convert those")
      return(evaluate_tensors(o, reduction, gradient, label_smoothing, call))
    }
    o <- check_operands(input, target, o$weight, o$pos_weight, call, pass_na)
  }
  result <- answer(
    if (curvature) {
      .Call(C_curvature, o$input, o$target, o$weight, o$pos_weight, label_smoothing, reduction)
    } else {
      .Call(C_loss, o$input, o$target, o$weight, o$pos_weight, label_smoothing, reduction, gradient, dtype == "float32")
    },
    call
  )
  # An NA among doubles has made the result NaN, unless there is no element to show it.
  suspect <- anyNA(result) || length(input) == 0
  if (!pass_na) {
    if (suspect) refuse_na(o, call)
  } else if (any(vapply(if (suspect) o else Filter(Negate(is.double), o), anyNA, NA))) {
    result <- mark_na(result, where_na(o))
  }
  result
}

# The operands as the core takes them. Their doubles may hold NA: the result shows that.
check_operands <- function(input, target, weight, pos_weight, call, pass_na = FALSE) {
  check_operand(input, "input", call, !pass_na && !is.double(input))
  if (!is.double(input)) storage.mode(input) <- "double"
  check_operand(target, "target", call, !pass_na && !is.double(target))
  if (!is.null(weight)) check_operand(weight, "weight", call, !pass_na && !is.double(weight))
  if (!is.null(pos_weight)) check_operand(pos_weight, "pos_weight", call, !pass_na && !is.double(pos_weight))
  list(input = input, target = target, weight = weight, pos_weight = pos_weight)
}

check_label_smoothing <- function(label_smoothing, call) {
  plain <- is.numeric(label_smoothing) && !is.object(label_smoothing) && length(label_smoothing) == 1
  if (!plain || !isTRUE(label_smoothing >= 0 && label_smoothing <= 1)) {
    abort(call, "label_smoothing must be a number in [0, 1], got ", deparse(label_smoothing, nlines = 1))
  }
  label_smoothing
}

# What C returns, unless that is the message of an error.
answer <- function(result, call) {
  if (is.character(result)) abort(call, in_terms_of_r(result))
  result
}

reductions <- c("mean", "sum", "none")

# As R torch: matched when the loss is called, in part or in full, NULL being the first choice.
match_reduction <- function(reduction, call) {
  if (is.null(reduction) || identical(reduction, reductions)) return("mean")
  for (name in reductions) if (identical(reduction, name)) return(name)
  tryCatch(
    match.arg(reduction, reductions),
    error = function(e) {
      wanted <- "\"mean\", \"sum\" or \"none\""
      abort(call, "reduction must be ", wanted, ", got ", deparse(reduction, nlines = 1), ": ", conditionMessage(e))
    }
  )
}

# The core's message with the arguments' names here, and what a shape is in R.
in_terms_of_r <- function(message) {
  terms <- c("logits'" = "input's", logits = "input", targets = "target", ",)" = ")")
  for (term in names(terms)) message <- gsub(term, terms[[term]], message, fixed = TRUE)
  if (!grepl("got shape", message, fixed = TRUE)) return(message)
  paste0(message, ": a vector without dim has the shape (length), and dimensions are aligned from the last")
}
