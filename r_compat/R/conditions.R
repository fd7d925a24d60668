# Every error of the package: of class bce_bridge_error, raised in the name of the user's call.
abort <- function(call, ...) {
  stop(structure(list(message = paste0(...), call = call), class = c("bce_bridge_error", "error", "condition")))
}
