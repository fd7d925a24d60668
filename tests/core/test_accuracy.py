"""Errors over dense and hostile inputs: the measured maximum plus a hair, which goes down when the code gets better.

The oracle is NumPy's long double where that has 64 bits or more (its error, below 2^-60, is counted in), else mpmath on fewer
points.
"""

import subprocess

import numpy as np
import pytest
from c_programs import VERIFY, build
from mpmath import mp

from bce_bridge import _abi, core
from bce_bridge.conformance import compare, exact

EXTENDED = np.finfo(np.longdouble).nmant >= 63
POINTS = 400_000 if EXTENDED else 3_000
MPMATH = np.frompyfunc(mp.mpf, 1, 1)


def logits(seed):
    """Dense, around 0, log-spaced, near multiples of log(2), both tails: where each error term has its largest share."""
    rng = np.random.default_rng(seed)
    n = POINTS // 8
    sign = rng.choice([-1.0, 1.0], n)
    return np.concatenate(
        [
            rng.normal(0, 3, n),
            rng.uniform(-1, 1, 2 * n),
            rng.uniform(-0.01, 0.01, n),
            sign * np.exp(rng.uniform(np.log(1e-20), np.log(700), n)),
            np.round(rng.uniform(-40, 40, n)) * np.log(2) + rng.normal(0, 0.01, n),
            rng.uniform(-708, -30, n // 2),
            rng.uniform(30, 1000, n // 2),
            rng.uniform(-0.46, -0.42, n) * sign,
        ]
    )


def widen(*arrays):
    """The arrays in the oracle's arithmetic."""
    return [a.astype(np.longdouble) if EXTENDED else MPMATH(a) for a in arrays]


def pieces(x):
    """softplus(x), softplus(-x), sigma(x), sigma(-x) in the oracle's arithmetic."""
    (x,) = widen(x)
    if EXTENDED:
        t, log = np.exp(-np.abs(x)), np.log1p
    else:
        t, log = np.frompyfunc(mp.exp, 1, 1)(-np.abs(x)), np.frompyfunc(mp.log1p, 1, 1)
    near, far = 1 / (1 + t), t / (1 + t)
    return np.maximum(x, 0) + log(t), np.maximum(-x, 0) + log(t), np.where(x > 0, near, far), np.where(x > 0, far, near)


def largest_error(got, wanted, terms=None):
    """In ULP of the wanted float64; with terms, only what exceeds four roundings of them."""
    spacing = np.spacing(np.abs(wanted).astype(np.float64))
    off = np.abs(widen(got)[0] - wanted)
    if terms is not None:
        off = off - 4 * 2.0**-53 * terms
    return float((off / spacing).max())


@pytest.fixture(autouse=True)
def precision():
    with mp.workprec(exact.PRECISION):
        yield


# Catches: any loss of accuracy in exp, log1p, the reciprocal or their combination.
@pytest.mark.parametrize("seed", range(4))
def test_float64_at_hard_labels(seed):
    x = logits(seed)
    softplus, softplus_minus, sigma, sigma_minus = pieces(x)
    for label, loss, gradient in ((0.0, softplus, sigma), (1.0, softplus_minus, -sigma_minus)):
        got = core.loss_and_grad(x, np.full(x.shape, label), reduction="none")
        assert largest_error(got[0], loss) <= 1.85
        assert largest_error(got[1], gradient) <= 1.05
        curvature = core.curvature(x, np.full(x.shape, label), reduction="none")
        assert largest_error(curvature, sigma * sigma_minus) <= 2.0


@pytest.mark.parametrize("seed", range(4))
def test_float64_at_soft_labels_and_weights(seed):
    x = logits(seed)
    rng = np.random.default_rng(seed + 100)
    y, w, p = (rng.uniform(0, high, x.shape) for high in (1, 10, 30))
    softplus, softplus_minus, sigma, sigma_minus = pieces(x)
    y_, w_, p_ = widen(y, w, p)
    first, second = w_ * (1 - y_) * softplus, w_ * p_ * y_ * softplus_minus
    slope, slope_minus = w_ * (1 - y_) * sigma, w_ * p_ * y_ * sigma_minus
    got = core.loss_and_grad(x, y, w, p, "none")
    assert largest_error(got[0], first + second) <= 3.75
    assert largest_error(got[1], slope - slope_minus, slope + slope_minus) <= 0.2
    curvature = core.curvature(x, y, w, p, "none")
    assert largest_error(curvature, w_ * (1 - y_ + p_ * y_) * sigma * sigma_minus) <= 3.95
    others = {name: np.empty_like(x) for name in ("d_targets", "d_weight", "d_pos_weight")}
    _abi.evaluate(
        *map(core._describe, (x, y, w, p)), 0.0, "none", **{name: core._describe(array) for name, array in others.items()}
    )
    assert largest_error(others["d_weight"], (1 - y_) * softplus + p_ * y_ * softplus_minus) <= 3.45
    assert largest_error(others["d_pos_weight"], w_ * y_ * softplus_minus) <= 3.1
    d_targets = w_ * (p_ * softplus_minus - softplus)
    assert largest_error(others["d_targets"], d_targets, w_ * (p_ * softplus_minus + softplus)) <= 0.1


# Catches: a number next to a tie that is settled as if it were not weighted, smoothed or divided. The bound is that of one
# rounding of a float64 that is itself rounded.
@pytest.mark.parametrize(
    "options, factor",
    [
        ({"reduction": "mean"}, 1 / 512),
        ({"weight": 2.0}, 2.0),
        ({"pos_weight": 2.0}, 2.0),
        ({"weight": 0.25, "reduction": "mean"}, 2.0**-11),
    ],
)
def test_float32_near_ties_with_a_factor(options, factor):
    x = (np.arange(-511, 512, 2) * 2.0**-23).astype(np.float32)
    y = np.ones(x.shape, np.float32)
    _, gradient = core.loss_and_grad(x, y, **{"reduction": "none", **options})
    for got, number in zip(gradient, x):
        value = exact.element(number, 1, 1, 1)[1] * factor
        assert compare.error_in_ulp(got, value, "float32") <= 0.5001, float(number).hex()


# The promise for float32 holds for soft labels too, but for a gradient near its root.
def test_float32_at_soft_labels():
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 4, 3000), rng.integers(-500, 500, 1000) * 2.0**-23]).astype(np.float32)
    y = np.concatenate([rng.uniform(size=3000), rng.integers(0, 9, 1000) / 8]).astype(np.float32)
    loss, gradient = core.loss_and_grad(x, y, reduction="none")
    for number, label, a, b in zip(x, y, loss, gradient):
        value, slope, _, terms, *_ = exact.element(number, label, 1, 1)
        assert compare.error_in_ulp(a, value, "float32") <= 0.5
        if terms < 4 * abs(slope):
            assert compare.error_in_ulp(b, slope, "float32") <= 0.5


def torch_bits(dtype):
    """All 65,536 numbers of a 16-bit torch dtype, and the largest finite one."""
    import torch

    return torch.arange(-32768, 32768, dtype=torch.int16).view(dtype)


# Catches: a double rounding through float32, a wrong subnormal or overflow.
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_logit_is_correctly_rounded(dtype):
    import torch

    import bce_bridge

    every = torch_bits(getattr(torch, dtype))
    finite = every[torch.isfinite(every)]
    for label in (0, 1):
        leaf = finite.clone().requires_grad_()
        target = torch.full_like(finite, label)
        loss = bce_bridge.binary_cross_entropy_with_logits(leaf, target, reduction="none")
        loss.sum().backward()
        for name, got in (("loss", loss.detach()), ("gradient", leaf.grad)):
            softplus, softplus_minus, sigma, sigma_minus = pieces(finite.double().numpy())
            wanted = {"loss": softplus_minus if label else softplus, "gradient": -sigma_minus if label else sigma}[name]
            numbers = got.double().numpy()
            bits, least = (11, -24) if dtype == "float16" else (8, -133)
            exponent = np.maximum(np.frexp(np.abs(wanted).astype(np.float64))[1] - bits, least)
            off = np.abs(widen(numbers)[0] - wanted) / np.exp2(exponent.astype(np.float64))
            # Half an ULP, and the oracle's own error; no tie is so close to a midpoint as that but an exact one.
            assert float(off.max()) <= 0.5 + 2.0**-40, (label, name)


@pytest.mark.mpfr
def test_sampled_exhaustive_check(tmp_path):
    """The program of `make exhaustive` on every 1021st magnitude: some 17 million results."""
    program = build(tmp_path / "exhaustive", VERIFY / "exhaustive.c", libraries=("mpfr", "gmp"))
    out = subprocess.run([program, "1021"], check=True, capture_output=True, text=True).stdout
    assert "misrounded: 0;" in out, out
