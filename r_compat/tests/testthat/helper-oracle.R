# Oracles that nobody here wrote: R's own nmath, which takes the logarithm of the logistic function without forming it.
nmath_loss <- function(x, y, w = 1, p = 1) {
  -w * (p * y * plogis(x, log.p = TRUE) + (1 - y) * plogis(x, lower.tail = FALSE, log.p = TRUE))
}

nmath_gradient <- function(x, y, w = 1, p = 1) w * ((1 - y) * plogis(x) - p * y * plogis(-x))

# |got - want| in units in the last place of the size of the terms, which is that of want where they do not cancel.
ulp_error <- function(got, want, size = want) {
  error <- abs(got - want) / 2^pmax(floor(log2(abs(size))) - 52, -1074)
  max(ifelse(got == want, 0, error))
}

elementwise <- function(...) bce_with_logits(..., reduction = "none", gradient = TRUE)

gradient_of <- function(loss) attr(loss, "gradient")

# The message of the bce_bridge_error that is raised.
refusal <- function(expression) {
  conditionMessage(expect_error(expression, class = "bce_bridge_error"))
}

# What an R of its own prints, with those environment variables; its exit status, unless 0, is the attribute "status".
in_new_r <- function(code, ..., stderr = "") {
  file <- tempfile(fileext = ".R")
  on.exit(unlink(file))
  writeLines(c("library(bcebridge)", code), file)
  variables <- c(paste0("R_LIBS=", paste(.libPaths(), collapse = .Platform$path.sep)), ...)
  command <- c(file.path(R.home("bin"), "Rscript"), shQuote(file))
  # A shell lets its background jobs ignore SIGINT, and newer versions of R leave it at that.
  heed <- c("env", "--default-signal=INT")
  status <- suppressWarnings(system2(heed[[1]], c(heed[-1], "true"), stdout = FALSE, stderr = FALSE))
  if (status == 0) command <- c(heed, command)
  suppressWarnings(system2(command[[1]], command[-1], stdout = TRUE, stderr = stderr, env = variables))
}
