"""The error of each implementation against the logit, at the labels 0 and 1 without weights.

Imports the implementations and the exact answers.
"""

from typing import NamedTuple

import numpy as np
from mpmath import mp

from bce_bridge.conformance.cases import load_cases
from bce_bridge.conformance.compare import error_in_ulp
from bce_bridge.conformance.exact import PRECISION, element
from bce_bridge.conformance.implementations import IMPLEMENTATIONS, NotInstalled

DTYPES = ("float32", "float64")
KINDS = ("loss", "gradient")
LABELS = (0, 1)
# Beyond these e^-|x| is 0 in the dtype, and nothing changes any more.
LARGEST_LOGIT = {"float32": 110, "float64": 750}
POINTS = 321


class Sweep(NamedTuple):
    """What one implementation is off by in one dtype. errors[kind, label] is (logits, errors in ULP), two arrays of one
    length; an error is infinite where the answer is NaN, and where only one of the answer and the exact value is infinite."""

    name: str
    dtype: str
    errors: dict


def logits(dtype):
    """POINTS numbers of dtype, in equal steps up to 1 and in equal ratios from there, and both infinities."""
    steps = np.linspace(0, 1 + np.log10(LARGEST_LOGIT[dtype]), POINTS // 2 + 1)
    positive = np.where(steps <= 1, steps, 10 ** (steps - 1))
    return np.array([-np.inf, *-positive[:0:-1], *positive, np.inf], dtype)


def sweep(progress=lambda text, done, total: None, implementations=IMPLEMENTATIONS, device="cpu"):
    """A Sweep for each implementation that is installed and each dtype it computes in, at logits(dtype); of a recording, at the
    logits that it has. progress is called with a description and how much of it is done."""
    exact = {}
    result = []
    for done, kind in enumerate(implementations):
        progress("error against the logit", done, len(implementations))
        implementation = kind(device)
        try:
            implementation.open()
        except NotInstalled:
            continue
        for dtype in DTYPES:
            answers = _answers(implementation, dtype)
            if answers:
                result.append(Sweep(kind.name, dtype, _errors(answers, dtype, exact)))
    return result


def _answers(implementation, dtype):
    """(logits, losses, gradients) for each label; empty where the implementation does not compute in dtype."""
    if implementation.float64_only and dtype != "float64":
        return {}
    x = logits(dtype)
    answers = {}
    for label in LABELS:
        y = np.full_like(x, label)
        if not implementation.expresses(x, y, None, None):
            return {}
        try:
            answers[label] = x, *_elementwise(implementation, x, y)
        except NotInstalled:
            return _recorded(implementation, dtype)
    return answers


def _elementwise(implementation, x, y):
    """Losses and gradients of the elements, each alone where the implementation can only add them up."""
    if "none" in implementation.reductions:
        return implementation.loss_and_grad(x, y, None, None, "none")
    pairs = [implementation.loss_and_grad(x[i : i + 1], y[i : i + 1], None, None, "sum") for i in range(x.size)]
    return tuple(np.concatenate([np.ravel(number) for number in numbers]) for numbers in zip(*pairs))


def _recorded(implementation, dtype):
    """The same from the recorded cases without weights, at their logits that are infinite or not beyond LARGEST_LOGIT."""
    columns = {label: [] for label in LABELS}
    for case in load_cases():
        if case.dtype != dtype or case.weight is not None or case.pos_weight is not None or case.logits.size == 0:
            continue
        answer = implementation.answer(case)
        y = np.broadcast_to(case.targets, case.logits.shape).ravel()
        rows = np.stack([case.logits.ravel(), answer["none"], answer["grad_sum"]])
        shown = np.isinf(rows[0]) | (np.abs(rows[0]) <= LARGEST_LOGIT[dtype])
        for label in LABELS:
            columns[label].append(rows[:, (y == label) & shown])
    return {label: tuple(np.concatenate(found, axis=1)) for label, found in columns.items()}


def _errors(answers, dtype, exact):
    """The errors of a Sweep; exact holds the exact answers found so far. Answers not one for each logit count as NaN."""
    errors = {}
    for label, (x, *got) in answers.items():
        with mp.workprec(PRECISION):
            for number in map(float, x):
                if (number, label) not in exact:
                    exact[number, label] = element(number, label, 1, 1)[: len(KINDS)]
        for i, kind in enumerate(KINDS):
            values = np.ravel(got[i]) if np.size(got[i]) == x.size else np.full(x.size, np.nan)
            off = [error_in_ulp(value, exact[number, label][i], dtype) for value, number in zip(values, map(float, x))]
            errors[kind, label] = np.asarray(x, np.float64), np.array(off)
    return errors
