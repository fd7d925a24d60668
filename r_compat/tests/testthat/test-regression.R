# A logistic regression is what minimises the loss, so each of R's ways to a minimum must reach glm's coefficients. Catches
# a gradient or curvature that does not belong to the loss, in value or in form.
x <- model.matrix(~ spontaneous + induced, infert)
y <- infert$case
fit <- glm(case ~ spontaneous + induced, binomial, infert, epsilon = 1e-14)
coefficients <- unname(coef(fit))

loss <- function(beta) bce_with_logits(drop(x %*% beta), y, gradient = TRUE)
gradient <- function(beta) drop(gradient_of(loss(beta)) %*% x)

test_that("nlm", {
  objective <- function(beta) structure(c(loss(beta)), gradient = gradient(beta))
  got <- nlm(objective, numeric(3), gradtol = 1e-12, steptol = 1e-12)
  expect_equal(got$estimate, coefficients, tolerance = 1e-8)
})

test_that("optim", {
  got <- optim(numeric(3), loss, gradient, method = "L-BFGS-B", control = list(factr = 0))
  expect_equal(got$par, coefficients, tolerance = 1e-8)
})

test_that("Newton's method doubles the digits with each step", {
  beta <- numeric(3)
  for (step in 1:6) {
    logits <- drop(x %*% beta)
    beta <- beta - solve(crossprod(x, bce_curvature(logits, y) * x), gradient(beta))
  }
  expect_equal(unname(beta), coefficients, tolerance = 1e-13)
})

test_that("the loss by itself is an objective for nlm", {
  target <- c(0.2, 0.5, 0.9)
  got <- nlm(bce_with_logits, numeric(3), target = target, gradient = TRUE, gradtol = 1e-12, steptol = 1e-12)
  expect_equal(got$estimate, qlogis(target), tolerance = 1e-8)
})

test_that("loss and curvature at the fit are glm's deviance and working weights", {
  logits <- predict(fit)
  expect_equal(bce_with_logits(logits, y, reduction = "sum"), deviance(fit) / 2, tolerance = 1e-14)
  expect_equal(bce_curvature(logits, y, reduction = "sum"), fit$weights, tolerance = 1e-13)
})
