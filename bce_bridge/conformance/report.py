"""The cross-check's table, and its JSON."""

from rich import box
from rich.table import Table

from bce_bridge.conformance import compare

DTYPES = ("float32", "float64")


def table(rows):
    """A rich table with one line for each implementation."""
    result = Table(box=box.SIMPLE_HEAD, title="Against the exact values, and against R torch as recorded", title_justify="left")
    result.add_column("implementation", no_wrap=True)
    result.add_column("version", no_wrap=True)
    result.add_column("cases", justify="right")
    for kind in ("loss", "gradient"):
        result.add_column(f"{kind} error, ULP\nfloat32 | float64", justify="right")
    result.add_column("same as R torch\n(rounding, known)", justify="right")
    result.add_column("verdict")
    for row in rows:
        if row.not_installed:
            result.add_row(row.name, "not installed")
            continue
        errors = [" | ".join(_ulp(row.worst.get((kind, dtype, False))) for dtype in DTYPES) for kind in ("loss", "gradient")]
        style = "red" if row.failures else ""
        result.add_row(row.name, row.version, str(row.cases), *errors, _agreement(row.agreement), row.verdict, style=style)
    return result


def notes(rows):
    """Lines to print under the table: what its columns mean, and how to get what is not installed."""
    yield "Errors are the largest, over numbers whose terms do not cancel by nature; where they do (a gradient near its root,"
    yield "targets outside [0, 1]), a number is judged by the roundings of its terms. Known deviations: docs/deviations.md."
    for row in rows:
        if row.not_installed:
            yield f"{row.name} is not installed: {row.not_installed}"


def _ulp(worst):
    if worst is None:
        return "-"
    return f"{worst[0]:.2f}" if worst[0] < 1000 else f"{worst[0]:.0e}"


def _agreement(agreement):
    total = sum(agreement.values())
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
