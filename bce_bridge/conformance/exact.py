"""The exact answers, by mpmath, and how large the terms are that an implementation adds up on its way to them.

The limits of the contract are taken: a zero coefficient silences its term even at an infinite logit, and NaN in any operand
gives NaN.
"""

from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

from bce_bridge.conformance.cases import QUANTITIES

PRECISION = 320  # bits: enough for e^-746 beside 1 and for the terms of a gradient to cancel to the last bit of float64


@dataclass(frozen=True)
class Exact:
    """For each quantity a list of numbers, flat in C order, with, for each number:

    terms           the sum of the magnitudes of the terms of the formula: where they cancel, a rounding of theirs shows
    libtorch_terms  the same for the formula that libtorch evaluates, (1 - y) x - (1 + (p - 1) y) log_sigmoid(x) and
                    (p y + 1 - y) sigma(x) - p y
    """

    values: dict
    terms: dict
    libtorch_terms: dict


def _product(*factors):
    """A product in which a zero silences everything but NaN."""
    if any(mp.isnan(factor) for factor in factors):
        return mp.nan
    if any(factor == 0 for factor in factors):
        return mpf(0)
    result = mpf(1)
    for factor in factors:
        result *= factor
    return result


def element(x, y, w, p):
    """(loss, gradient) of one element, with (terms, libtorch_terms) of each: six numbers."""
    x, y, w, p = (mpf(float(number)) for number in (x, y, w, p))
    if any(mp.isnan(number) for number in (x, y, w, p)):
        return (mp.nan,) * 6
    # e^-|x| is below every float64 long before mpmath's exponents overflow.
    t = mp.exp(-min(abs(x), mpf(10**6)))
    log1p = mp.log1p(t)
    softplus, softplus_minus = max(x, mpf(0)) + log1p, max(-x, mpf(0)) + log1p
    sigma, sigma_minus = (1 / (1 + t), t / (1 + t)) if x >= 0 else (t / (1 + t), 1 / (1 + t))
    negative, positive = _product(w, 1 - y), _product(w, p, y)
    first, second = _product(negative, softplus), _product(positive, softplus_minus)
    slope, slope_minus = _product(negative, sigma), _product(positive, sigma_minus)
    log_weight = abs(w) * (1 + abs((p - 1) * y))
    return (
        first + second,
        slope - slope_minus,
        abs(first) + abs(second),
        abs(slope) + abs(slope_minus),
        abs(_product(negative, x)) + _product(log_weight, softplus_minus) + abs(w),
        abs(w) * (abs(p * y) + 1 + abs(y)) * sigma + abs(positive),
    )


def exact(case):
    """The Exact answers to a case."""
    with mp.workprec(PRECISION):
        operands = [
            np.broadcast_to(1.0 if a is None else a, case.logits.shape).ravel()
            for a in (case.logits, case.targets, case.weight, case.pos_weight)
        ]
        rows = [element(*numbers) for numbers in zip(*operands)]
        loss, gradient, terms, gradient_terms, libtorch, libtorch_gradient = zip(*rows) if rows else ([],) * 6
        n = len(rows)
        return Exact(
            _quantities(loss, gradient, n), _quantities(terms, gradient_terms, n), _quantities(libtorch, libtorch_gradient, n)
        )


def _quantities(loss, gradient, n):
    total = mp.fsum(loss)
    mean = total / n if n else mp.nan
    values = (list(loss), [mean], [total], list(gradient), [g / n for g in gradient])
    return dict(zip(QUANTITIES, values))
