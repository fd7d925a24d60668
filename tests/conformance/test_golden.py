"""The repository's cases and the recorded answers of R torch."""

import json

import numpy as np
import pytest
from mpmath import mp
from processes import run_python

from bce_bridge import core
from bce_bridge.conformance import cases, compare, exact, implementations, report
from bce_bridge.conformance.crosscheck import crosscheck

CASES = cases.load_cases()


def test_the_files_are_whole():
    description, answers = cases.load_recorded()
    assert description["torch"] == "0.17.0.9000"
    assert [case.id for case in CASES] == list(answers) and len(cases.load_recorded("pykeen")[1]) < len(CASES)


# The contract at hard labels, on every case that has them: 0.51 ULP for float32, 2 ULP for float64.
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.family in ("worked", "sweep", "random")], ids=lambda case: case.id
)
def test_hard_labels_are_within_the_contract(case):
    if not np.isin(case.targets, (0, 1)).all() or case.weight is not None or case.pos_weight is not None:
        # Soft labels and weights: the bound of the cross-check.
        answers, bound = exact.exact(case), implementations.CONTRACT.ulp[case.dtype]
    else:
        answers, bound = exact.exact(case), {"float32": 0.51, "float64": 2.0}[case.dtype]
    got = implementations.Core().answer(case)
    with mp.workprec(exact.PRECISION):
        for quantity in cases.QUANTITIES:
            for value, wanted, terms in zip(got[quantity], answers.values[quantity], answers.terms[quantity]):
                cancelling = 4 * mp.mpf(2) ** -53 * terms / compare.ulp(wanted, case.dtype) if bound > 2 else 0
                assert compare.error_in_ulp(value, wanted, case.dtype) <= bound + cancelling, quantity


@pytest.fixture(scope="module")
def rows():
    chosen = (implementations.Core, implementations.Torch, implementations.Aten, implementations.RecordedRTorch)
    return {row.name: row for row in crosscheck(implementations=chosen)}


def test_every_number_conforms_or_is_a_known_deviation(rows):
    assert all(not row.failures for row in rows.values())
    assert rows["C core (NumPy)"].verdict == rows["torch front end"].verdict == "conforms"
    assert rows["R torch (recorded)"].verdict == "known: cancellation, underflow, infinite-logit, small-sums"


# libtorch's own bits are R torch's where both take the same of libtorch's code paths, and differ by roundings alone elsewhere.
def test_aten_is_what_r_torch_computes(rows):
    aten, recorded = rows["libtorch (aten)"], rows["R torch (recorded)"]
    assert recorded.cpu_capability == "AVX512" and aten.agreement["failure"] == 0
    if aten.cpu_capability == recorded.cpu_capability:
        assert set(aten.agreement) == {"same"}
        assert not any("code path" in note for note in report.notes(rows.values()))


# Catches: other bits on another of libtorch's code paths that are called a failure, or shown without a word.
def test_other_code_paths_of_libtorch():
    program = (
        "from bce_bridge.conformance import crosscheck, implementations, report\n"
        "some = crosscheck.load_cases()[::8]\n"
        "crosscheck.load_cases = lambda: some\n"
        "rows = crosscheck.crosscheck(implementations=(implementations.Aten, implementations.RecordedRTorch))\n"
        "print(json.dumps([report.as_json(rows), *report.notes(rows)]))"
    )
    output = run_python(f"import json; {program}", ATEN_CPU_CAPABILITY="default")
    (aten, recorded), *notes = json.loads(output)
    assert (aten["libtorch_cpu_capability"], recorded["libtorch_cpu_capability"]) == ("DEFAULT", "AVX512")
    assert set(aten["numbers_against_recorded_r_torch"]) == {"same", compare.ROUNDING} and not aten["failures"]
    note = "Here libtorch takes its DEFAULT code path. R torch was recorded with AVX512: some last bits differ."
    assert note in notes


# Each makes (loss, gradient) of the right ones, the logits and the reduction.
MISTAKES = {
    "off by one bit": lambda loss, gradient, *_: (np.nextafter(loss, np.zeros((), loss.dtype)), gradient),
    "forgotten mean": lambda loss, gradient, _, reduction: (loss, gradient * (gradient.size if reduction == "mean" else 1)),
    "lost elements": lambda loss, gradient, *_: (loss, gradient.ravel()[:-1]),
    "NaN": lambda loss, gradient, x, reduction: (
        np.where(np.isinf(x), np.nan, loss) if reduction == "none" else loss,
        gradient,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_failures(mistake):
    class Wrong(implementations.Core):
        def loss_and_grad(self, logits, targets, weight, pos_weight, reduction):
            right = map(np.array, core.loss_and_grad(logits, targets, weight, pos_weight, reduction))
            return MISTAKES[mistake](*right, logits, reduction)

    (row,) = crosscheck(implementations=(Wrong,))
    assert row.verdict == "FAILURE" and row.failures
    assert {"case", "quantity", "element", "got", "exact"} <= set(row.failures[0])


# Catches: a classification that explains everything away.
@pytest.mark.parametrize(
    "got, deviations, label",
    [
        (1.0, (), compare.EXACT),
        (1.0 + 2**-51, (), compare.ROUNDING),
        (1.0 + 2**-48, (), compare.FAILURE),
        (1.0 + 2**-48, (compare.CANCELLATION,), compare.CANCELLATION),
        (1.1, (compare.CANCELLATION, compare.INFINITE_LOGIT), compare.FAILURE),
        (float("nan"), (), compare.FAILURE),
        (float("nan"), (compare.CANCELLATION,), compare.FAILURE),
        (float("nan"), (compare.INFINITE_LOGIT,), compare.INFINITE_LOGIT),
        (float("inf"), (compare.CANCELLATION, compare.INFINITE_LOGIT), compare.FAILURE),
    ],
)
def test_classification(got, deviations, label):
    bound = compare.Bound({"float64": 2}, 0, None, deviations)
    found, _ = compare.classify(got, mp.mpf(1), mp.mpf(1), mp.mpf(10), "float64", bound, infinite_logits=True)
    assert found == label


def test_ulp_at_the_edges():
    largest = np.finfo(np.float32).max
    assert compare.error_in_ulp(np.inf, mp.mpf(2) ** 128, "float32") == 0
    assert compare.error_in_ulp(largest, mp.mpf(float(largest)), "float32") == 0
    assert compare.error_in_ulp(np.inf, mp.mpf(float(largest)), "float32") == np.inf
    assert compare.error_in_ulp(0.0, mp.mpf(2) ** -1075, "float64") == 0.5
    assert compare.error_in_ulp(2.0**-149, mp.mpf(0), "float32") == 1
