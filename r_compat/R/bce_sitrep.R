#' What a report of a problem should say
#'
#' The versions and the machine that results came from.
#'
#' @return A list of class `bce_sitrep` of strings, and `threads`, a number:
#'   \describe{
#'     \item{`package`, `core`, `R`}{the versions of this package, of the C core in it, and of R.}
#'     \item{`platform`}{the machine and system that R was built for.}
#'     \item{`isa`}{the instruction set in use: `"avx512"`, `"avx2"`, `"neon"` or `"scalar"`. The environment variable
#'       `BCE_BRIDGE_ISA` chooses it; all give the same bits.}
#'     \item{`threads`}{what [bce_num_threads()] says.}
#'     \item{`torch`}{the version of the package torch, which is not loaded for it; `NA` if it is not installed.}
#'   }
#' @export
#' @examples
#' bce_sitrep()
#' bce_sitrep()$isa
bce_sitrep <- function() {
  core <- answer(.Call(C_build_info), sys.call())
  torch <- if (nzchar(system.file(package = "torch"))) as.character(utils::packageVersion("torch")) else NA_character_
  structure(
    list(
      package = as.character(utils::packageVersion("bcebridge")),
      core = core[[1]],
      R = as.character(getRversion()),
      platform = R.version$platform,
      isa = core[[2]],
      threads = bce_num_threads(),
      torch = torch
    ),
    class = "bce_sitrep"
  )
}

#' @export
format.bce_sitrep <- function(x, ...) {
  c(
    sprintf("bcebridge        %s (core %s)", x$package, x$core),
    sprintf("R                %s, %s", x$R, x$platform),
    sprintf("instruction set  %s", x$isa),
    sprintf("threads          %d", x$threads),
    sprintf("torch            %s", if (is.na(x$torch)) "not found" else x$torch)
  )
}

#' @export
print.bce_sitrep <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}
