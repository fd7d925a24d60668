"""Test cases and recorded answers, read from the files in data/ (whose README.md gives the format)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).with_name("data")
RECORDED = DATA / "r-torch-0.17.0.json"

# What an implementation answers to a case: the loss under each reduction, and the gradient in the logits of the sum and of
# the mean.
QUANTITIES = ("none", "mean", "sum", "grad_sum", "grad_mean")


@dataclass(frozen=True)
class Case:
    """One problem: arrays of one floating dtype; weight and pos_weight may be None."""

    id: str
    note: str
    dtype: str
    logits: np.ndarray
    targets: np.ndarray
    weight: np.ndarray | None
    pos_weight: np.ndarray | None

    @property
    def operands(self):
        return self.logits, self.targets, self.weight, self.pos_weight

    @property
    def family(self):
        return self.id.split("-")[0]


def _array(entry, dtype):
    if entry is None:
        return None
    return np.array([float.fromhex(number) for number in entry["data"]], dtype).reshape(entry["shape"])


def load_cases():
    """All cases of the repository, in the order of the file."""
    entries = json.loads((DATA / "cases.json").read_text())["cases"]
    return [
        Case(
            entry["id"],
            entry["note"],
            entry["dtype"],
            *(_array(entry[name], entry["dtype"]) for name in ("input", "target", "weight", "pos_weight")),
        )
        for entry in entries
    ]


def load_recorded(path=RECORDED):
    """(description, answers) of a recording: answers[case id][quantity] is a flat float64 array."""
    recording = json.loads(Path(path).read_text())
    answers = {
        entry["id"]: {
            quantity: np.array([float.fromhex(number) for number in np.atleast_1d(entry[quantity])]) for quantity in QUANTITIES
        }
        for entry in recording["answers"]
    }
    description = {key: value for key, value in recording.items() if key != "answers"}
    return description, answers
