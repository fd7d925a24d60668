# What the loss of tensors takes beside R torch's own: Rscript tools/measure_r_torch.R docs/performance.md
#
# Forward and backward of float32 tensors, and a training step of a small network, of both packages in turn in one process;
# medians, written between the lines of the page that name this file. Needs bcebridge and a torch that is installed.

suppressMessages({
  library(torch)
  library(bcebridge)
})

page <- commandArgs(TRUE)
losses <- list(ours = bcebridge::nn_bce_with_logits_loss, theirs = torch::nn_bce_with_logits_loss)

# Microseconds of each call, which are made in turn.
medians <- function(calls, rounds) {
  seconds <- function(call) {
    begin <- Sys.time()
    call()
    as.numeric(Sys.time() - begin, units = "secs")
  }
  for (call in rep(calls, 5)) call()
  times <- replicate(rounds, vapply(calls, seconds, 0))
  apply(times, 1, median) * 1e6
}

loss_and_gradient <- function(make, n) {
  x <- torch_randn(n, requires_grad = TRUE)
  y <- torch_bernoulli(torch_rand(n))
  loss <- make()
  function() {
    x$grad <- NULL
    loss(x, y)$backward()
  }
}

training_step <- function(make) {
  network <- nn_sequential(nn_linear(20, 64), nn_relu(), nn_linear(64, 1))
  optimizer <- optim_adam(network$parameters)
  x <- torch_randn(128, 20)
  y <- torch_bernoulli(torch_rand(128, 1))
  loss <- make()
  function() {
    optimizer$zero_grad()
    loss(network(x), y)$backward()
    optimizer$step()
  }
}

row <- function(what, threads, calls, rounds) {
  times <- medians(calls, rounds)
  cells <- c(what, threads, round(times), format(times[[1]] / times[[2]], digits = 2))
  paste0("| ", paste(cells, collapse = " | "), " |")
}

rows <- character()
for (threads in c(1, 2)) {
  torch_set_num_threads(threads)
  bce_num_threads(threads)
  for (n in c(1e3, 1e5, 1e6)) {
    what <- paste("loss and gradient, n =", format(n, scientific = FALSE))
    rows <- c(rows, row(what, threads, lapply(losses, loss_and_gradient, n), if (n < 1e6) 300 else 60))
  }
  rows <- c(rows, row("step of a network, batch of 128, Adam", threads, lapply(losses, training_step), 200))
}

table <- c(
  sprintf(
    "R %s, torch %s (libtorch and its R package as installed there), bcebridge %s, %s, instruction set %s, %d processors.",
    getRversion(), packageVersion("torch"), packageVersion("bcebridge"), R.version$platform,
    .Call(bcebridge:::C_build_info)[[2]], parallel::detectCores()
  ),
  "",
  "| what | threads | bcebridge | R torch | ratio |",
  "| --- | ---: | ---: | ---: | ---: |",
  rows
)
text <- readLines(page)
begin <- grep("^<!-- begin: Rscript tools/measure_r_torch.R", text)
end <- grep("^<!-- end -->", text)
writeLines(c(text[seq_len(begin)], "", table, "", text[min(end[end > begin]):length(text)]), page)
