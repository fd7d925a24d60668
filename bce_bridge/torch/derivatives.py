"""Formulae for one element's derivatives in torch's operations, and how a gradient is scaled. Imports torch."""

import math

import torch
from torch.nn import functional as F


def times(a, b):
    """a b, where a = 0 silences an infinite b."""
    return a * torch.where((a == 0) & b.isinf(), 0.0, b)


class Formulae:
    """The derivatives of one element in float64, from operations that torch can differentiate. Operands as in the operators.

    With k = 1 - label_smoothing, y k + (1 - k) / 2 takes the place of y. Under "mean" all are divided by n.
    """

    def __init__(self, input, target, weight, pos_weight, reduction, label_smoothing, batch):
        x = input.double()
        one = x.new_ones(())
        self.k = k = 1.0 - label_smoothing
        y = target.double()
        self.y, self.complement = y * k + 0.5 * label_smoothing, (1 - y) * k + 0.5 * label_smoothing
        self.w, self.p = (one if tensor is None else tensor.double() for tensor in (weight, pos_weight))
        self.n = math.prod(input.shape[batch:]) if reduction == "mean" else 1
        self.plus, self.minus = x.sigmoid(), (-x).sigmoid()
        self.softplus, self.softminus = -F.logsigmoid(-x), -F.logsigmoid(x)  # log(1 + e^x), log(1 + e^-x)

    def first(self, name):
        k, y, complement, w, p = self.k, self.y, self.complement, self.w, self.p
        if name == "target":
            value = w * k * (times(p, self.softminus) - self.softplus)
        elif name == "weight":
            value = times(complement, self.softplus) + times(p * y, self.softminus)
        else:
            value = times(w * y, self.softminus)
        return value / self.n

    def second(self, name, other):
        """None if it is 0."""
        k, y, complement, w, p, plus, minus = self.k, self.y, self.complement, self.w, self.p, self.plus, self.minus
        match sorted((name, other)):
            case ["input", "input"]:
                value = w * (complement + p * y) * plus * minus
            case ["input", "target"]:
                value = -w * k * (plus + p * minus)
            case ["input", "weight"]:
                value = complement * plus - p * y * minus
            case ["input", "pos_weight"]:
                value = -w * y * minus
            case ["target", "weight"]:
                value = k * (times(p, self.softminus) - self.softplus)
            case ["pos_weight", "target"]:
                value = k * times(w, self.softminus)
            case ["pos_weight", "weight"]:
                value = times(y, self.softminus)
            case _:
                return None
        return value / self.n


def scaled_first(dtype, incoming):
    """Whether to multiply a gradient of this dtype by grad_output, of dtype incoming, before rounding.

    Otherwise the gradient might underflow although a GradScaler's grad_output would lift it, or grad_output would itself be
    rounded to dtype.
    """
    return dtype is torch.float16 or (dtype is torch.bfloat16 and incoming.itemsize > 2)
