# The implementations, by their names in Python: each a function that returns list(loss, gradient).

`r-package` <- function(reduction, logits, targets, weight, pos_weight) {
  loss <- bcebridge::bce_with_logits(logits, targets, weight, pos_weight, reduction, gradient = TRUE)
  list(loss, attr(loss, "gradient"))
}

# l = w [(1 - y) softplus(x) + p y softplus(-x)],  softplus(x) = -log plogis(-x), to full accuracy in both tails.
`r-nmath` <- function(reduction, logits, targets, weight, pos_weight) {
  shape <- if (is.null(dim(logits))) length(logits) else dim(logits)
  weight <- broadcast(weight, shape)
  negative <- 1 - targets
  positive <- silent_product(broadcast(pos_weight, shape), targets)
  upper <- -stats::plogis(logits, lower.tail = FALSE, log.p = TRUE)
  lower <- -stats::plogis(logits, log.p = TRUE)
  loss <- silent_product(weight, silent_product(negative, upper) + silent_product(positive, lower))
  slope <- silent_product(negative, sigma(logits)) - silent_product(positive, sigma(-logits))
  gradient <- silent_product(weight, slope)
  switch(reduction,
    none = list(loss, gradient),
    sum = list(sum(loss), gradient),
    mean = list(sum(loss) / length(loss), gradient / length(loss))
  )
}

# plogis(), and below -700, on the way to its overflow, the exponential that it equals there to the last bit.
sigma <- function(x) {
  tail <- which(x < -700)
  result <- stats::plogis(x)
  result[tail] <- exp(x[tail])
  result
}

# a b, where a zero silences the other factor unless that is NaN.
silent_product <- function(a, b) {
  product <- a * b
  product[is.nan(product) & !is.nan(a) & !is.nan(b)] <- 0
  product
}

# x in that shape, by torch's rule: dimensions aligned from the last, each of them 1 or that of the shape.
broadcast <- function(x, shape) {
  if (is.null(x)) return(array(1, shape))
  own <- if (is.null(dim(x))) length(x) else dim(x)
  own <- c(rep(1, length(shape) - length(own)), own)
  index <- Map(function(have, want) if (have == 1) rep(1, want) else seq_len(want), own, shape)
  do.call(`[`, c(list(array(x, own)), index, drop = FALSE))
}

`r-tensors` <- function(...) on_tensors(bcebridge::nn_bce_with_logits_loss, ...)

`r-torch` <- function(...) on_tensors(torch::nn_bce_with_logits_loss, ...)

on_tensors <- function(constructor, reduction, logits, targets, weight, pos_weight, ...) {
  tensors <- Map(torch_tensor, list(logits, targets, weight, pos_weight), list(...))
  input <- tensors[[1]]$requires_grad_(TRUE)
  loss <- constructor(tensors[[3]], reduction, tensors[[4]])(input, tensors[[2]])
  loss$backward(torch::torch_ones_like(loss))
  list(as.double(torch::as_array(loss)), as.double(torch::as_array(input$grad)))
}

torch_tensor <- function(x, dtype) {
  if (is.null(x)) return(NULL)
  torch::torch_tensor(x, dtype = switch(dtype, float32 = torch::torch_float32(), float64 = torch::torch_float64()))
}

version <- function(implementation) {
  packages <- switch(implementation, "r-package" = "bcebridge", "r-tensors" = c("bcebridge", "torch"), "r-torch" = "torch")
  how <- c(bcebridge = "make setup, or R CMD INSTALL r_compat", torch = 'install.packages("torch") in R')
  for (package in packages) need(package, how[[package]])
  if ("torch" %in% packages && !torch::torch_is_installed()) {
    unavailable("R torch has no libtorch: torch::install_torch() in R")
  }
  versions <- vapply(packages, function(package) paste(package, utils::packageVersion(package)), "")
  list(paste(c(versions, paste("R", getRversion())), collapse = ", "))
}

need <- function(package, how) {
  tryCatch(loadNamespace(package), error = function(condition) {
    unavailable("the R package ", package, " does not load (", conditionMessage(condition), "): ", how)
  })
}

unavailable <- function(...) {
  stop(structure(
    class = c("bce_bridge_unavailable", "error", "condition"),
    list(message = gsub("\\s+", " ", paste0(...)), call = NULL)
  ))
}
