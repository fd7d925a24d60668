"""vectors/: that the file is what its schema, its README and the program that makes it say."""

import copy
import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from mpmath import mpf

from bce_bridge.conformance import cases, compare

ROOT = Path(__file__).resolve().parents[2]
VECTORS = cases.read_vectors()
VALIDATOR = jsonschema.Draft202012Validator(json.loads((ROOT / "vectors/schema.json").read_text()))


def make_vectors():
    specification = importlib.util.spec_from_file_location("make_vectors", ROOT / "tools/make_vectors.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_file_has_the_schema():
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(VECTORS)


# Catches: a schema that lets everything pass.
@pytest.mark.parametrize(
    "change",
    [
        lambda case: case.pop("weight"),
        lambda case: case.update(dtype="float80"),
        lambda case: case.update(extra=1),
        lambda case: case["input"]["data"].append("1.5"),
        lambda case: case["input"]["data"].append(1.5),
        lambda case: case["input"]["shape"].append(-1),
        lambda case: case["exact"].pop("grad_mean"),
        lambda case: case["exact"].update(mean=["0x1p+0"]),
        lambda case: case["answers"].update(pytorch={}),
        lambda case: case.update(parts=[0.5]),
        lambda case: case.update(id=case["id"] + "\n"),
    ],
)
def test_the_schema_refuses(change):
    case = copy.deepcopy(VECTORS["cases"][0])
    assert VALIDATOR.is_valid({**VECTORS, "cases": [case]})
    change(case)
    assert not VALIDATOR.is_valid({**VECTORS, "cases": [case]})


# Catches: a file without cases, a line's end in a name, and a "$id" that is no absolute URI, with which some readers cannot
# load the schema.
def test_the_schema_of_the_file():
    assert not VALIDATOR.is_valid({**VECTORS, "cases": []})
    assert not VALIDATOR.is_valid({**VECTORS, "flags": {"empty\n": "text"}})
    assert "$id" not in VALIDATOR.schema


NUMBER = VALIDATOR.evolve(schema={"$ref": "#/$defs/number", "$defs": VALIDATOR.schema["$defs"]})
OTHER_SPELLINGS = (
    "0x1.80p+0", "0x1.p+0", "0x1.00000000000001p+0", "0x0.8p+0", "0x0.0p-1022", "0x0.8p-1023", "0x2p+0", "0x0p+1", "0x0p-0",
    "0x1p-0", "0x1p+01", "0x1p0", "0X1P+0", "0x1.Ap+0", "+0x1p+0", " 0x1p+0", "0x1p+0\n", "nan\n", "-nan", "infinity", "",
)  # fmt: skip


# Catches: a second way to write a number, which a reader that compares texts would take for another number.
@pytest.mark.parametrize("text", OTHER_SPELLINGS)
def test_the_schema_refuses_other_spellings(text):
    assert not NUMBER.is_valid(text)


# Catches: a pattern that refuses what the file's writer makes of some float64, at the limits of normal numbers above all.
@pytest.mark.parametrize("number", [0.0, 5e-324, 2.0**-1023, 2.0**-1022, 1.0, 1.5, math.pi, sys.float_info.max, math.inf])
def test_the_schema_takes_every_number(number):
    hexadecimal = make_vectors().hexadecimal
    for signed in (number, -number, math.nan):
        assert NUMBER.is_valid(hexadecimal(signed)), hexadecimal(signed)


# Catches: an exact answer typed in or of an older formula, a case or a flag's text changed in one place, answers to a
# problem that has changed since.
def test_the_file_is_fresh():
    maker = make_vectors()
    assert maker.text_of(maker.made(VECTORS, {})) == cases.VECTORS.read_text(encoding="utf-8")
    for case in VECTORS["cases"]:
        assert case["answers"]["r-torch"] and case["answers"]["pytorch"], case["id"]
        assert case["answers"]["composer"] or case["dtype"] != "float32", case["id"]


# Catches what a schema cannot say: numbers lost, or of a dtype that cannot hold them, shapes that do not fit, references to
# nothing.
@pytest.mark.parametrize("entry", VECTORS["cases"], ids=lambda entry: entry["id"])
def test_a_case_is_whole(entry):
    case = cases.case_of(entry)
    assert entry["input"]["shape"] == entry["target"]["shape"]
    for name in ("input", "target", "weight", "pos_weight"):
        if entry[name] is not None:
            assert len(entry[name]["data"]) == math.prod(entry[name]["shape"])
            for number in map(float.fromhex, entry[name]["data"]):
                assert compare.rounded(mpf(number), case.dtype) == number or math.isnan(number)
    for operand in (case.weight, case.pos_weight):
        assert operand is None or np.broadcast_shapes(operand.shape, case.logits.shape) == case.logits.shape
    assert case.parts is None or sum(case.parts) == case.logits.shape[0]
    assert set(case.flags) <= set(VECTORS["flags"]) and set(entry["answers"]) == set(VECTORS["implementations"])
    size = case.logits.size
    lengths = {"none": size, "mean": 1, "sum": 1, "grad_sum": size, "grad_mean": size}
    for name, answer in {"exact": entry["exact"], **entry["answers"]}.items():
        if isinstance(answer, str):  # README: all call libtorch, so that this is R torch
            assert answer == "r-torch" and isinstance(entry["answers"][answer], dict)
        elif answer is not None:
            assert {quantity: len(numbers) for quantity, numbers in cases.numbers_of(answer).items()} == lengths, name
    assert [name for name, answer in entry["answers"].items() if isinstance(answer, dict)] == ["r-torch"]


def test_ids_are_unique_and_every_flag_has_cases_in_every_type():
    ids = [entry["id"] for entry in VECTORS["cases"]]
    assert len(set(ids)) == len(ids)
    flagged = {(flag, entry["dtype"]) for entry in VECTORS["cases"] for flag in entry["flags"]}
    # A double rounding to float64 would come from a type that few machines have.
    assert flagged == {(flag, dtype) for flag in VECTORS["flags"] for dtype in cases.DTYPES} - {("double-rounding", "float64")}


@pytest.mark.parametrize("page", ["vectors/README.md", "docs/conformance.md"])
def test_the_flags_are_documented(page):
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", (ROOT / page).read_text(), re.MULTILINE)
    assert dict(row for row in rows if row[0] in VECTORS["flags"]) == VECTORS["flags"]


# Catches: a double rounding, ties away from even, an overflow or a subnormal number missed. NumPy's conversions are the
# oracle.
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rounding_is_that_of_numpy(dtype):
    rng = np.random.default_rng(3)
    info = np.finfo(dtype)
    numbers = rng.uniform(-2, 2, size=300) * 2.0 ** rng.integers(info.minexp - 20, info.maxexp - 1, 300)
    grid = numbers.astype(dtype)
    ties = grid.astype(np.float64) + np.abs(np.spacing(grid)).astype(np.float64) / 2
    largest = float(info.max)
    above = [largest, largest * (1 + 2.0 ** -(info.nmant + 2)), np.inf, -np.inf]
    for number in map(float, [*numbers, *ties, 0.0, *above]):
        with np.errstate(over="ignore"):
            assert compare.rounded(mpf(number), dtype) == float(np.float64(number).astype(dtype)), number
