"""docs/compatibility.md: that its rows name tests that exist, and leave out no argument."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import bce_bridge
from bce_bridge import composer, lucid, pykeen

ROOT = Path(__file__).resolve().parents[2]


def tables():
    """Each section's rows, of four cells, by its name; its two lines of headings come first."""
    sections = re.split(r"^## (.*)$", (ROOT / "docs/compatibility.md").read_text(), flags=re.MULTILINE)[1:]
    return {
        name: [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")]
        for name, text in zip(sections[::2], sections[1::2])
    }


TABLES = tables()
ROWS = [(system, *row) for system, rows in TABLES.items() for row in rows[2:]]


def names_in(path):
    """The names of a file's tests: pytest's functions, or testthat's descriptions."""
    text = (ROOT / path).read_text()
    if path.endswith(".py"):
        functions = (node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
        return {name for name in functions if name.startswith("test_")}
    found = re.findall(r"""test_that\(("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", text)
    return {re.sub(r"\\(.)", r"\1", description[1:-1]) for description in found}


# Catches: a row whose test is gone or has another name.
@pytest.mark.parametrize("system, what, there, here, test", ROWS, ids=lambda cell: cell[:40])
def test_row_names_a_test(system, what, there, here, test):
    path, separator, name = test.partition("::" if "::" in test else ": ")
    assert separator and name in names_in(path), test


SIGNATURES = {
    "PyTorch": [bce_bridge.BCEWithLogitsLoss.__init__, bce_bridge.binary_cross_entropy_with_logits],
    "PyKEEN": [
        pykeen.BCEWithLogitsLoss.__init__,
        pykeen.BCEWithLogitsLoss.forward,
        pykeen.BCEWithLogitsLoss.process_slcwa_scores,
    ],
    "Composer": [composer.binary_cross_entropy_with_logits],
    "Lucid": [lucid.BCEWithLogitsLoss.__init__, lucid.binary_cross_entropy_with_logits],
}


# Catches: an argument that no row is about. The scores of PyKEEN's training loops are those of every row.
@pytest.mark.parametrize("system", SIGNATURES)
def test_every_argument_has_a_row(system):
    text = " ".join(what + there for name, what, there, _, _ in ROWS if name == system)
    names = {name for function in SIGNATURES[system] for name in inspect.signature(function).parameters}
    for name in names - {"self", "positive_scores", "negative_scores"}:
        assert f"`{name}" in text, name


def test_every_argument_of_r_has_a_row():
    source = (ROOT / "r_compat/R/nn_bce_with_logits_loss.R").read_text()
    arguments = re.search(r"^nn_bce_with_logits_loss <- function\((.*?)\) \{", source, re.MULTILINE)[1]
    text = " ".join(what + there for name, what, there, _, _ in ROWS if name == "R torch")
    for name in ["input", "target", *re.findall(r"(\w+) =", arguments)]:
        assert f"`{name}`" in text, name
