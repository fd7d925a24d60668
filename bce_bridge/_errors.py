"""Errors that several modules raise: `NAME must be WANTED, got GOT`, then the remedy. Imports nothing of this package."""

import numbers


def choice(name, choices, value):
    """The error for a value that is none of the choices."""
    *others, last = map(repr, choices)
    return ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def checked_label_smoothing(value):
    """value as a float. Raises TypeError if it is not a number and ValueError if it is outside [0, 1]."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0.0 <= value <= 1.0:
        raise (ValueError if number else TypeError)(f"label_smoothing must be a number in [0, 1], got {value!r}")
    return float(value)


def not_broadcast(name, tensor, input):
    """The error for a tensor that does not broadcast to the input's shape, which it may not enlarge."""
    return RuntimeError(f"{name} must broadcast to the input's shape {tuple(input.shape)}, got shape {tuple(tensor.shape)}")


def not_floating(input):
    return RuntimeError(f"input must have a floating dtype, got {input.dtype}: convert it with .float()")


def not_readable(name, tensor):
    """The error for a tensor of a layout or dtype that neither the core nor Triton reads."""
    if str(tensor.layout) != "torch.strided":
        remedy = "to_dense()"
    else:
        remedy = "dequantize()" if tensor.is_quantized else "real" if tensor.is_complex() else "float()"
    got = f"a {tensor.layout} tensor of dtype {tensor.dtype}"
    return RuntimeError(f"{name} must be a strided tensor of real numbers, got {got}: use its .{remedy}")


def renamed(error, logits, targets):
    """The text of the core's error, with the names that the caller's interface has for logits and targets."""
    return str(error).replace("logits'", f"{logits}'s").replace("logits", logits).replace("targets", targets)
