"""Run every implementation over every case, and judge each number."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from mpmath import mpf

from bce_bridge.conformance import compare
from bce_bridge.conformance.cases import QUANTITIES, load_cases, load_recorded
from bce_bridge.conformance.exact import exact
from bce_bridge.conformance.implementations import IMPLEMENTATIONS, NotInstalled


@dataclass
class Row:
    """What the cross-check found of one implementation."""

    name: str
    version: str = ""
    cpu_capability: str | None = None  # of libtorch
    not_installed: str = ""  # how to get it
    cases: int = 0
    classes: Counter = field(default_factory=Counter)  # every number against the exact one
    agreement: Counter = field(default_factory=Counter)  # every number against recorded R torch
    worst: dict = field(default_factory=dict)  # (loss or gradient, dtype, cancelling) -> (ULP, case id, element)
    failures: list = field(default_factory=list)

    def fail(self, case, quantity, element, got, exact, ulp):
        """Note a failure: got and exact are texts, element is None for a wrong number of them."""
        self.failures.append(
            {"case": case.id, "quantity": quantity, "element": element, "got": got, "exact": exact, "ulp": ulp}
        )

    @property
    def verdict(self):
        if self.not_installed:
            return "not installed"
        if self.failures:
            return "FAILURE"
        known = [name for name in compare.KNOWN_DEVIATIONS if self.classes[name]]
        return "known: " + ", ".join(known) if known else "conforms"


def crosscheck(progress=lambda text, done, total: None, implementations=IMPLEMENTATIONS, device="cpu"):
    """A Row for each implementation, its torch tensors on the device. progress is called with a description and how much of
    it is done."""
    cases = load_cases()
    answers = []
    for i, case in enumerate(cases):
        progress("exact answers", i, len(cases))
        answers.append(exact(case))
    recorded = load_recorded()[1]
    judged_recorded = {}
    rows = []
    # R torch as recorded comes first here: the others are compared with it.
    for kind in sorted(implementations, key=lambda kind: kind.name != "R torch (recorded)"):
        implementation = kind(device)
        row = Row(implementation.name)
        rows.append(row)
        try:
            row.version = implementation.open()
            row.cpu_capability = implementation.cpu_capability
        except NotInstalled as hint:
            row.not_installed = str(hint)
            continue
        for i, (case, answer) in enumerate(zip(cases, answers)):
            progress(implementation.name, i, len(cases))
            if implementation.can_answer(case):
                _judge_case(row, implementation, case, answer, recorded[case.id], judged_recorded)
    order = [kind.name for kind in implementations]
    return sorted(rows, key=lambda row: order.index(row.name))


def _judge_case(row, implementation, case, answer, recorded, judged_recorded):
    row.cases += 1
    got = implementation.answer(case)
    for quantity in QUANTITIES:
        if quantity.removeprefix("grad_") not in implementation.reductions:
            continue
        count, wanted = len(got[quantity]), len(answer.values[quantity])
        if count != wanted:
            row.fail(case, quantity, None, f"{count} numbers", f"{wanted} numbers", float("inf"))
            continue
        for element, value in enumerate(got[quantity]):
            _judge_number(row, implementation, case, answer, (quantity, element), value, recorded, judged_recorded)


def _judge_number(row, implementation, case, answer, place, value, recorded, judged_recorded):
    quantity, element = place
    dtype = implementation.result_dtype(case)
    exact_value, terms = answer.values[quantity][element], answer.terms[quantity][element]
    label, error = compare.classify(
        value,
        exact_value,
        terms,
        answer.libtorch_terms[quantity][element],
        dtype,
        implementation.bound,
        bool(np.isinf(case.logits).any()),
        case.logits.size if quantity in ("mean", "sum") else 0,
    )
    row.classes[label] += 1
    worst_of = "gradient" if quantity.startswith("grad") else "loss", dtype, compare.cancels(exact_value, terms)
    if error > row.worst.get(worst_of, (-1.0,))[0]:
        row.worst[worst_of] = error, case.id, element
    if implementation.name == "R torch (recorded)":
        judged_recorded[(case.id, *place)] = label
    narrowed = compare.rounded(mpf(float(value)), case.dtype) if implementation.float64_only else value
    row.agreement[_agreement(narrowed, recorded[quantity][element], label, judged_recorded.get((case.id, *place)))] += 1
    if label == compare.FAILURE:
        row.fail(case, quantity, element, float(value).hex(), float(exact_value).hex(), error)


def _agreement(value, recorded, label, recorded_label):
    """How an answer relates to the recorded one: the same, or the worse of what each is to the exact value."""
    if value == recorded or (np.isnan(value) and np.isnan(recorded)):
        return "same"
    ranks = [compare.EXACT, compare.ROUNDING, *compare.KNOWN_DEVIATIONS, compare.FAILURE]
    worse = max(label, recorded_label or compare.EXACT, key=ranks.index)
    return compare.ROUNDING if worse == compare.EXACT else worse
