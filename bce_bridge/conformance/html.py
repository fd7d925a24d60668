"""The cross-check as one HTML page that needs nothing beside itself: report.html filled in, its plots inlined.

Imports jinja2 and, of this package, plots and report.
"""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bce_bridge.conformance import compare, plots, report
from bce_bridge.conformance.sweep import DTYPES, KINDS, LABELS, LARGEST_LOGIT, POINTS

HERE = Path(__file__).parent
# Of one implementation: so many say what is wrong, and a page of all of them would be none to read.
FAILURES_SHOWN = 50


def deviations():
    """The known deviations that the cross-check counts: for each name what libtorch and bce_bridge answer, and why."""
    return json.loads((HERE / "deviations.json").read_text(encoding="utf-8"))


def page(rows, sweeps, about):
    """The page's text. rows are crosscheck's, sweeps are sweep's; about maps names to text for the table at its end: versions,
    the date, the command."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(code=_code, ulp=report.ulp_text)
    known = deviations()
    return environment.get_template("report.html").render(
        verdict=verdict(rows),
        rows=rows,
        numbers=sum(sum(row.classes.values()) for row in rows),
        headings=[heading.split("\n") for heading in _verdict_second(report.HEADINGS)],
        line_of=lambda row: _verdict_second(report.cells(row)),
        symbol=_symbol,
        figures={
            dtype: [_figure(sweep, f"plot-{i}") for i, sweep in enumerate(sweeps) if sweep.dtype == dtype] for dtype in DTYPES
        },
        points=POINTS,
        largest_logit=LARGEST_LOGIT,
        beyond=plots.BEYOND,
        deviations=[(name, known[name], [row for row in rows if row.classes[name]]) for name in compare.KNOWN_DEVIATIONS],
        failures_shown=FAILURES_SHOWN,
        about=about,
        light=Markup(plots.style(plots.LIGHT)),
        dark=Markup(plots.style(plots.DARK)),
    )


def verdict(rows):
    """(kind, sentence) for all rows together; the kind is pass, fail or none."""
    ran = [row for row in rows if not row.not_installed]
    if not ran:
        return "none", "Nothing was compared: no implementation is installed."
    failing = [row.name for row in ran if row.failures]
    if failing:
        count = sum(len(row.failures) for row in ran)
        return "fail", f"{_count(count, 'failure')} in {_count(len(failing), 'implementation')}: {', '.join(failing)}."
    conforming = sum(row.verdict == "conforms" for row in ran)
    known = len(ran) - conforming
    parts = [f"{conforming} of {_count(len(ran), 'implementation')} conform{'s' if conforming == 1 else ''}"]
    if known:
        parts.append(f"{known} differ{'s' if known == 1 else ''} from the exact values by known deviations alone")
    return "pass", f"No failures: {', '.join(parts)}."


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _verdict_second(cells):
    """The cells of the terminal's table in the order of the page's, of which a phone shows the first columns."""
    name, *others, verdict = cells
    return name, verdict, *others


def _symbol(row):
    """A sign that tells the verdicts apart without colour."""
    if row.not_installed:
        return "–"
    if row.failures:
        return "✗"
    return "✓" if row.verdict == "conforms" else "△"


def _figure(sweep, prefix):
    """What the template shows of a sweep: its name, its largest errors, and the plot, with ids after the prefix."""
    largest, infinite = {}, 0
    for kind in KINDS:
        errors = [error for label in LABELS for error in sweep.errors[kind, label][1]]
        finite = [error for error in errors if error != float("inf")]
        infinite += len(errors) - len(finite)
        largest[kind] = report.ulp_text(max(finite)) if finite else "none finite"
    caption = "largest error: " + ", ".join(f"{kind} {largest[kind]}" for kind in KINDS)
    if infinite:
        caption += f"; {infinite} infinite"
    return {"name": sweep.name, "caption": caption, "svg": Markup(plots.small(sweep, prefix))}


def _code(text):
    """The text with what stands between backticks as <code>."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))
