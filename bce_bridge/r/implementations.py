"""The loss as R computes it: by the package bcebridge, by base R's distribution functions, by R torch."""

import functools

import numpy as np

from bce_bridge import _errors, core
from bce_bridge.r import process, session

IMPLEMENTATIONS = ("r-package", "r-nmath", "r-tensors", "r-torch")
_ON_TENSORS = ("r-tensors", "r-torch")


def _check_implementation(implementation):
    if implementation not in IMPLEMENTATIONS:
        raise _errors.choice("implementation", IMPLEMENTATIONS, implementation)


def _call(implementation):
    """session.call, in the process where the implementation runs.

    R torch has a process of its own, because its libtorch and Python torch's share a name and a process can hold only one.
    """
    return process.call if implementation in _ON_TENSORS else session.call


@functools.lru_cache
def version(implementation):
    """Return the versions that an implementation runs on, such as "bcebridge 0.1.0, R 4.2.2".

    Parameters
    ----------
    implementation : str
        One of `IMPLEMENTATIONS`.

    Returns
    -------
    str

    Raises
    ------
    NotAvailable
        If it cannot run here. The text is one line on how to get it.
    ValueError
        If the name is not in `IMPLEMENTATIONS`.
    """
    _check_implementation(implementation)
    ((text,),) = _call(implementation)("version", implementation)
    return text


def evaluate(implementation, logits, targets, weight=None, pos_weight=None, reduction="mean"):
    """Compute the loss and its gradient with respect to the logits in R.

    Parameters
    ----------
    implementation : str
        "r-package" is bcebridge::bce_with_logits(gradient = TRUE): the core, through R.

        "r-nmath" is base R alone: plogis(), which has log sigma to full accuracy, and R's sum().

        "r-torch" is torch::nn_bce_with_logits_loss() and $backward() on R torch's tensors, in an R process of its own.

        "r-tensors" is the same of bcebridge: the core on R torch's tensors.
    logits, targets, weight, pos_weight, reduction
        As in `bce_bridge.core.loss`: real arrays of any shape, strides and memory order. pandas objects are taken as such
        arrays, and so are R's own vectors, matrices and arrays (of rpy2).

    Returns
    -------
    loss : ndarray or NumPy scalar
        Of the logits' shape under "none", else a scalar.
    gradient : ndarray or NumPy scalar
        Of the logits' shape. Under "mean" and "sum" it is the gradient of the scalar.

    Raises
    ------
    TypeError, ValueError
        As `bce_bridge.core.loss` for operands that do not fit. TypeError also for logits of 16 bits with tensors, ValueError
        for an unknown implementation.
    NotAvailable
        As `version`.
    RError
        For an error in R, and for an R object that is not plain numbers or holds NA.

    Notes
    -----
    "r-package" and "r-nmath" convert every operand into float64 and return float64.

    The tensors of "r-tensors" and "r-torch" are float32 or float64, and so are the results. An operand of either dtype keeps
    it; any other takes the logits' dtype. The loss has the dtype of the targets' tensor.
    """
    _check_implementation(implementation)
    given = {"logits": logits, "targets": targets, "weight": weight, "pos_weight": pos_weight}
    operands = core.checked_operands(*(session.without_r(value, name) for name, value in given.items()), reduction)
    x = operands[0]
    if implementation in _ON_TENSORS:
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"logits must have dtype float32 or float64 for {implementation!r}, got {x.dtype}")
        dtypes = [a if a is None else a.dtype if a.dtype in (np.float32, np.float64) else x.dtype for a in operands]
        loss_dtype, gradient_dtype = dtypes[1], x.dtype
        operands = [*operands, *(a if a is None else a.name for a in dtypes)]
    else:
        loss_dtype = gradient_dtype = np.dtype(np.float64)
    version(implementation)
    loss, gradient = _call(implementation)(implementation, reduction, *operands)
    loss = loss.reshape(x.shape if reduction == "none" else (), order="F")
    return loss.astype(loss_dtype)[()], gradient.reshape(x.shape, order="F").astype(gradient_dtype)[()]
