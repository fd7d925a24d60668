# Rscript record.R CASES ANSWERS
#
# Answers the cases of vectors/bce-with-logits.json, or of a file in the older format bce-cases/1, with the R torch that is
# installed, through nn_bce_with_logits_loss() and $backward(), and writes a recording: C99 hex floats, arrays row-major. Needs
# the packages torch and jsonlite.

# A tensor of the case's dtype; decimal digits never come between.
tensor_of <- function(entry, dtype) {
  if (is.null(entry)) return(NULL)
  numbers <- torch::torch_tensor(as.numeric(unlist(entry$data)), dtype = torch::torch_float64())$to(dtype = dtype)
  shape <- as.integer(unlist(entry$shape))
  if (length(shape)) numbers$reshape(shape) else numbers$squeeze()
}

hex <- function(numbers) tolower(sprintf("%a", numbers))

flat <- function(tensor) {
  hex(as.double(torch::as_array(tensor$detach()$to(dtype = torch::torch_float64())$reshape(-1))))
}

answer <- function(case) {
  dtype <- switch(case$dtype,
    float16 = torch::torch_float16(), bfloat16 = torch::torch_bfloat16(),
    float32 = torch::torch_float32(), float64 = torch::torch_float64(),
    stop(case$id, " must have dtype float16, bfloat16, float32 or float64, got ", case$dtype, call. = FALSE)
  )
  target <- tensor_of(case$target, dtype)
  evaluate <- function(reduction) {
    input <- tensor_of(case$input, dtype)$requires_grad_(TRUE)
    criterion <- torch::nn_bce_with_logits_loss(
      tensor_of(case$weight, dtype), reduction, tensor_of(case$pos_weight, dtype)
    )
    loss <- criterion(input, target)
    if (reduction != "none") loss$backward()
    list(loss = flat(loss), gradient = if (reduction != "none") flat(input$grad))
  }
  one <- lapply(c(none = "none", mean = "mean", sum = "sum"), evaluate)
  list(
    id = jsonlite::unbox(case$id),
    none = one$none$loss,
    mean = jsonlite::unbox(one$mean$loss),
    sum = jsonlite::unbox(one$sum$loss),
    grad_sum = one$sum$gradient,
    grad_mean = one$mean$gradient
  )
}

record <- function(cases, file) {
  cases <- jsonlite::fromJSON(cases, simplifyVector = FALSE)
  if (!isTRUE(cases$format %in% c("bce-cases/1", "bce-cases/2"))) {
    stop("format must be \"bce-cases/1\" or \"bce-cases/2\", got ", deparse(cases$format), call. = FALSE)
  }
  head <- list(
    format = "bce-answers/1",
    implementation = "R torch nn_bce_with_logits_loss",
    r = R.version.string,
    torch = as.character(utils::packageVersion("torch")),
    libtorch = libtorch_version(),
    platform = R.version$platform,
    cpu_capability = cpu_capability(),
    note = paste0(
      "none/mean/sum: the loss under that reduction; grad_sum, grad_mean: its gradient in the input; ",
      "C99 hex floats, row-major"
    )
  )
  answers <- vapply(cases$cases, function(case) as.character(jsonlite::toJSON(answer(case))), "")
  head <- sub("}$", ",\"answers\":[", jsonlite::toJSON(head, auto_unbox = TRUE))
  writeLines(c(head, paste(answers, collapse = ",\n"), "]}"), file)
}

# The version that R torch was made for: torch has no public function for the one it runs on.
libtorch_version <- function() {
  tryCatch(get("torch_version", envir = asNamespace("torch")), error = function(condition) NA_character_)
}

# Which of its code paths libtorch takes, by its own rule for x86-64: R torch does not tell. Each rounds in its own way.
cpu_capability <- function(cpuinfo = "/proc/cpuinfo") {
  asked <- toupper(Sys.getenv("ATEN_CPU_CAPABILITY"))
  if (asked %in% c("DEFAULT", "AVX2", "AVX512")) return(asked)
  lines <- if (file.exists(cpuinfo)) readLines(cpuinfo) else character()
  flags <- strsplit(grep("^flags", lines, value = TRUE)[1], "\\s+")[[1]]
  if (anyNA(flags)) return("unknown")
  has <- function(...) all(c("fma", ...) %in% flags)
  if (has("avx512vl", "avx512bw", "avx512dq")) "AVX512" else if (has("avx2")) "AVX2" else "DEFAULT"
}

files <- commandArgs(TRUE)
if (length(files) != 2) stop("usage: Rscript record.R CASES ANSWERS", call. = FALSE)
for (package in c("torch", "jsonlite")) {
  if (!requireNamespace(package, quietly = TRUE)) {
    stop("the package ", package, " is not installed: install.packages(\"", package, "\")", call. = FALSE)
  }
}
if (!torch::torch_is_installed()) stop("R torch has no libtorch: torch::install_torch()", call. = FALSE)
record(files[[1]], files[[2]])
