"""The cross-check's table, and its JSON."""

from rich import box
from rich.table import Table

from bce_bridge.conformance import compare

DTYPES = ("float32", "float64")


TITLE = "Against the exact values, and against R torch as recorded"
HEADINGS = (
    "implementation",
    "version",
    "cases",
    "loss error, ULP\nfloat32 | float64",
    "gradient error, ULP\nfloat32 | float64",
    "same as R torch\n(rounding, known)",
    "verdict",
)


def cells(row):
    """The row's cells under HEADINGS as text; two of one that is not installed."""
    if row.not_installed:
        return row.name, "not installed"
    errors = [" | ".join(_ulp(row.worst.get((kind, dtype, False))) for dtype in DTYPES) for kind in ("loss", "gradient")]
    return row.name, row.version, str(row.cases), *errors, _agreement(row.agreement), row.verdict


def table(rows):
    """A rich table with one line for each implementation."""
    result = Table(box=box.SIMPLE_HEAD, title=TITLE, title_justify="left")
    for heading in HEADINGS:
        number = heading.endswith(("cases", ")", "float64"))
        result.add_column(heading, no_wrap=heading in HEADINGS[:2], justify="right" if number else "left")
    for row in rows:
        result.add_row(*cells(row), style="red" if row.failures else "")
    return result


def notes(rows):
    """Lines to print under the table: what its columns mean, and how to get what is not installed."""
    yield "Errors are the largest, over numbers whose terms do not cancel by nature; where they do (a gradient near its root,"
    yield "targets outside [0, 1]), a number is judged by the roundings of its terms. Known deviations: docs/deviations.md."
    capabilities = {row.name: row.cpu_capability for row in rows if row.cpu_capability}
    recorded = capabilities.pop("R torch (recorded)", None)
    for capability in sorted(set(capabilities.values()) - {recorded}):
        yield f"Here libtorch takes its {capability} code path. R torch was recorded with {recorded}: some last bits differ."
    for row in rows:
        if row.not_installed:
            yield f"{row.name} is not installed: {row.not_installed}"


def ulp_text(error):
    """An error in ULP for reading: 0.50, 2e+07, inf."""
    return f"{error:.2f}" if error < 1000 else f"{error:.0e}"


def _ulp(worst):
    return "-" if worst is None else ulp_text(worst[0])


def _agreement(agreement):
    total = sum(agreement.values())
    if not total:
        return "-"
    known = sum(agreement[name] for name in compare.KNOWN_DEVIATIONS)
    return f"{agreement['same'] / total:.1%} ({agreement[compare.ROUNDING]}, {known})"


def failure_lines(rows):
    """One line of text for each failure: implementation, case, quantity, element, both values in hexadecimal."""
    for row in rows:
        for failure in row.failures:
            yield (
                f"FAILURE {row.name}: {failure['case']} {failure['quantity']}[{failure['element']}]"
                f" got {failure['got']} exact {failure['exact']}"
            )


def as_json(rows):
    """Everything that the table was made from, of JSON types alone."""
    return [
        {
            "implementation": row.name,
            "version": row.version,
            "libtorch_cpu_capability": row.cpu_capability,
            "not_installed": row.not_installed or None,
            "cases": row.cases,
            "verdict": row.verdict,
            "numbers_against_exact": dict(row.classes),
            "numbers_against_recorded_r_torch": dict(row.agreement),
            "largest_error": [
                {
                    "of": kind,
                    "dtype": dtype,
                    "terms_cancel": cancelling,
                    "ulp": ulp if ulp != float("inf") else "inf",
                    "case": case,
                    "element": element,
                }
                for (kind, dtype, cancelling), (ulp, case, element) in sorted(row.worst.items())
            ],
            "failures": [
                {key: ("inf" if value == float("inf") else value) for key, value in failure.items()} for failure in row.failures
            ],
        }
        for row in rows
    ]
