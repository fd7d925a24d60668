library(testthat)
library(bcebridge)

test_check("bcebridge")
