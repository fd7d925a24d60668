"""What keeps the repository's parts in step, and the package light."""

import re
import runpy
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from processes import run_python

import bce_bridge

ROOT = Path(__file__).resolve().parents[2]


def versions(root):
    """What each of the places that name the version says."""
    patterns = {
        "c_src/bce.h": r'^#define BCE_VERSION "(.+)"$',
        "r_compat/DESCRIPTION": r"^Version: (.+)$",
        "CITATION.cff": r"^version: (.+)$",
    }
    return [re.findall(pattern, (root / file).read_text(), re.MULTILINE) for file, pattern in patterns.items()]


def test_one_version():
    """Catches a version set in one place alone, a compiled core or an installation older than the tree, and a version that
    the lists of changes do not begin with."""
    version = bce_bridge.__version__
    assert metadata.version("bce-bridge") == version
    assert versions(ROOT) == [[version]] * 3
    assert re.search(r"^## (\d[\d.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
    assert re.match(r"# bcebridge (\S+)\n", (ROOT / "r_compat/NEWS.md").read_text())[1] == version


def test_make_version_sets_all(tmp_path):
    """Catches a line that make version no longer finds."""
    for folder in ("c_src", "r_compat"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file in ("Makefile", "CITATION.cff"):
        shutil.copy(ROOT / file, tmp_path)
    before = set(tmp_path.rglob("*"))
    subprocess.run(["make", "--silent", "-C", tmp_path, "version", "VERSION=12.3.4"], check=True)
    assert versions(tmp_path) == [["12.3.4"]] * 3
    assert set(tmp_path.rglob("*")) == before
    refused = subprocess.run(["make", "-C", tmp_path, "version", "VERSION=1.x"], capture_output=True, text=True)
    assert refused.returncode != 0 and "VERSION must be three numbers such as 1.2.3, got '1.x'" in refused.stderr


def test_generated_polynomials_are_fresh():
    generated = runpy.run_path(ROOT / "c_src/tools/polynomials.py")["generated"]()
    assert generated == {path: (ROOT / path).read_text() for path in generated}


def test_equivalent_mutants_are_mutants_of_the_core():
    """Catches an entry whose line has changed since it was reviewed, and one mutant that is listed twice."""
    mutants = runpy.run_path(str(ROOT / "tools/mutants.py"))
    lines = (ROOT / "tools/equivalent_mutants.txt").read_text().split("\n")
    assert len(mutants["equivalents"]()) == sum(line.startswith("    ") for line in lines) > 0
    assert not mutants["equivalents"]() - mutants["names"](mutants["all_mutants"]())


def test_every_help_topic_is_on_the_r_package_s_site():
    """pkgdown refuses to build a site whose index lacks a topic."""
    listed = re.findall(r"^  - (\S+)$", (ROOT / "r_compat/_pkgdown.yml").read_text(), re.MULTILINE)
    articles = [path.stem for path in (ROOT / "r_compat/vignettes").glob("*.Rmd")]
    assert sorted(listed) == sorted(articles + [path.stem for path in (ROOT / "r_compat/man").glob("*.Rd")])


def test_readme_names_no_version_that_was_not_run():
    """Catches a claim of support which no cell of the matrix stands for."""
    text = (ROOT / "README.md").read_text("utf-8").partition("## Install")[2].partition("## Use")[0]
    rows = re.findall(r"^\| [a-z].* \|$", (ROOT / "docs/support.md").read_text("utf-8"), re.MULTILINE)
    heading, *cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    for column, pattern in (
        ("python", r"[Pp]ython[ =]*(?:python)?(3\.\d+)"),
        ("R", r"\bR (\d\.\d+)"),
        ("torch", r"torch (\d\.\d+)"),
    ):
        green = [row for row in cells if row[heading.index("passed")].isdigit() and row[heading.index("failed")] == "0"]
        run = {".".join(row[heading.index(column)].split(".")[:2]) for row in green}
        assert set(re.findall(pattern, text)) <= run, column


@pytest.mark.triton
def test_triton_is_the_one_that_torch_asks_for():
    """Catches, beside a CUDA build of torch, a line of the list that names another Triton than torch brought; beside a CPU
    build, tests that ran with a Triton of no user's."""
    listed = runpy.run_path(str(ROOT / "tools/matching_triton.py"))["TRITON"]
    assert metadata.version("triton") == listed[".".join(metadata.version("torch").split(".")[:2])]


def test_importing_is_light():
    """Catches an import of torch, rpy2 or mpmath, each of which takes a second, before it is needed."""
    run_python(
        "import sys, bce_bridge, bce_bridge.core, bce_bridge.r\n"
        "assert not {'torch', 'rpy2', 'mpmath'} & set(sys.modules), sys.modules.keys()"
    )


def test_every_public_name_can_be_had():
    for name in bce_bridge.__all__:
        assert getattr(bce_bridge, name) is not None
