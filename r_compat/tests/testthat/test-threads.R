# Long enough for two threads, the most that CRAN allows, which have 131,072 elements each.
set.seed(40)
n <- 2^18 + 3
x <- rnorm(n, 0, 5)
y <- runif(n)
compute <- function(threads) {
  before <- bce_num_threads(threads)
  on.exit(bce_num_threads(before))
  list(bce_with_logits(x, y, gradient = TRUE), as.raw(bce_accumulator()$update(x, y)))
}

# Catches segments that overlap, leave elements out or sum by themselves.
test_that("the number of threads changes no bit", {
  expect_identical(compute(2), compute(1))
})

test_that("the number of threads is set, got and refused", {
  before <- bce_num_threads()
  expect_gte(before, 1)
  expect_identical(expect_invisible(bce_num_threads(3)), before)
  expect_identical(bce_num_threads(7L), 3L)
  expect_identical(bce_num_threads(before), 7L)
  for (bad in list(0, -1, 1.5, 1025, NA, "2", TRUE, 1:2, NaN, Inf, list(2))) {
    expect_match(refusal(bce_num_threads(bad)), "n must be a whole number from 1 to 1024, got .")
  }
  expect_identical(bce_num_threads(), before)
})

# Catches a pool of threads: its locks and queues come over a fork, its threads do not, and the child waits for ever.
if (.Platform$OS.type == "unix") {
  test_that("a forked worker computes on threads after its parent did", {
    want <- compute(2)
    for (repetition in 1:4) {
      worker <- parallel::mcparallel(compute(2))
      expect_identical(parallel::mccollect(worker)[[1]], want)
    }
    expect_identical(compute(2), want)
  })
}

test_that("BCE_BRIDGE_NUM_THREADS is the number of threads to begin with", {
  expect_identical(in_new_r("cat(bce_num_threads())", "BCE_BRIDGE_NUM_THREADS=5"), "5")
})

test_that("BCE_BRIDGE_ISA chooses the instruction set; one that is not to be had is an R condition, and adds nothing", {
  hex <- "x <- seq(-30, 30, 0.01); cat(sprintf('%a', c(bce_with_logits(x, 1 / (1 + x^2), reduction = 'n'))))"
  expect_identical(in_new_r(hex, "BCE_BRIDGE_ISA=scalar"), in_new_r(hex))
  error <- "tryCatch(%s, bce_bridge_error = function(e) cat(conditionMessage(e)))"
  for (call in c("bce_with_logits(1, 1)", "bce_accumulator()$update(1, 1)")) {
    got <- in_new_r(sprintf(error, call), "BCE_BRIDGE_ISA=sse9")
    expect_match(got, "BCE_BRIDGE_ISA must be an instruction set of this build \\(.*scalar\\), got 'sse9'")
  }
})
