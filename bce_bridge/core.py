"""Binary cross entropy with logits on NumPy arrays, computed by the C core. Imports NumPy and the core alone.

For logit x, target y, weight w and positive-class weight p (1 where not given)

    loss      l       = w [(1 - y) log(1 + e^x) + p y log(1 + e^-x)]
    gradient  dl/dx   = w [(1 - y) sigma(x) - p y sigma(-x)],    sigma(x) = 1 / (1 + e^-x)
    curvature d2l/dx2 = w (1 - y + p y) sigma(x) sigma(-x)

(the loss of torch.nn.BCEWithLogitsLoss, written so that nothing cancels). All arithmetic is in float64, and each result is
rounded once. A zero coefficient silences its term even at an infinite logit; NaN in any operand gives NaN.

Arguments, of every function here:

    logits      real array of any shape: float16, float32, float64, or bfloat16 from ml_dtypes; integers count as float64
    targets     real or boolean array of the logits' shape; probabilities, though values outside [0, 1] are computed too
    weight      real array that broadcasts to the logits' shape, or None
    pos_weight  likewise: the weight of the positive term; of shape (C,) for C classes in the last dimension
    reduction   "mean" (over all elements, also with weights), "sum" or "none"
    label_smoothing   e in [0, 1]: targets y become y (1 - e) + e / 2

Arrays may have any strides and byte order. The loss has the dtype of the targets when that is floating and they are an array,
else that of the logits; derivatives have the dtype of the logits. Under "mean" and "sum" the loss is a NumPy scalar, and the
derivatives are those of that scalar.

Errors: TypeError for what holds no real numbers (text, objects, complex numbers, dates, masked arrays) or is wider than
float64; ValueError for shapes that do not fit and for an unknown reduction. The text names the argument.
"""

import numpy as np

from bce_bridge import _abi

__all__ = ["curvature", "loss", "loss_and_grad"]


def _describe(array):
    return _abi.Array(array.ctypes.data, array.dtype.name, array.shape, array.strides)


def _operand(name, value):
    """value as an array of a dtype that the core reads, copied only if it must be."""
    if value is None:
        raise TypeError(f"{name} is None, wants a real array")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: fill it, or give the mask as a weight of 0 and 1")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from None
    dtype = array.dtype
    if dtype.kind not in "fiub" and dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {dtype}, wants real numbers")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {dtype}, which float64 cannot hold: convert it with astype(float64)")
    if dtype.name not in _abi.DTYPES:
        return array.astype(np.float64)  # uint16, uint32, uint64
    if not dtype.isnative:
        return array.astype(dtype.newbyteorder("="))
    return array


def _floating(dtype):
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _operands(logits, targets, weight, pos_weight):
    x = _operand("logits", logits)
    y = _operand("targets", targets)
    if x.dtype.kind == "b":
        raise TypeError("logits has dtype bool, wants real numbers")
    if not _floating(x.dtype):
        x = x.astype(np.float64)
    w = None if weight is None else _operand("weight", weight)
    p = None if pos_weight is None else _operand("pos_weight", pos_weight)
    return x, y, w, p


def _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, names):
    _abi.reduction_code(reduction)
    x, y, w, p = _operands(logits, targets, weight, pos_weight)
    # A list or number has no dtype of its own, as in NumPy's promotion rules.
    loss_dtype = y.dtype if hasattr(targets, "dtype") and _floating(np.asarray(targets).dtype) else x.dtype
    results = {}
    for name in names:
        scalar = name == "loss" and reduction != "none"
        # Of the operand's own memory layout, so that both are walked in one order.
        results[name] = (
            np.empty((), loss_dtype) if scalar else np.empty_like(x, loss_dtype if name == "loss" else x.dtype, subok=False)
        )
    _abi.evaluate(
        *(None if a is None else _describe(a) for a in (x, y, w, p)),
        label_smoothing,
        reduction,
        **{name: _describe(array) for name, array in results.items()},
    )
    return tuple(array[()] for array in results.values())


def loss(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """The loss: an array of the logits' shape under "none", else a scalar. Arguments and errors: see the module."""
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss"])[0]


def loss_and_grad(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """(loss, gradient with respect to the logits) in one pass. Arguments and errors: see the module."""
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss", "gradient"])


def curvature(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """The second derivative with respect to each logit, the diagonal that is the whole Hessian. Arguments and errors: see
    the module."""
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["curvature"])[0]
