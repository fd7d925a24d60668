"""The oracle of users' own numbers, and how fast their files are read."""

import numpy as np
import pytest
from mpmath import mp
from operands import hostile

from bce_bridge.conformance import datasets
from bce_bridge.conformance.compare import error_in_ulp
from bce_bridge.conformance.exact import PRECISION, element


def columns(kind, n=3000):
    """Logits, targets, weight and pos_weight."""
    rng = np.random.default_rng(1)
    x, y, one = rng.normal(0, 5, n), rng.integers(0, 2, n).astype(float), np.ones(n)
    match kind:
        case "usual":
            return x, y, one, one
        case "weighted":
            return x, rng.random(n), rng.exponential(1, n), rng.exponential(3, n)
        case "negative weights":  # terms of both signs, the sum next to 0
            return np.tile(x, 2), np.tile(y, 2), np.repeat([1.0, 2.0**-40 - 1], n), np.ones(2 * n)
        case "next to 0":  # every loss cancels
            return x, np.logaddexp(0, x) / x, one, one
        case "tails":
            return rng.uniform(-760, 760, n), y, 10.0 ** rng.integers(-300, 300, n), one
        case "silenced":
            return np.where(rng.random(n) < 0.1, -np.inf, x), np.zeros(n), one, one
        case "infinite":
            return np.where(rng.random(n) < 0.1, np.inf, x), np.zeros(n), one, one
        case "hostile":
            return hostile(rng, n), y, one, one
        case "too large for float64":
            return x, y, np.full(n, 1e308), one


# Catches: a sum taken from long double where its rounding shows, a limit of the formula that it does not know.
@pytest.mark.parametrize(
    "kind",
    ["usual", "weighted", "negative weights", "next to 0", "tails", "silenced", "infinite", "hostile", "too large for float64"],
)
def test_exact_sum_is_that_of_mpmath(kind):
    operands = columns(kind)
    with mp.workprec(PRECISION):
        wanted = mp.fsum(element(*row)[0] for row in zip(*operands))
        got = datasets.exact_sum(*operands)
        assert error_in_ulp(float(got), wanted, "float64") <= 0.5 + 1 / 32
        assert mp.isnan(wanted) or mp.isinf(wanted) or abs(got - wanted) <= abs(wanted) * mp.mpf(2) ** -57


# Catches: a million rows through mpmath, at 0.1 ms each.
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64 here")
def test_usual_rows_do_not_go_through_mpmath(monkeypatch):
    monkeypatch.setattr(datasets, "element", None)
    datasets.exact_sum(*columns("usual"))
