# R torch's names, answered by Python: python() is set to the function that calls back.

nn_bce_with_logits_loss <- function(weight = NULL, reduction = "mean", pos_weight = NULL) {
  force(weight)
  force(reduction)
  force(pos_weight)
  structure(
    function(input, target) ask_python(input, target, weight, pos_weight, reduction, FALSE, 0, sys.call()),
    class = c("nn_bce_with_logits_loss", "nn_loss", "bce_bridge_loss", "function")
  )
}

nnf_binary_cross_entropy_with_logits <- function(input, target, weight = NULL, reduction = c("mean", "sum", "none"),
                                                 pos_weight = NULL) {
  ask_python(input, target, weight, pos_weight, reduction, FALSE, 0, sys.call())
}

bce_with_logits <- function(input, target, weight = NULL, pos_weight = NULL, reduction = "mean", gradient = FALSE,
                            na.action = na.fail, label_smoothing = 0, dtype = "float64") {
  if (!identical(dtype, "float64")) {
    abort(sys.call(), "dtype must be \"float64\", got ", deparse(dtype, nlines = 1), ": use the package bcebridge")
  }
  if (!isTRUE(gradient) && !isFALSE(gradient)) {
    abort(sys.call(), "gradient must be TRUE or FALSE, got ", deparse(gradient, nlines = 1))
  }
  check_na_action(na.action, sys.call())
  if (!is.numeric(label_smoothing) || is.object(label_smoothing) || length(label_smoothing) != 1) {
    abort(sys.call(), "label_smoothing must be a number in [0, 1], got ", deparse(label_smoothing, nlines = 1))
  }
  ask_python(input, target, weight, pos_weight, reduction, gradient, label_smoothing, sys.call())
}

# The default of na.action, whatever the user's workspace calls by that name.
na.fail <- stats::na.fail

check_na_action <- function(na.action, call) {
  if (identical(na.action, na.fail) || identical(na.action, "na.fail")) return()
  pass <- identical(na.action, stats::na.pass)
  got <- if (pass) "na.pass" else if (is.function(na.action)) "another function" else deparse(na.action, nlines = 1)
  abort(call, "na.action must be na.fail, got ", got, ": leave elements out before the call, or use the package bcebridge")
}

# The settings of a loss lie in its environment, to be read and replaced as in a torch module.
registerS3method("$", "bce_bridge_loss", function(x, name) environment(x)[[name]])

registerS3method("$<-", "bce_bridge_loss", function(x, name, value) {
  if (!name %in% names(formals(nn_bce_with_logits_loss))) {
    abort(NULL, "the setting must be weight, reduction or pos_weight, got ", name)
  }
  assign(name, value, envir = environment(x))
  x
})

registerS3method("print", "bce_bridge_loss", function(x, ...) {
  cat("nn_bce_with_logits_loss, answered by Python: reduction = ", deparse(x$reduction, nlines = 1), "\n", sep = "")
  invisible(x)
})

ask_python <- function(input, target, weight, pos_weight, reduction, gradient, label_smoothing, call) {
  reduction <- tryCatch(
    match.arg(reduction, c("mean", "sum", "none")),
    error = function(e) {
      wanted <- "\"mean\", \"sum\" or \"none\""
      abort(call, "reduction must be ", wanted, ", got ", deparse(reduction, nlines = 1), ": ", conditionMessage(e))
    }
  )
  if (is.logical(input)) {
    abort(call, "input must be numeric logits, got type logical: are input and target the wrong way round?")
  }
  answer <- python(
    as_doubles(input, "input", call),
    as_doubles(target, "target", call),
    if (!is.null(weight)) as_doubles(weight, "weight", call),
    if (!is.null(pos_weight)) as_doubles(pos_weight, "pos_weight", call),
    reduction,
    gradient,
    as.double(label_smoothing)
  )
  if (!is.list(answer)) abort(call, if (is.character(answer)) answer else "Python gave no answer")
  shape <- attributes(input)[intersect(c("dim", "dimnames", "names"), names(attributes(input)))]
  loss <- answer[[1]]
  if (reduction == "none") attributes(loss) <- shape
  if (gradient) {
    slope <- answer[[2]]
    attributes(slope) <- shape
    attr(loss, "gradient") <- slope
  }
  loss
}

# What a value of each class or type becomes numbers by, in the words of the package bcebridge.
fixes <- c(
  factor = 'compare it with the positive level, as in x == "yes"',
  data.frame = "use as.matrix(), or [[ for one column",
  integer64 = "use as.numeric() with bit64 attached",
  torch_tensor = "use torch::as_array()",
  character = "use as.numeric()",
  complex = "use Re()",
  list = "use unlist()",
  raw = "use as.integer()"
)

# x as doubles with its dim, if it is numbers and none of them is NA. A class may give the numbers another meaning, as that
# of a factor or of integer64 does.
as_doubles <- function(x, name, call) {
  kinds <- if (is.object(x)) class(x) else typeof(x)
  if (is.object(x) || !kinds %in% c("double", "integer", "logical")) {
    got <- if (is.object(x)) paste("class", kinds[[1]]) else if (is.null(x)) "NULL" else paste("type", kinds)
    fix <- c(fixes[kinds[kinds %in% names(fixes)]], if (is.object(x)) "use as.numeric() if its numbers are meant")
    abort(call, name, " must be a numeric vector, matrix or array, got ", got, if (length(fix)) paste0(": ", fix[[1]]))
  }
  missing <- if (anyNA(x)) which(is.na(x) & !is.nan(x))
  if (length(missing)) abort(call, name, " must have no NA, got NA at [", missing[[1]], "]: leave such elements out")
  storage.mode(x) <- "double"
  x
}

abort <- function(call, ...) {
  stop(structure(class = c("bce_bridge_error", "error", "condition"), list(message = paste0(...), call = call)))
}

attached <- c("nn_bce_with_logits_loss", "nnf_binary_cross_entropy_with_logits", "bce_with_logits")

install <- function() {
  uninstall()
  attach(mget(attached, envir = environment(install)), name = "bce_bridge", warn.conflicts = FALSE)
  NULL
}

uninstall <- function() {
  if ("bce_bridge" %in% search()) detach("bce_bridge")
  NULL
}
