# What Python's session.call() runs: a function of these files by its name, which returns a list of vectors. The first
# element of the answer says what the others are: "value", "unavailable" or "interrupted" (one text) or "error" (the message, and the
# call).
answer <- function(name, ...) {
  tryCatch(
    c(list("value"), get(name)(...)),
    interrupt = function(condition) list("interrupted", "interrupted"),
    bce_bridge_unavailable = function(condition) list("unavailable", conditionMessage(condition)),
    error = function(condition) {
      call <- conditionCall(condition)
      message <- paste(conditionMessage(condition), collapse = "\n")
      c(list("error", message), if (!is.null(call)) deparse(call, nlines = 1)[[1]])
    }
  )
}

# What Python's run() asks for: the names and the doubles of the named list that the source gives. Of an object they may mean
# something else, as those of integer64 do.
run <- function(source) {
  value <- eval(parse(text = source, keep.source = FALSE), new.env(parent = globalenv()))
  if (!is.list(value) || is.null(names(value)) || !all(vapply(value, function(x) is.numeric(x) && !is.object(x), NA))) {
    stop("the value of source must be a named list of numeric vectors")
  }
  c(list(names(value)), lapply(value, as.double))
}

# The numbers of an R object and its shape, for Python's evaluate(), which calls it by that name.
numbers <- function(x, name) {
  list(as.double(as_doubles(x, name, NULL)), as.double(if (is.null(dim(x))) length(x) else dim(x)))
}

use_library <- function(path) .libPaths(c(path, .libPaths()))
