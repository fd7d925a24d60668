"""bce-bridge bench, its section R: that it is measured in R, and of the same loss."""

import json
import timeit

import numpy as np
import pytest
from processes import run_python

from bce_bridge import core
from bce_bridge.benchmark import problems, report, results
from bce_bridge.benchmark import r as bench_r

pytestmark = pytest.mark.r


@pytest.fixture(scope="module")
def measured():
    options = problems.Options(sizes=(4096,), types=("float64", "float64+pos_weight", "float32"), threads=(1, 2))
    settings = [*bench_r.settings(options, problems.QUANTITIES, problems.POS_WEIGHT)]
    return settings, *bench_r.run(settings, lambda n: 3)


# Catches a setting or a contender that is left out, and times of something else: of microseconds, of a sample, of no call.
def test_every_contender_is_measured_in_r(measured):
    settings, versions, rows = measured
    version = run_python("from bce_bridge import r; print(r.version('r-nmath').removeprefix('R '))").strip()
    assert versions.startswith(version) and ", bcebridge " in versions
    x = np.linspace(-9, 9, 4096)
    here = 1e9 / x.size * min(timeit.repeat(lambda: core.loss_and_grad(x, x), number=1, repeat=50))
    assert len(settings) == 8 and {setting[1] for setting in settings} == {"none", "pos_weight"}
    for quantity, pos_weight, _, n, threads in settings:
        same = [row for row in rows if row.setting == ("R", quantity, "float64", pos_weight, n, threads)]
        assert {row.contender for row in same} == {"bcebridge", "base R"}
        assert sum(row.contender == "base R" for row in same) == (3 if pos_weight == "none" else 2)
        for row in same:
            assert row.rounds == 3 and row.calls >= 1 and 0 < row.ns_least <= row.ns <= row.ns_largest
            assert here / 300 < row.ns < 300 * here, "a unit or a count is off by 1,000 or more"
    table = next(report.tables(results.Results({"cores": "2", "instruction set": "avx512"}, rows)))
    assert table.headings[3:5] == ("bcebridge, ns", "base R ×")


# Catches a formula that is fast for being another one. r.R itself refuses contenders that differ.
@pytest.mark.parametrize("gradient", ["TRUE", "FALSE"])
def test_base_r_computes_the_loss(gradient):
    source = bench_r.importlib.resources.files("bce_bridge.benchmark").joinpath("r.R").read_text("utf-8")
    x, y = np.array([1.0, -2, 30, -30]), np.array([1.0, 0, 0, 1])
    ask = "list(a = unlist(lapply(list(formula, distribution), function(f) f(c(1, -2, 30, -30), c(1, 0, 0, 1), 3, GRADIENT))))"
    code = f"from bce_bridge import r; print(r.run({(source + ask.replace('GRADIENT', gradient))!r})['a'].tolist())"
    got = json.loads(run_python(code))
    assert np.allclose(got, core.loss(x, y, pos_weight=3.0), rtol=1e-12)


# Catches a section that is measured though nobody asked for doubles, and a bench that fails where R is missing.
def test_without_doubles_or_r(monkeypatch):
    assert not [*bench_r.settings(problems.Options(types=("float32",)), problems.QUANTITIES, 3.0)]
    assert not [*bench_r.settings(problems.Options(types=("float64",), device="cuda"), problems.QUANTITIES, 3.0)]
    monkeypatch.setenv("R_HOME", "/nowhere")
    with pytest.raises(RuntimeError, match="^R_HOME must be the folder of an R, got '/nowhere': set it") as caught:
        bench_r.run([("loss", "none", 0.0, 64, 1)], lambda n: 1)
    assert "\n" not in str(caught.value)
