"""Programs for bce-bridge conformance: python conformance_programs.py NAME.

Right is the formula in float64, with the limits taken and sums by math.fsum; BceBridge is the package. Each other class has
one mistake, and its flag names it. also: flags of cases that show the mistake too. operand: the operand that the mistake is
about, None for no certain one; it shows in cases with that operand only. every: whether it shows in each of these cases of its
flag, or in some.
"""

import json
import math
import sys

import numpy as np


class Unsupported(Exception):
    """The program does not answer the case."""


class Right:
    flag, also, operand, every = None, (), None, True

    def operands(self, case):
        shape = case["input"]["shape"]
        numbers = {name: self.array(case[name]) for name in ("input", "target", "weight", "pos_weight")}
        x, y, w, p = (np.ones(()) if a is None else a for a in numbers.values())
        return x, y, self.broadcast_weight(w, shape), self.broadcast_pos_weight(p, shape)

    def array(self, entry):
        return entry and np.array([float.fromhex(number) for number in entry["data"]]).reshape(entry["shape"])

    def broadcast_weight(self, w, shape):
        return np.broadcast_to(w, shape)

    def broadcast_pos_weight(self, p, shape):
        return np.broadcast_to(p, shape)

    def elements(self, x, y, w, p, dtype):
        t = np.exp(-np.abs(x))
        log1p = self.log1p(t, dtype)
        softplus, softplus_minus = np.maximum(x, 0) + log1p, np.maximum(-x, 0) + log1p
        sigma, sigma_minus = np.where(x >= 0, 1, t) / (1 + t), np.where(x >= 0, t, 1) / (1 + t)
        negative, positive = self.product(w, 1 - y), self.product(w, p * y)
        loss = self.product(negative, softplus) + self.product(positive, softplus_minus)
        gradient = self.product(negative, sigma) - self.product(positive, sigma_minus)
        return [np.where(np.isnan(x + y + w + p) & ~np.isinf(x), np.nan, result) for result in (loss, gradient)]

    def log1p(self, t, dtype):
        return np.log1p(t)

    def product(self, coefficient, factor):
        product = coefficient * factor
        return np.where((coefficient == 0) & ~np.isnan(factor), 0, product)

    def total(self, losses, dtype):
        try:
            return math.fsum(losses)
        except OverflowError:
            return float(np.sum(losses))

    def mean(self, total, count):
        return total / count if count else math.nan

    def means(self, losses, gradients, case):
        """(mean, its gradient) of the whole: the parts do not matter."""
        count = losses.size
        return self.mean(self.total(losses.ravel(), case["dtype"]), count), gradients / max(count, 1)

    def answer(self, case):
        dtype = case["dtype"]
        losses, gradients = self.elements(*self.operands(case), dtype)
        mean, grad_mean = self.means(losses, gradients, case)
        total = self.total(losses.ravel(), dtype)
        return {"none": losses, "mean": mean, "sum": total, "grad_sum": gradients, "grad_mean": grad_mean}


class NaiveLogSigmoid(Right):
    flag, also = "overflow", ("infinite-logit", "tail-cancellation")

    def elements(self, x, y, w, p, dtype):
        sigma = 1 / (1 + np.exp(-x))
        loss = w * (-(1 - y) * np.log1p(-sigma) - p * y * np.log(sigma))
        return loss, super().elements(x, y, w, p, dtype)[1]


class LibtorchFormula(Right):
    flag, also = "tail-cancellation", ("infinite-logit",)

    def elements(self, x, y, w, p, dtype):
        if dtype == "bfloat16":
            raise Unsupported("NumPy has no bfloat16")
        x, y, w, p = (a.astype(dtype) for a in (x, y, w, p))
        one = x.dtype.type(1)
        log_sigma = np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
        loss = ((one - y) * x - ((p - one) * y + one) * log_sigma) * w
        return loss, ((p * y + one - y) / (one + np.exp(-x)) - p * y) * w


class LogOfOnePlus(Right):
    """log(1 + t) for log1p(t), in the case's type. The gradient has no logarithm and is right."""

    flag, every = "tail-cancellation", False

    def log1p(self, t, dtype):
        if dtype == "bfloat16":
            raise Unsupported("NumPy has no bfloat16")
        t = t.astype(dtype)
        return np.log(t.dtype.type(1) + t).astype(np.float64)


class NothingSilenced(Right):
    flag = "infinite-logit"

    def product(self, coefficient, factor):
        return coefficient * factor


class MeanOfMeans(Right):
    flag = "mean-of-means"

    def means(self, losses, gradients, case):
        if "parts" not in case:
            return super().means(losses, gradients, case)
        bounds = np.cumsum(case["parts"])[:-1]
        split = zip(np.split(losses, bounds), np.split(gradients, bounds))
        parts = [super(MeanOfMeans, self).means(*part, case) for part in split]
        return sum(mean for mean, _ in parts) / len(parts), np.concatenate([g for _, g in parts]) / len(parts)


class PosWeightAxis(Right):
    """pos_weight along the first dimension. np.resize repeats it, or cuts it, to that dimension's length, so that every case
    shows the mistake; pos_weight[:, None], as PosWeightColumn has it, broadcasts in few."""

    flag, operand = "pos-weight-axis", "pos_weight"

    def broadcast_pos_weight(self, p, shape):
        if len(shape) < 2 or p.size == 1 or p.size != p.shape[-1]:
            return super().broadcast_pos_weight(p, shape)
        return np.broadcast_to(np.resize(p, (shape[0],) + (1,) * (len(shape) - 1)), shape)


def column(operand, shape):
    """operand[:, None] of a vector where it broadcasts to the shape, else the operand."""
    fits = operand.ndim == 1 and len(shape) >= 2 and operand.size in (1, shape[-2])
    return operand[:, None] if fits else operand


class PosWeightColumn(Right):
    flag, operand, every = "pos-weight-axis", "pos_weight", False

    def broadcast_pos_weight(self, p, shape):
        return super().broadcast_pos_weight(column(p, shape), shape)


class WeightColumn(Right):
    flag, operand, every = "pos-weight-axis", "weight", False

    def broadcast_weight(self, w, shape):
        return super().broadcast_weight(column(w, shape), shape)


class Accumulation(Right):
    flag = "accumulation"

    def total(self, losses, dtype):
        if dtype == "bfloat16":
            raise Unsupported("NumPy has no bfloat16")
        number = np.dtype(dtype).type
        total = number(0)
        for loss in losses:
            total = number(total + number(loss))
        return total

    def mean(self, total, count):
        return super().mean(float(total), count)


class PairwiseAccumulation(Accumulation):
    """By NumPy's sum, which adds up blocks of terms and then their sums in pairs."""

    every = False

    def total(self, losses, dtype):
        if dtype == "bfloat16":
            raise Unsupported("NumPy has no bfloat16")
        return losses.astype(dtype).sum()


class DoubleRounding(Right):
    flag = "double-rounding"

    def answer(self, case):
        wider = np.float32 if "16" in case["dtype"] else np.float64
        return {name: wider(numbers) for name, numbers in super().answer(case).items()}


class NanSwallowed(Right):
    flag = "nan-propagation"

    def elements(self, x, y, w, p, dtype):
        t = np.exp(-np.abs(x))
        log1p = np.where(t > 0, np.log1p(t), 0)
        sigma, sigma_minus = (np.where(t >= 0, np.where(side, 1, t) / (1 + t), 0) for side in (x >= 0, x < 0))
        negative, positive = w * (1 - y), w * p * y
        loss = self.product(negative, np.fmax(x, 0) + log1p) + self.product(positive, np.fmax(-x, 0) + log1p)
        return loss, self.product(negative, sigma) - self.product(positive, sigma_minus)

    def product(self, coefficient, factor):
        return np.where(np.abs(coefficient) > 0, coefficient * factor, 0)


class EmptyMeanOfZero(Right):
    flag = "empty"

    def mean(self, total, count):
        return total / max(count, 1)


class FlushToZero(Right):
    flag = "subnormal"

    def flushed(self, numbers, dtype):
        least_normal = 2.0 ** {"float16": -14, "float64": -1022}.get(dtype, -126)
        return np.where(np.abs(numbers) < least_normal, 0, numbers)

    def answer(self, case):
        self.dtype = case["dtype"]
        return {name: self.flushed(numbers, self.dtype) for name, numbers in super().answer(case).items()}

    def operands(self, case):
        return [self.flushed(operand, case["dtype"]) for operand in super().operands(case)]


class BceBridge:
    """The package, through torch, which has bfloat16."""

    flag, also = None, ()

    def answer(self, case):
        from bce_bridge.conformance.cases import case_of
        from bce_bridge.conformance.implementations import Torch

        return Torch().answer(case_of({"note": "", "flags": (), **case}))


PROGRAMS = (
    Right, BceBridge, NaiveLogSigmoid, LibtorchFormula, LogOfOnePlus, NothingSilenced, MeanOfMeans, PosWeightAxis,
    PosWeightColumn, WeightColumn, Accumulation, PairwiseAccumulation, DoubleRounding, NanSwallowed, EmptyMeanOfZero,
    FlushToZero,
)  # fmt: skip


def number(value):
    """A JSON number, or a string for what JSON has no number for."""
    return float(value) if np.isfinite(value) else str(float(value))


def main():
    np.seterr(all="ignore")
    program = next(kind for kind in PROGRAMS if kind.__name__ == sys.argv[1])()
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answers = program.answer(case)
            answer = {name: [number(v) for v in np.ravel(numbers)] for name, numbers in answers.items()}
        except Unsupported as reason:
            answer = {"unsupported": str(reason)}
        print(json.dumps({"id": case["id"], **answer}))


if __name__ == "__main__":
    main()
