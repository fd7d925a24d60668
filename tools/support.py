"""Print the matrix's results as one Markdown table; with --write, put it between the markers in docs/support.md.

Reads what the cells of noxfile.py left in the folders given, or in build/matrix: a .json with the versions and, of a cell that
ran its tests, an .xml (JUnit's) with the counts. A folder is what one machine found. Cells that none has keep the line that the
page has of them, with its date, or are named. Wants nox.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/support.md"
COLUMNS = ("python", "R", "numpy", "cffi", "rpy2-rinterface", "torch", "triton")
BEGIN, END = "<!-- begin: tools/support.py --write -->", "<!-- end -->"


def row(file):
    """The cells of one line of the table."""
    found = json.loads(file.read_text())
    report = file.with_suffix(".xml")
    if not report.exists():
        counts = ("-", "-", "-", "tests did not start", "-")
    else:
        suites = list(ElementTree.parse(report).iter("testsuite"))
        total, failed, errors, skipped = (
            sum(int(suite.get(key) or 0) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
        )
        date = next((suite.get("timestamp") or "" for suite in suites), "")[:10]
        counts = (str(total - skipped - failed - errors), str(failed + errors), str(skipped), found["tests"], date)
    passed, failed, skipped, tests, date = counts
    versions = [found["versions"].get(column, "") for column in COLUMNS]
    return [found["cell"], *versions, passed, failed, skipped, date, f"`{tests}`" if tests else ""]


def identity(row):
    """The cell and, where no Python is in it, R's version."""
    return row[0], row[2] if not row[1] else ""


def table(folders):
    """The lines of the table, of all folders."""
    headings = ["cell", *COLUMNS, "passed", "failed", "skipped", "date", "tests"]
    rows = [row(file) for folder in folders for file in sorted(Path(folder).glob("*.json"))]
    new = {identity(row) for row in rows}
    lines = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    page = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("| ")]
    rows += [row for row in page[2:] if row[-1] != "not run" and identity(row) not in new]
    listed = subprocess.run([sys.executable, "-m", "nox", "--list", "--json"], cwd=ROOT, capture_output=True, check=True)
    cells = [session["session"] for session in json.loads(listed.stdout)]
    rows += [
        [cell, *[""] * len(COLUMNS), "-", "-", "-", "-", "not run"] for cell in cells if cell not in {row[0] for row in rows}
    ]
    rows.sort(key=lambda cells: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", cells[0])])
    return ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", default=[ROOT / "build/matrix"], help="what the cells left (build/matrix)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/support.md")
    options = parser.parse_args()
    lines = table(options.folders)
    print("\n".join(lines))
    if options.write:
        before, rest = PAGE.read_text().split(BEGIN)
        machine = f"{platform.system()} {platform.machine()}"
        PAGE.write_text("\n".join([before + BEGIN, "", f"On {machine}:", "", *lines, "", END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
