# Times of the loss of doubles in R, with or without its gradient; r.py sets clock(), a monotonic one in seconds.

# As one writes it in R: log(1 + e^x) without overflow, or from the distribution functions.
formula <- function(x, y, p, gradient) {
  softplus <- log1p(exp(-abs(x)))
  loss <- mean((1 - y) * (pmax(x, 0) + softplus) + p * y * (pmax(-x, 0) + softplus))
  if (!gradient) return(loss)
  s <- 1 / (1 + exp(-x))
  structure(loss, gradient = ((1 - y) * s - p * y * (1 - s)) / length(x))
}

# Without weights, the shortest formula that does not overflow.
short <- function(x, y, p, gradient) {
  loss <- mean(pmax(x, 0) - x * y + log1p(exp(-abs(x))))
  if (!gradient) return(loss)
  structure(loss, gradient = (plogis(x) - y) / length(x))
}

distribution <- function(x, y, p, gradient) {
  loss <- -mean((1 - y) * plogis(x, lower.tail = FALSE, log.p = TRUE) + p * y * plogis(x, log.p = TRUE))
  if (!gradient) return(loss)
  structure(loss, gradient = ((1 - y) * plogis(x) - p * y * plogis(-x)) / length(x))
}

# Each contender by its name and way: a function that computes the loss, with its gradient as an attribute where that is wanted.
contenders <- function(x, y, p, gradient) {
  result <- list(
    "bcebridge\tbce_with_logits" = function() bcebridge::bce_with_logits(x, y, pos_weight = p, gradient = gradient),
    "base R\tformula" = function() formula(x, y, if (is.null(p)) 1 else p, gradient),
    "base R\tplogis" = function() distribution(x, y, if (is.null(p)) 1 else p, gradient)
  )
  if (is.null(p)) result[["base R\tshort formula"]] <- function() short(x, y, p, gradient)
  result
}

numbers <- function(result) c(result, attr(result, "gradient"))

# A setting's contenders in turn, rounds times over; of each its names, the seconds of one call in each round, and the number
# of calls that a round took. Contenders that do not compute the same are an error.
measure <- function(n, pos_weight, gradient, threads, rounds, sample) {
  bcebridge::bce_num_threads(threads)
  set.seed(0)
  x <- rnorm(n, 0, 3)
  y <- as.double(runif(n) < 0.5)
  functions <- contenders(x, y, if (pos_weight > 0) pos_weight, gradient > 0)
  want <- numbers(functions[[1]]())
  for (f in functions) stopifnot(isTRUE(all.equal(numbers(f()), want, tolerance = 1e-12)))
  time <- function(f, calls) {
    start <- clock()
    for (i in seq_len(calls)) f()
    clock() - start
  }
  for (f in functions) time(f, 3)  # R compiles a function at its second or third call
  calls <- vapply(functions, function(f) max(1, ceiling(sample / time(f, 1))), 0)
  times <- matrix(0, rounds, length(functions))
  for (round in seq_len(rounds)) {
    for (i in seq_along(functions)) {
      gc(FALSE)
      functions[[i]]()
      times[round, i] <- time(functions[[i]], calls[[i]]) / calls[[i]]
    }
  }
  list(names(functions), times, calls)
}

versions <- function() c(as.character(getRversion()), paste("bcebridge", utils::packageVersion("bcebridge")))
