# What a value of each class or type becomes numbers by.
fixes <- c(
  factor = 'compare it with the positive level, as in x == "yes"',
  data.frame = "use as.matrix(), or [[ for one column",
  integer64 = "use as.numeric() with bit64 attached",
  torch_tensor = "use torch::as_array()",
  character = "use as.numeric()",
  complex = "use Re()",
  list = "use unlist()",
  raw = "use as.integer()"
)

# x, if it is numbers and, where that is wanted, none of them is NA. An object is refused whatever its type, since
# its class may give the numbers another meaning: integer64 holds integers in the bits of doubles, a factor the positions of its
# levels.
check_operand <- function(x, name, call, refuse_na = TRUE) {
  if (is.object(x) || !is.numeric(x) && !is.logical(x)) {
    kinds <- if (is.object(x)) class(x) else typeof(x)
    got <- if (is.object(x)) paste("class", kinds[[1]]) else if (is.null(x)) "NULL" else paste("type", kinds)
    fix <- c(fixes[kinds[kinds %in% names(fixes)]], if (is.object(x)) "use as.numeric() if its numbers are meant")
    abort(call, name, " must be a numeric vector, matrix or array, got ", got, if (length(fix)) paste0(": ", fix[[1]]))
  }
  if (refuse_na) check_na(x, name, call)
  if (name == "input" && is.logical(x)) {
    abort(call, "input must be numeric logits, got type logical: are input and target the wrong way round?")
  }
  x
}


is_python <- function(x) is.object(x) && inherits(x, "python.builtin.object")

# R's numbers of a NumPy array or of a tensor of torch in Python, which reticulate holds.
from_python <- function(x, name, call) {
  tryCatch(
    {
      # torch gives NumPy no bfloat16; doubles hold every number of the floating types.
      if (inherits(x, "torch.Tensor")) x <- x$detach()$cpu()$double()$numpy()
      reticulate::py_to_r(x)
    },
    error = function(e) {
      got <- paste("a Python object of class", class(x)[[1]])
      abort(call, name, " must become numbers, got ", got, ": ", conditionMessage(e))
    }
  )
}
