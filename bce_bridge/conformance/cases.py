"""Test cases, and recorded answers to them: the files of vectors/, whose README.md gives the format. Imports NumPy alone."""

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

VECTORS = files("bce_bridge.vectors") / "bce-with-logits.json"
DTYPES = ("float16", "bfloat16", "float32", "float64")

# What an implementation answers to a case: the loss under each reduction, and the gradient in the logits of the sum and
# of the mean.
QUANTITIES = ("none", "mean", "sum", "grad_sum", "grad_mean")


@dataclass(frozen=True)
class Case:
    """One problem: arrays whose numbers dtype holds; weight and pos_weight may be None.

    The arrays are of that dtype, and float32 for bfloat16, which NumPy lacks. flags names the mistakes that the case catches;
    parts, where not None, the numbers of rows (along the first dimension) in which the problem may arrive.
    """

    id: str
    note: str
    dtype: str
    logits: np.ndarray
    targets: np.ndarray
    weight: np.ndarray | None
    pos_weight: np.ndarray | None
    flags: tuple = ()
    parts: tuple | None = None

    @property
    def operands(self):
        return self.logits, self.targets, self.weight, self.pos_weight

    @property
    def family(self):
        return self.id.rsplit("-", 2)[0]


def _array(entry, dtype):
    if entry is None:
        return None
    dtype = "float32" if dtype == "bfloat16" else dtype
    return np.array([float.fromhex(number) for number in entry["data"]], dtype).reshape(entry["shape"])


def case_of(entry):
    """The Case of an entry of the file's "cases"."""
    dtype = entry["dtype"]
    arrays = (_array(entry[name], dtype) for name in ("input", "target", "weight", "pos_weight"))
    parts = tuple(entry["parts"]) if "parts" in entry else None
    return Case(entry["id"], entry["note"], dtype, *arrays, tuple(entry["flags"]), parts)


@functools.cache
def read_vectors():
    """The file as json reads it; not to be changed."""
    return json.loads(VECTORS.read_text(encoding="utf-8"))


def load_cases(dtypes=DTYPES):
    """The cases of these dtypes, in the order of the file."""
    return [case_of(entry) for entry in read_vectors()["cases"] if entry["dtype"] in dtypes]


def numbers_of(answer):
    """The quantities of one answer, each as a flat float64 array."""
    return {
        quantity: np.array([float.fromhex(number) for number in np.atleast_1d(answer[quantity])])
        for quantity in QUANTITIES
        if quantity in answer
    }


def answer_of(vectors, entry, name):
    """What an implementation answered to an entry of the file's "cases", as encoded there; None where it did not.

    Where the file names another that gave the same numbers, they are that one's.
    """
    answer = entry.get("answers", {}).get(name)
    if not isinstance(answer, str):
        return answer
    return {quantity: entry["answers"][answer][quantity] for quantity in vectors["implementations"][name]["quantities"]}


def load_recorded(name="r-torch"):
    """(description, answers) of an implementation in the file: answers[case id][quantity] is a flat float64 array.

    A case that the implementation's arguments cannot express is not among the answers.
    """
    vectors = read_vectors()
    answers = {}
    for entry in vectors["cases"]:
        answer = answer_of(vectors, entry, name)
        if answer is not None:
            answers[entry["id"]] = numbers_of(answer)
    return vectors["implementations"][name], answers


def read_recording(path):
    """The same of a file that r_compat/inst/conformance/record.R wrote."""
    recording = json.loads(Path(path).read_text(encoding="utf-8"))
    answers = {entry["id"]: numbers_of(entry) for entry in recording.pop("answers")}
    return recording, answers
