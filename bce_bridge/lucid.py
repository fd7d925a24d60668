"""Lucid's binary cross entropy with logits, computed by the C core. Imports NumPy and the core, and Lucid never of itself.

    from bce_bridge.lucid import BCEWithLogitsLoss    # for lucid.nn.BCEWithLogitsLoss

Run with Lucid 2.9 and 2.16 (make test-lucid). Lucid 3 runs on Apple silicon alone. For it the tests use stand-ins that have
the part of its documented interface that is used here: Tensor (numpy(), requires_grad, device), tensor() and
autograd.Function.

The conventions are those of Lucid 3 up to 3.15.4, where the four arguments broadcast against each other. Lucid 3.16 names the
logits `input`, which is accepted here as well. It also refuses shapes that differ and targets that are not floating.
"""

import sys

import numpy as np

from bce_bridge import _errors, core

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]

_REDUCTIONS = ("none", "mean", "sum")


def binary_cross_entropy_with_logits(x=None, target=None, weight=None, reduction="mean", pos_weight=None, *, input=None):
    """lucid.nn.functional.binary_cross_entropy_with_logits, computed by `bce_bridge.core.loss`.

    Each operand is a Lucid tensor, a NumPy array, anything that NumPy turns into an array, or anything whose numpy() gives one.
    All their shapes broadcast to that of the result.

    Parameters
    ----------
    x : tensor or array_like
        Floating logits. `input` is another name for it.
    target : tensor or array_like
        Probabilities: floating, integer or boolean.
    weight, pos_weight : tensor or array_like, optional
        Floating, integer or boolean.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements of the result, also with weights.

    Returns
    -------
    Lucid tensor, ndarray or NumPy scalar
        A Lucid tensor if x is one, differentiable once in x. The dtype is the one to which those of x and target promote, or
        x's if target is integer or boolean.

    Raises
    ------
    TypeError
        If x or target is missing, x and input are both given, or an operand does not hold real numbers.
    ValueError
        If reduction is unknown or the shapes do not broadcast.
    RuntimeError
        If a tensor other than x requires grad.

    Notes
    -----
    Lucid up to 3.15.4 has reduction after pos_weight where both are given by position.

    Examples
    --------
    >>> from bce_bridge.lucid import binary_cross_entropy_with_logits
    >>> print(binary_cross_entropy_with_logits([2.0, -1.0], [1.0, 0.0]).round(4))
    0.2201
    """
    if (x is None) == (input is None) or target is None:
        raise TypeError("x or input must be given, not both, and target")
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    x = input if x is None else x
    given = {"x": x, "target": target, "weight": weight, "pos_weight": pos_weight}
    for name, value in given.items():
        if name != "x" and getattr(value, "requires_grad", False):
            raise RuntimeError(f"{name} must not require grad, for there is no derivative in it here: detach it")
    arrays = {name: _array(value) for name, value in given.items() if value is not None}
    if arrays["target"].dtype.kind == "f":
        arrays["target"] = arrays["target"].astype(np.result_type(arrays["x"], arrays["target"]), copy=False)
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
        raise ValueError(f"shapes must broadcast against each other, got {shapes}") from None
    arrays = {name: np.broadcast_to(array, shape) for name, array in arrays.items()}
    operands = arrays["x"], arrays["target"], arrays.get("weight"), arrays.get("pos_weight"), reduction
    lucid = sys.modules.get("lucid")
    tensor = isinstance(x, getattr(lucid, "Tensor", ()))
    try:
        if tensor and x.requires_grad:
            return _differentiable(lucid, x, *core.loss_and_grad(*operands))
        loss = core.loss(*operands)
    except TypeError as error:  # names the core's argument
        raise TypeError(_errors.renamed(error, "x", "target")) from None
    return lucid.tensor(np.asarray(loss), device=x.device) if tensor else loss


def _array(value):
    """Return value as an array. Lucid's older tensors lack __array__, so NumPy would make an array of objects of them."""
    return np.asarray(value if isinstance(value, np.ndarray) or not hasattr(value, "numpy") else value.numpy())


def _differentiable(lucid, x, loss, gradient):
    """Make the loss a Lucid tensor whose derivative in x is the gradient, summed over the dimensions that x broadcast to."""
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
    """The same for Lucid 2, which has no Function.

    The derivative of sum(x gradient) in x is the gradient, so take that sum and replace its value. Adding the loss to it
    instead would give NaN for infinite x. Broadcast x first: Lucid 2.9 differentiates a product that broadcasts wrongly.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        x = x if x.shape == gradient.shape else x.broadcast_to(gradient.shape)
        result = x * lucid.tensor(gradient.astype(loss.dtype, copy=False), device=x.device)
        if loss.ndim < gradient.ndim:
            result = result.sum()
    result.data = lucid.tensor(loss, device=x.device).data
    return result


class BCEWithLogitsLoss:
    """lucid.nn.BCEWithLogitsLoss, computed by `binary_cross_entropy_with_logits` of this module.

    This is not a lucid.nn.Module, so it works without Lucid. It has those methods of a Module that a training loop calls. There
    are no parameters and, as in Lucid 3 up to 3.15.4, no buffers.

    Parameters
    ----------
    weight, reduction, pos_weight
        As in `binary_cross_entropy_with_logits`. They are attributes, which each call reads.

    Examples
    --------
    >>> from bce_bridge.lucid import BCEWithLogitsLoss
    >>> BCEWithLogitsLoss(reduction="none")([2.0, -1.0], [1.0, 0.0]).round(4)
    array([0.1269, 0.3133])
    """

    training = True

    def __init__(self, weight=None, reduction="mean", pos_weight=None):
        self.weight = weight
        self.reduction = reduction
        self.pos_weight = pos_weight

    def forward(self, x=None, target=None, *, input=None):
        """Return the loss of logits and targets. `input` is another name for x."""
        return binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight, input=input)

    __call__ = forward

    def train(self, mode=True):
        """Set training, which has no other effect. Returns the loss object itself."""
        self.training = mode
        return self

    def eval(self):
        """Return train(False)."""
        return self.train(False)

    def parameters(self):
        """Return an iterator over no parameters."""
        return iter(())

    def state_dict(self):
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state_dict):
        """Take what state_dict() gives. Raises KeyError if there is anything in it."""
        if state_dict:
            raise KeyError(f"state_dict must be empty, got {', '.join(map(repr, state_dict))}")

    def extra_repr(self):
        """Return the arguments that the repr shows, such as "reduction='mean'"."""
        return f"reduction={self.reduction!r}"

    def __repr__(self):
        return f"{type(self).__name__}({self.extra_repr()})"
