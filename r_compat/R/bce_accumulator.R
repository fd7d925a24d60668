#' The exact sum of losses that arrive in parts
#'
#' For data that come in chunks, from a file larger than memory, or from several workers. However the elements are
#' divided among updates and accumulators, and in whatever order those are merged, the sum and the mean have the bits
#' that one call of [bce_with_logits()] on all of them gives: nothing is rounded before the end.
#'
#' @param state The state of another accumulator, as `as.raw()` gives it, or `NULL` to begin with no elements.
#' @return An accumulator `a`, of class `bce_accumulator`. Assigned to a second name it is still the same accumulator, as
#'   an environment is; `bce_accumulator(as.raw(a))` is a copy.
#'   \describe{
#'     \item{`a$update(input, target, weight = NULL, pos_weight = NULL, label_smoothing = 0)`}{adds the element losses, in
#'       one pass and without storing them, and returns `a` invisibly. The arguments are those of [bce_with_logits()]. On
#'       an error, and when interrupted, nothing has been added.}
#'     \item{`a$merge(other)`}{adds what another accumulator holds, and returns `a` invisibly.}
#'     \item{`a$sum()`}{the exact sum of the losses, correctly rounded; 0 if there are none.}
#'     \item{`a$mean()`}{that exact sum divided by the number of elements, rounded once; `NaN` if there are none.}
#'     \item{`a$count()`}{the number of elements, as a double: exact up to \eqn{2^{53}}{2^53}.}
#'     \item{`as.raw(a)`}{the state: 576 bytes that are the same for equal sums, to keep or to send. They are 72 signed
#'       integers of 64 bits, the lowest byte first: those of `to_array()` of an `Accumulator` in the Python package,
#'       whose `from_array()` takes them.}
#'   }
#'   The state is the raw vector alone, so [saveRDS()] and the workers of the parallel package take an accumulator as it
#'   is.
#' @inheritSection bcebridge-package Shapes
#' @inheritSection bcebridge-package Types
#' @seealso [bce_with_logits()] for the loss of what is in memory, and its gradient.
#' @export
#' @examples
#' x <- rnorm(1000)
#' y <- runif(1000) < plogis(x)
#'
#' total <- bce_accumulator()
#' for (chunk in split(seq_along(x), rep(1:10, 100))) total$update(x[chunk], y[chunk])
#' total
#' identical(total$mean(), bce_with_logits(x, y))
#'
#' # the parts of several workers
#' parts <- lapply(list(1:100, 101:1000), function(i) bce_accumulator()$update(x[i], y[i]))
#' merged <- Reduce(function(a, b) a$merge(b), parts, bce_accumulator())
#' identical(as.raw(merged), as.raw(total))
#'
#' # go on another day
#' file <- tempfile()
#' saveRDS(total, file)
#' readRDS(file)$update(0.5, 1)$count()
bce_accumulator <- function(state = NULL) {
  if (is.null(state)) state <- raw(576)
  check_state(state, "state", sys.call())
  structure(list2env(list(state = state), parent = emptyenv()), class = "bce_accumulator")
}

check_state <- function(state, name, call) {
  if (!.Call(C_accumulator_is_state, state)) abort(call, name, " must hold the state of an accumulator, as as.raw() gives it")
  state
}

# Read from a file, an accumulator may hold anything.
state_of <- function(accumulator, name, call) {
  if (!inherits(accumulator, "bce_accumulator") || !is.environment(accumulator)) {
    abort(call, name, " must be a bce_accumulator, got class ", class(accumulator)[[1]])
  }
  check_state(get0("state", envir = accumulator, inherits = FALSE), name, call)
}

add_state <- function(accumulator, state, call) {
  sum <- answer(.Call(C_accumulator_merge, state_of(accumulator, "the accumulator", call), state), call)
  assign("state", sum, envir = accumulator)
  invisible(accumulator)
}

accumulator_methods <- list(
  update = function(x) {
    function(input, target, weight = NULL, pos_weight = NULL, label_smoothing = 0) {
      call <- sys.call()
      label_smoothing <- check_label_smoothing(label_smoothing, call)
      o <- check_operands(input, target, weight, pos_weight, call)
      refuse_na(o, call)
      part <- .Call(C_accumulator_part, o$input, o$target, o$weight, o$pos_weight, label_smoothing)
      add_state(x, answer(part, call), call)
    }
  },
  merge = function(x) {
    function(other) {
      call <- sys.call()
      add_state(x, state_of(other, "other", call), call)
    }
  },
  sum = function(x) function() .Call(C_accumulator_round, state_of(x, "the accumulator", sys.call()), "sum"),
  mean = function(x) function() .Call(C_accumulator_round, state_of(x, "the accumulator", sys.call()), "mean"),
  count = function(x) function() .Call(C_accumulator_count, state_of(x, "the accumulator", sys.call()))
)

#' @export
`$.bce_accumulator` <- function(x, name) {
  method <- accumulator_methods[[name, exact = TRUE]]
  if (is.null(method)) {
    abort(NULL, "the method must be one of ", paste(names(accumulator_methods), collapse = ", "), ", got ", name)
  }
  method(x)
}

#' @export
`$<-.bce_accumulator` <- function(x, name, value) {
  abort(NULL, "an accumulator must be left as it is: use $update() or $merge()")
}

#' @export
as.raw.bce_accumulator <- function(x) state_of(x, "the accumulator", sys.call())

#' @export
format.bce_accumulator <- function(x, digits = 7, ...) {
  numbers <- vapply(list(x$count(), x$mean(), x$sum()), format, "", digits = digits, ...)
  sprintf("<bce_accumulator of %s losses: mean %s, sum %s>", numbers[[1]], numbers[[2]], numbers[[3]])
}

#' @export
print.bce_accumulator <- function(x, ...) {
  cat(format(x, ...), "\n", sep = "")
  invisible(x)
}
