# Every error of the package: of class bce_bridge_error, raised in the name of the user's call.
abort <- function(call, ...) {
  stop(structure(list(message = paste0(...), call = shorten(call)), class = c("bce_bridge_error", "error", "condition")))
}

# do.call() puts the operands themselves into the call: of those only the kind is kept.
shorten <- function(call) {
  if (!is.call(call)) return(call)
  long <- vapply(as.list(call), function(x) !is.language(x) && length(x) > 4, NA)
  call[long] <- lapply(as.list(call)[long], function(x) as.name(paste0("<", typeof(x), ">")))
  call
}
