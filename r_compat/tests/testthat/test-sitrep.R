test_that("the report is a list of what is running", {
  report <- bce_sitrep()
  expect_identical(report$package, as.character(packageVersion("bcebridge")))
  expect_identical(report$core, report$package)
  expect_identical(report$R, as.character(getRversion()))
  expect_true(report$isa %in% c("avx512", "avx2", "neon", "scalar"))
  expect_identical(report$threads, bce_num_threads())
  installed <- "torch" %in% rownames(installed.packages())
  expect_identical(is.na(report$torch), !installed)
  if (installed) expect_identical(report$torch, as.character(packageVersion("torch")))
})

test_that("it prints a line for each", {
  text <- capture.output(expect_invisible(print(bce_sitrep())))
  expect_identical(text, format(bce_sitrep()))
  expect_match(text, "^(bcebridge|R|instruction set|threads|torch) ", all = TRUE)
  absent <- format(replace(bce_sitrep(), "torch", NA_character_))
  expect_identical(absent[5], "torch            not found")
  expect_identical(format(replace(bce_sitrep(), "torch", "0.1.2"))[5], "torch            0.1.2")
})

test_that("it follows the threads and the instruction set, does not load torch, and says what is wrong", {
  code <- "r <- bce_sitrep(); cat(r$isa, r$threads, 'torch' %in% loadedNamespaces())"
  expect_identical(in_new_r(code, "BCE_BRIDGE_ISA=scalar", "BCE_BRIDGE_NUM_THREADS=3"), "scalar 3 FALSE")
  code <- "tryCatch(bce_sitrep(), bce_bridge_error = function(e) cat(conditionMessage(e)))"
  text <- "BCE_BRIDGE_ISA must be an instruction set of this build \\(.*\\), got 'sse9'"
  expect_match(in_new_r(code, "BCE_BRIDGE_ISA=sse9"), text)
})
