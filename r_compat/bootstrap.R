# Copies the C core into src/, where R compiles it. Run in the package's directory: by configure in a checkout, by
# pkgbuild, or by hand before R CMD build. src/ is left without what the core no longer has, and without object files,
# because R's make rules do not know which of them include a header that has changed.

core <- file.path("..", "c_src")

if (dir.exists(core)) {
  unlink(file.path("src", c("bce.*", "bce_*", "*.o", "*.so", "*.dll")))
  files <- list.files(core, "\\.(c|h|inc)$", full.names = TRUE)
  stopifnot(file.copy(files, "src", copy.date = FALSE))
}
