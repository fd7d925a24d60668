set.seed(30)
n <- 1000
x <- c(rnorm(n - 6, 0, 5), 1e300, -1e300, 700, -745, 1e-310, 0)
y <- runif(n)
w <- rnorm(n) * 10^sample(-30:30, n, TRUE)
p <- rexp(n)

update_with <- function(a, i) a$update(x[i], y[i], w[i], p[i])
whole <- update_with(bce_accumulator(), 1:n)

# Catches a sum that is rounded, or a count that is taken, before the end.
test_that("any partition in any order gives the bits of one call", {
  expect_identical(whole$mean(), bce_with_logits(x, y, w, p))
  expect_identical(whole$sum(), bce_with_logits(x, y, w, p, reduction = "sum"))
  for (repetition in 1:100) {
    parts <- unname(split(sample(n), sort(sample(repetition, n, TRUE))))
    chunks <- bce_accumulator()
    for (i in parts) update_with(chunks, i)
    expect_identical(as.raw(chunks), as.raw(whole))
    trees <- lapply(parts, function(i) update_with(bce_accumulator(), i))
    while (length(trees) > 1) {
      pair <- sample(length(trees), 2)
      trees <- c(trees[-pair], trees[[pair[1]]]$merge(trees[[pair[2]]]))
    }
    expect_identical(as.raw(trees[[1]]), as.raw(whole))
  }
  expect_identical(c(whole$mean(), whole$sum(), whole$count()), c(chunks$mean(), chunks$sum(), n))
})

test_that("what cancels leaves nothing behind, also across updates", {
  a <- bce_accumulator()$update(1e300, 0)$update(0.5, 0)$update(1e300, 0, weight = -1)
  expect_identical(a$sum(), bce_with_logits(0.5, 0))
  expect_identical(a$mean(), bce_with_logits(0.5, 0) / 3)
})

test_that("infinities and NaN are those of the sum, whichever comes first; empty updates change nothing", {
  expect_identical(bce_accumulator()$mean(), NaN)
  expect_identical(bce_accumulator()$sum(), 0)
  expect_identical(bce_accumulator()$update(numeric(0), numeric(0))$count(), 0)
  infinite <- bce_accumulator()$update(c(Inf, 1), c(0, 1))
  expect_identical(c(infinite$sum(), infinite$mean()), c(Inf, Inf))
  negative <- bce_accumulator()$update(Inf, 0, -1)
  expect_identical(negative$sum(), -Inf)
  expect_identical(infinite$merge(negative)$sum(), NaN)
  expect_identical(bce_accumulator()$update(NaN, 0)$merge(whole)$mean(), NaN)
  expect_identical(infinite$count(), 3)
})

test_that("saveRDS, serialize and as.raw keep the state; a copy by as.raw goes its own way", {
  file <- tempfile(fileext = ".rds")
  on.exit(unlink(file))
  saveRDS(whole, file)
  for (copy in list(readRDS(file), unserialize(serialize(whole, NULL)), bce_accumulator(as.raw(whole)))) {
    expect_identical(as.raw(copy), as.raw(whole))
    expect_identical(copy$update(1, 1)$count(), n + 1)
    expect_identical(whole$count(), n)
  }
  same <- copy
  same$update(1, 1)
  expect_identical(copy$count(), n + 2)
  expect_identical(copy$merge(copy)$count(), 2 * (n + 2))
})

test_that("a refused update or merge adds nothing and names the argument", {
  a <- bce_accumulator(as.raw(whole))
  expect_match(refusal(a$update(1:2, 1)), "target must have the input's shape (2), got shape (1)", fixed = TRUE)
  text <- "weight must broadcast to the input's shape (1), got shape (2)"
  expect_match(refusal(a$update(1, 1, weight = 1:2)), text, fixed = TRUE)
  expect_match(refusal(a$update("1", 1)), "input must be a numeric vector, matrix or array, got type character")
  expect_match(refusal(a$update(NA_real_, 1)), "input must have no NA, got NA at [1]", fixed = TRUE)
  expect_match(refusal(a$merge(3)), "other must be a bce_accumulator, got class numeric")
  expect_match(refusal(a$foo), "the method must be one of update, merge, sum, mean, count, got foo")
  expect_match(refusal(a$state <- raw(576)), "an accumulator must be left as it is")
  expect_identical(as.raw(a), as.raw(whole))
  expect_identical(conditionCall(tryCatch(a$update(1:2, 1), error = identity)), quote(a$update(1:2, 1)))
})

# Catches a sum that is larger than so many numbers can have, by one unit of 2^-1074, and a largest one that is refused.
test_that("a state's sum is at most as many times the largest number", {
  for (n in c(1, 3)) {
    for (sign in c(1, -1)) {
      # A loss of a weight times 1024 each, and one of 2^-1074.
      x <- rep(1024, n)
      w <- rep(sign * .Machine$double.xmax / 1024, n)
      state <- as.raw(bce_accumulator()$update(x, 0 * x, w))
      expect_identical(as.raw(bce_accumulator(state)), state)
      beyond <- as.raw(bce_accumulator()$update(c(x, 1), c(0 * x, 0), c(w, sign * 2^-1074)))
      count <- 8 * 68 + 1:8
      beyond[count] <- state[count]
      expect_match(refusal(bce_accumulator(beyond)), "state must hold the state of an accumulator")
    }
  }
})

# Catches bytes from elsewhere being computed with: arithmetic on them could overflow.
test_that("a state that no accumulator can have is refused", {
  state <- as.raw(whole)
  field <- function(i, bytes) replace(state, 8 * (i - 1) + 1:8, as.raw(bytes))
  bad <- list(
    1, "a", raw(575), list(), field(1, rep(255, 8)), field(1, c(0, 0, 0, 0, 1, 0, 0, 0)), field(68, c(0, 0, 0, 1, 0, 0, 0, 0)),
    field(69, rep(255, 8)), field(70, rep(255, 8)), field(72, c(0, 0, 1, 0, 0, 0, 0, 0))
  )
  for (value in bad) expect_match(refusal(bce_accumulator(value)), "state must hold the state of an accumulator")
  broken <- bce_accumulator()
  assign("state", raw(3), envir = broken)
  for (use in list(function() broken$mean(), function() whole$merge(broken), function() broken$update(1, 1))) {
    expect_match(refusal(use()), "must hold the state of an accumulator")
  }
  full <- bce_accumulator(replace(raw(576), 8 * 68 + 1:8, as.raw(c(rep(255, 7), 127))))
  expect_identical(full$count(), 2^63)
  expect_match(refusal(full$update(1, 1)), "count must be at most 2^63 - 1, got more", fixed = TRUE)
})

test_that("it prints what it holds", {
  a <- bce_accumulator()$update(c(1e300, 1e300), c(0, 1))
  expect_output(print(a), "<bce_accumulator of 2 losses: mean 5e+299, sum 1e+300>", fixed = TRUE)
  expect_identical(format(bce_accumulator()), "<bce_accumulator of 0 losses: mean NaN, sum 0>")
})
