# A real SIGINT in the middle of one long call of an R of its own. It answers, for the loss and for the accumulator, whether
# it was interrupted before nine tenths of the time of a whole call, and nothing was counted; and afterwards what a call gives
# and how many threads run.
# On a loaded machine the signal may come late, and is lost if it comes before system() has returned, which ignores it: it is
# waited for where it is caught, and sent again.
# Catches a call that cannot be interrupted, threads or memory that are left behind, and a process that does not live on.
code <- c(
  "x <- rnorm(5e6)",
  "y <- runif(5e6)",
  "total <- bce_accumulator()",
  "long <- list(",
  "  loss = function() bce_with_logits(x, y, y, y, gradient = TRUE),",
  "  accumulator = function() total$update(x, y, y, y)",
  ")",
  "interrupt <- function(seconds) system(sprintf('(sleep %f; kill -INT %d) &', seconds, Sys.getpid()))",
  "for (name in names(long)) {",
  "  f <- long[[name]]",
  "  whole <- system.time(f())[[3]]",
  "  for (attempt in 1:10) {",
  "    count <- total$count()",
  "    start <- proc.time()[[3]]",
  "    outcome <- tryCatch(",
  "      { interrupt(whole / 4); f(); Sys.sleep(20); 'lost' },",
  "      interrupt = function(condition) if (proc.time()[[3]] - start < 0.9 * whole) 'interrupted' else 'late'",
  "    )",
  "    if (outcome == 'interrupted' && total$count() == count) break",
  "  }",
  "  cat(name, outcome, total$count() == count, '\\n')",
  "}",
  "cat(sprintf('%a', bce_with_logits(c(1, -2), c(1, 0), pos_weight = 3)), '\\n')",
  "cat(sprintf('%a', bce_with_logits(x, y) - bce_accumulator()$update(x, y)$mean()), '\\n')",
  "status <- '/proc/self/status'",
  "cat(if (file.exists(status)) grep('^Threads', readLines(status), value = TRUE), '\\n')",
  "for (attempt in 1:10) {",
  "  seen <- FALSE",
  "  count <- total$count()",
  "  withCallingHandlers(",
  "    { interrupt(whole / 4); f(); during <- seen; for (i in 1:200) if (!seen) Sys.sleep(0.1) },",
  "    interrupt = function(condition) { seen <<- TRUE; invokeRestart('resume') }",
  "  )",
  "  if (during) break",
  "}",
  "cat(during, total$count() - count, '\\n')",
  "tryCatch(repeat { interrupt(whole / 4); f(); Sys.sleep(20) }, finally = cat('last words\\n'))",
  "cat('not reached\\n')"
)

test_that("a long call is interrupted as R code is, and its process lives on", {
  skip_on_cran()
  skip_on_os("windows")
  lines <- in_new_r(code, "BCE_BRIDGE_ISA=scalar", "BCE_BRIDGE_NUM_THREADS=2", stderr = FALSE)
  expect_identical(trimws(lines[1:4]), c(
    "loss interrupted TRUE",
    "accumulator interrupted TRUE",
    sprintf("%a", bce_with_logits(c(1, -2), c(1, 0), pos_weight = 3)),
    "0x0p+0"
  ))
  if (file.exists("/proc/self/status")) expect_match(lines[5], "^Threads:\\s*1 $")
  expect_identical(trimws(lines[-(1:5)]), c("TRUE 5e+06", "last words"))
  expect_identical(attr(lines, "status"), 1L)
})
