#' How many threads one call may use
#'
#' Threads are started by the call that needs them and have ended when it returns, one for every 131,072 elements at most,
#' so that `parallel::mclapply()` may follow. Results do not depend on their number, to the last bit.
#'
#' @param n A whole number from 1 to 1024; `NULL` to leave the number as it is.
#' @return The number of threads: with `n` the one before, invisibly. At first it is the environment variable
#'   `BCE_BRIDGE_NUM_THREADS`, or else the number of processors. On Windows every call uses one thread.
#' @export
#' @examples
#' before <- bce_num_threads(2)
#' bce_num_threads()
#' bce_num_threads(before)
bce_num_threads <- function(n = NULL) {
  if (is.null(n)) return(.Call(C_num_threads, NULL))
  most <- .Call(C_max_threads)
  if (!is.numeric(n) || length(n) != 1 || !isTRUE(n >= 1 && n <= most && n == trunc(n))) {
    abort(sys.call(), "n must be a whole number from 1 to ", most, ", got ", deparse(n, nlines = 1))
  }
  invisible(.Call(C_num_threads, n))
}
