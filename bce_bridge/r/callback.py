"""This package's loss in the embedded R: the R functions of callback.R, answered by bce_bridge.core or by torch on a device.

Imports torch where a device is asked for.
"""

import numpy as np

from bce_bridge import _errors, core
from bce_bridge.r import session

_python = None  # the R function that calls back; R does not keep it alive
_device = None  # the torch device that it computes on; None for the core


def install(device=None):
    """Make the loss callable in the embedded R, under R torch's names.

    It defines::

        nn_bce_with_logits_loss(weight = NULL, reduction = "mean", pos_weight = NULL)      returns a function(input, target)
        nnf_binary_cross_entropy_with_logits(input, target, weight = NULL, reduction = c("mean", "sum", "none"),
                                             pos_weight = NULL)
        bce_with_logits(input, target, weight = NULL, pos_weight = NULL, reduction = "mean", gradient = FALSE,
                        na.action = na.fail, label_smoothing = 0, dtype = "float64")

    Parameters
    ----------
    device : str or torch.device, optional
        One of torch's, such as "cuda" or torch.device("mps", 0). This package's torch layer then computes there on float64
        tensors, or float32 on "mps", which has no other. Without a device the core computes on R's own memory.

    Raises
    ------
    NotAvailable
        Without rpy2 or R.
    Exception
        Whatever torch raises for a device that it does not have.

    Notes
    -----
    The functions are attached to the front of the search path as "bce_bridge", as library() attaches a package. The user's own
    definitions go before them, and clearing the workspace leaves them.

    They take numeric vectors, matrices and arrays: input is double or integer, the others may also be logical. They return
    doubles: one number, or under "none" an object with the dim, dimnames and names of input. Shapes broadcast by torch's rule
    on dim.

    An error is an R condition of class bce_bridge_error with Python's message. NA, factors, text, complex numbers and objects
    of any class are errors. The only na.action is na.fail.
    """
    global _python, _device
    if device is not None:
        import torch

        device = torch.device(device)
        torch.empty(0, device=device)
    rinterface, lock, functions = session.start()
    with lock:
        _device = device
        if _python is None:
            _python = rinterface.rternalize(_answer)
            functions["python"] = _python
    session.call("install")


def uninstall():
    """Detach what `install` attached. Does nothing if nothing is attached."""
    session.call("uninstall")


def _answer(input, target, weight, pos_weight, reduction, gradient, label_smoothing):
    """What R calls: numeric vectors or NULL in; list(loss, gradient or NULL) out, or the text of an error.

    No exception may leave it: rpy2 would hand R NULL instead, and a bad pointer for an interrupt.
    """
    rinterface, _, _ = session.start()
    session.in_callback = True
    try:
        # Views of R's memory, which the arguments keep alive.
        null = rinterface.RTYPES.NILSXP
        arrays = input, target, weight, pos_weight
        operands = [None if a.typeof == null else np.asarray(a) for a in arrays]
        compute = _in_core if _device is None else _on_device
        results = compute(operands, reduction[0], gradient[0], label_smoothing[0])
        return rinterface.ListSexpVector([_flat(rinterface, result) for result in results])
    except (TypeError, ValueError) as error:
        return rinterface.StrSexpVector([_errors.renamed(error, "input", "target")])
    except BaseException as error:
        return rinterface.StrSexpVector([f"{type(error).__name__}: {error}"])
    finally:
        session.in_callback = False


def _in_core(operands, reduction, gradient, label_smoothing):
    if gradient:
        return core.loss_and_grad(*operands, reduction, label_smoothing=label_smoothing)
    return core.loss(*operands, reduction, label_smoothing=label_smoothing), None


def _on_device(operands, reduction, gradient, label_smoothing):
    import torch

    from bce_bridge.torch.functional import binary_cross_entropy_with_logits

    core.checked_operands(*operands, reduction)
    dtype = torch.float32 if _device.type == "mps" else torch.float64
    logits, targets, weight, pos_weight = (
        None if array is None else torch.tensor(array, dtype=dtype, device=_device) for array in operands
    )
    logits.requires_grad_(gradient)
    loss = binary_cross_entropy_with_logits(
        logits, targets, weight, reduction=reduction, pos_weight=pos_weight, label_smoothing=label_smoothing
    )
    results = (loss.detach(), *torch.autograd.grad(loss.sum(), logits)) if gradient else (loss, None)
    return [None if tensor is None else tensor.cpu().numpy() for tensor in results]


def _flat(rinterface, result):
    return session.to_r(rinterface, None if result is None else np.ravel(result, order="F"))
