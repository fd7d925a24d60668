"""docs/accuracy.md: that the derivation's numbers are those of the functions it speaks of."""

import re
from pathlib import Path

import pytest
import torch
from mpmath import exp, log, mp, mpf

ROOT = Path(__file__).resolve().parents[2]
TEXT = " ".join((ROOT / "docs/accuracy.md").read_text().split())


def test_error_budget():
    """Catches a figure of the table that does not follow from the formulae at its witness, or a sum that is no bound."""
    steps = dict(re.findall(r"\| (v|rounding of log|log 2|rounding of the sum|both|together|found)\b[^|]*\| ([\d.]+) \|", TEXT))
    witness = re.search(r"y = 0 at x = (-0x1\.\w+p-\d)", TEXT)[1]
    constants = (ROOT / "c_src/bce_constants.h").read_text()
    assert witness in (ROOT / "c_src/bce_math.h").read_text()
    with mp.workprec(200):
        x = mpf(float.fromhex(witness))
        t = exp(x)
        v = (t - 1) / 2
        k = int(mp.nint(x / log(2)))
        rounding, ulp = mpf(2) ** -55, mpf(2) ** -54
        assert 2 ** mp.frexp(log(1 + t))[1] * mpf(2) ** -53 == ulp and -0.25 < log(1 + v) < -0.125
        of_v = ((exp(x - k * log(2)) * rounding + rounding) * mpf(2) ** k + rounding) / 2 / (1 + v) / ulp
        of_log_2 = float.fromhex(re.search(r"BCE_LN2_LOW (0x\S+)", constants)[1]) / ulp
        assert {"v": f"{float(of_v):.2f}", "log 2": f"{float(of_log_2):.2f}"} == {name: steps[name] for name in ("v", "log 2")}
        assert f"t = {float(t):.3f}, v = {float(v):.3f} and L = {float(log(1 + t)):.4f}" in TEXT
    parts = ("v", "rounding of log", "log 2", "rounding of the sum", "both")
    assert sum(float(steps[name]) for name in parts) == pytest.approx(float(steps["together"]), abs=0.05)
    assert float(steps["found"]) < float(steps["together"])


def test_mutants():
    """Catches a score that is not that of the last run of make mutants."""
    score = (ROOT / "docs/mutants.txt").read_text().split("\n")[1]
    assert score.partition(". Seed")[0] in TEXT


# Catches: a tail of libtorch's that begins elsewhere than the text says, in this version of torch.
@pytest.mark.parametrize("y, dtype, power", [(0, "float32", 21), (0, "float64", 48), (1, "float32", 24), (1, "float64", 53)])
def test_libtorch_tails(y, dtype, power):
    edge = (2 * y - 1) * power * float(log(2))
    assert re.search(rf"2\^-{power}, from (x = )?{edge:.2f} on", TEXT)
    for factor, is_zero in ((1.001, True), (0.999, False)):
        x = torch.tensor([edge * factor], dtype=getattr(torch, dtype), requires_grad=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.full_like(x, y).detach())
        loss.backward()
        assert ((loss if y == 0 else x.grad).item() == 0) == is_zero
