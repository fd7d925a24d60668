"""Lucid's binary cross entropy with logits, computed by the C core. Imports NumPy and the core, and Lucid never of itself.

    from bce_bridge.lucid import BCEWithLogitsLoss    # for lucid.nn.BCEWithLogitsLoss

Run with Lucid 2.9 and 2.16 (make test-lucid). Lucid 3 runs on Apple silicon alone: for it the tests use stand-ins that have the
part of its documented interface that is used here, Tensor (numpy(), requires_grad, device), tensor() and autograd.Function.
The conventions are those of Lucid 3 up to 3.15.4, where the four arguments broadcast against each other. Lucid 3.16 names the
logits `input`, which is accepted here as well, and refuses more: shapes that differ, and targets that are no floating numbers.
"""

import sys

import numpy as np

from bce_bridge import core

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]

_REDUCTIONS = ("none", "mean", "sum")


def binary_cross_entropy_with_logits(x=None, target=None, weight=None, reduction="mean", pos_weight=None, *, input=None):
    """lucid.nn.functional.binary_cross_entropy_with_logits, computed by core.loss: see there.

    x           logits, of floating numbers; `input` is another name for it
    target      probabilities, of floating numbers, integers or booleans
    weight, pos_weight      likewise, or None
    reduction   "mean" (over all elements of the result, also with weights), "sum" or "none"

    Each is a Lucid tensor, a NumPy array, or anything that NumPy makes an array of or whose numpy() gives one, and all shapes
    broadcast to that of the result. Lucid up to 3.15.4 has reduction after pos_weight where both are given by position.

    Returns a Lucid tensor if x is one, differentiable once in x, else a NumPy array or scalar; of the type to which the types
    of x and target promote, or of x where target holds integers or booleans.

    Raises ValueError for any other reduction and for shapes that do not broadcast, RuntimeError if another tensor than x
    requires grad, TypeError for a missing argument and for what holds no real numbers.
    """
    if (x is None) == (input is None) or target is None:
        raise TypeError("wants logits, as x or as input, and a target")
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    x = input if x is None else x
    given = {"x": x, "target": target, "weight": weight, "pos_weight": pos_weight}
    for name, value in given.items():
        if name != "x" and getattr(value, "requires_grad", False):
            raise RuntimeError(f"{name} requires grad, for which there is no derivative here: detach it")
    arrays = {name: _array(value) for name, value in given.items() if value is not None}
    if arrays["target"].dtype.kind == "f":
        arrays["target"] = arrays["target"].astype(np.result_type(arrays["x"], arrays["target"]), copy=False)
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{shapes} do not broadcast") from None
    arrays = {name: np.broadcast_to(array, shape) for name, array in arrays.items()}
    operands = arrays["x"], arrays["target"], arrays.get("weight"), arrays.get("pos_weight"), reduction
    lucid = sys.modules.get("lucid")
    tensor = isinstance(x, getattr(lucid, "Tensor", ()))
    try:
        if tensor and x.requires_grad:
            return _differentiable(lucid, x, *core.loss_and_grad(*operands))
        loss = core.loss(*operands)
    except TypeError as error:  # in terms of the core, of whose arguments one is at fault
        raise TypeError(str(error).replace("logits", "x").replace("targets", "target")) from None
    return lucid.tensor(np.asarray(loss), device=x.device) if tensor else loss


def _array(value):
    """value as an array. Lucid's older tensors have no __array__, without which NumPy makes an array of objects of them."""
    return np.asarray(value if isinstance(value, np.ndarray) or not hasattr(value, "numpy") else value.numpy())


def _differentiable(lucid, x, loss, gradient):
    """The loss as a Lucid tensor whose derivative in x is the gradient, summed over what x was broadcast along."""
    loss, gradient = np.asarray(loss), np.asarray(gradient)
    if not hasattr(getattr(lucid, "autograd", None), "Function"):
        return _with_derivative(lucid, x, loss, gradient)
    added = gradient.ndim - len(x.shape)
    repeated = tuple(i for i, size in enumerate(x.shape) if size == 1 != gradient.shape[added + i])

    class Loss(lucid.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(lucid.tensor(gradient, device=x.device))
            return lucid.tensor(loss, device=x.device)

        @staticmethod
        def backward(ctx, grad_output):
            (gradient,) = ctx.saved_tensors
            product = gradient * grad_output
            if added:
                product = product.sum(dim=tuple(range(added)))
            return product.sum(dim=repeated, keepdim=True) if repeated else product

    return Loss.apply(x)


def _with_derivative(lucid, x, loss, gradient):
    """The same for Lucid 2, which has no Function: sum(x gradient) has this derivative in x, whatever its value, which is then
    replaced. To add the loss to it instead would give NaN for infinite x. In 2.9 the derivative of a product that broadcasts is
    wrong.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x = x if x.shape == gradient.shape else x.broadcast_to(gradient.shape)
        result = x * lucid.tensor(gradient.astype(loss.dtype, copy=False), device=x.device)
        if loss.ndim < gradient.ndim:
            result = result.sum()
    result.data = lucid.tensor(loss, device=x.device).data
    return result


class BCEWithLogitsLoss:
    """lucid.nn.BCEWithLogitsLoss, computed by binary_cross_entropy_with_logits of this module: see there.

    weight, reduction and pos_weight are attributes, and are looked at when the loss is called. No lucid.nn.Module, so that it
    works without Lucid, but with those of a Module's methods that a training loop calls: there are no parameters and, as in
    Lucid 3 up to 3.15.4, no buffers.
    """

    training = True

    def __init__(self, weight=None, reduction="mean", pos_weight=None):
        self.weight = weight
        self.reduction = reduction
        self.pos_weight = pos_weight

    def forward(self, x=None, target=None, *, input=None):
        """The loss of logits and targets."""
        return binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight, input=input)

    __call__ = forward

    def train(self, mode=True):
        """Sets training, which changes nothing else, and returns the loss itself."""
        self.training = mode
        return self

    def eval(self):
        """train(False)"""
        return self.train(False)

    def parameters(self):
        """An iterator over no parameters."""
        return iter(())

    def state_dict(self):
        """An empty dict."""
        return {}

    def load_state_dict(self, state_dict):
        """Takes what state_dict() gives. Raises KeyError for anything in it."""
        if state_dict:
            raise KeyError(f"state_dict must be empty, got {', '.join(map(repr, state_dict))}")

    def extra_repr(self):
        """reduction='mean'"""
        return f"reduction={self.reduction!r}"

    def __repr__(self):
        return f"{type(self).__name__}({self.extra_repr()})"
