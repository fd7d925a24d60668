"""Plots of a Sweep as SVG, whose colours are CSS variables, so that they follow the light or dark page that they stand in.

Imports matplotlib and, of this package, implementations and sweep.
"""

import io
import itertools
import re

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from bce_bridge.conformance.implementations import Aten, Core
from bce_bridge.conformance.sweep import KINDS, LABELS, LARGEST_LOGIT

# More than the roundings of any formula in use amount to: dots above have a colour of their own.
BEYOND = 4
# Whose plots stand side by side in docs/accuracy.md: all others look like one of them.
CONTRASTED = (Core.name, Aten.name)
# matplotlib draws in the colours on the left; the text that it writes names the variables instead.
VARIABLES = {"#010101": "--ink", "#020202": "--muted", "#030303": "--rule", "#040404": "--within", "#050505": "--beyond"}
INK, MUTED, RULE, WITHIN, BEYOND_COLOUR = VARIABLES
# Against the paper the text has a contrast of at least 4.5, the dots of 3.
LIGHT = {"paper": "#ffffff", "ink": "#1b1f24", "muted": "#57606a", "rule": "#d5d9de", "within": "#0b6e4f", "beyond": "#b5400d"}
DARK = {"paper": "#14171a", "ink": "#e8eaed", "muted": "#a3abb5", "rule": "#3a4047", "within": "#5cc79b", "beyond": "#f0935b"}
# An error of 0 to 1 ULP is drawn in proportion, in a third of the height; beyond it its logarithm; an infinite one above all.
TICKS = {
    "float32": (0, 0.5, 1, 1e2, 1e4, 1e6, 1e8),
    "float64": (0, 0.5, 1, 1e4, 1e8, 1e12, 1e16),
}
SETTINGS = {
    "font.size": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bce_bridge",
    "path.simplify": False,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.5,
}


def style(colours):
    """The colours as CSS declarations."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def _dots(panel, x, y, colour):
    """Dots as one path of closed points, drawn by its round caps: a fifth of the text of as many markers."""
    if len(x):
        codes = np.tile([Path.MOVETO, Path.CLOSEPOLY], len(x))
        path = Path(np.repeat(np.stack([x, y], axis=1), 2, axis=0), codes)
        panel.add_patch(PathPatch(path, fill=False, edgecolor=colour, linewidth=2, capstyle="round", joinstyle="round"))


def _panel(panel, sweep, kind, label):
    """The errors of one quantity at one label."""
    x, errors = sweep.errors[kind, label]
    ticks = TICKS[sweep.dtype]
    infinity, end = ticks[-1] ** 1.2, 4 * LARGEST_LOGIT[sweep.dtype]
    panel.set_xscale("symlog", linthresh=1, linscale=0.9)
    panel.set_yscale("symlog", linthresh=1, linscale=np.log10(infinity) / 2)
    panel.set(xlim=(-1.4 * end, 1.4 * end), ylim=(-0.08, infinity**1.08))
    panel.set_xticks([-end, -10, 0, 10, end], ["−∞", "−10", "0", "10", "∞"])
    panel.set_xticks([-100, -1, 1, 100], minor=True)
    panel.set_yticks([*ticks, infinity], [*map(_tick, ticks), "∞"])
    panel.set_yticks([], minor=True)
    panel.tick_params(width=0.6, length=2.5)
    panel.tick_params(which="minor", width=0.5, length=1.5)
    for height, line in ((0.5, "-"), (1, ":")):
        panel.axhline(height, color=MUTED, linewidth=0.7, linestyle=line)
    for height in ticks[3:]:
        panel.axhline(height, color=RULE, linewidth=0.5)
    panel.spines[["top", "right"]].set_visible(False)
    x = np.clip(x, -end, end)
    finite = np.isfinite(errors)
    errors = np.where(finite, np.minimum(errors, ticks[-1] ** 1.1), errors)  # any answer at all has its dot
    for chosen, colour in ((errors <= BEYOND, WITHIN), (finite & (errors > BEYOND), BEYOND_COLOUR)):
        _dots(panel, x[chosen], errors[chosen], colour)
    panel.plot(x[~finite], np.full(np.sum(~finite), infinity), "x", color=BEYOND_COLOUR, markersize=5, markeredgewidth=1.2)


def _tick(value):
    if value <= 1:
        return f"{value:g}"
    return "10" + f"{np.log10(value):.0f}".translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _svg(figure, prefix):
    """The figure's SVG element, with each id after the prefix and with variables for colours."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    text = re.sub(r"M (\S+ \S+) \nL \1 \nz", r"M\1h0", text)
    return re.sub("|".join(VARIABLES), lambda found: f"var({VARIABLES[found[0]]})", text)


def small(sweep, prefix):
    """The SVG element of one sweep, to stand in a page: loss above gradient, y = 0 beside y = 1. The prefix keeps its ids apart
    from those of others."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(3.9, 3.2), layout="constrained")
        panels = figure.subplots(len(KINDS), len(LABELS), sharex=True, sharey=True)
        for row, kind in zip(panels, KINDS):
            row[0].set_ylabel(f"{kind}, ULP")
            for panel, label in zip(row, LABELS):
                _panel(panel, sweep, kind, label)
        for panel, label in zip(panels[0], LABELS):
            panel.set_title(f"y = {label}")
        for panel in panels[-1]:
            panel.set_xlabel("logit")
        return _svg(figure, prefix)


def check_suffix(path):
    """Raises ValueError for a path, if there is one, that write() would not draw to."""
    if path is not None and not str(path).endswith(".svg"):
        raise ValueError(f"plot must be an .svg file, got {str(path)!r}")


def write(sweeps, path):
    """Draw the C core's and libtorch's sweeps to the file path, an SVG that stands alone: one row of panels for each."""
    sweeps = sorted((sweep for sweep in sweeps if sweep.name in CONTRASTED), key=lambda sweep: sweep.dtype)
    columns = list(itertools.product(KINDS, LABELS))
    with rc_context(SETTINGS):
        figure = Figure(figsize=(10, 2.3 * len(sweeps)), layout="constrained")
        rows = figure.subplots(len(sweeps), len(columns), sharex="row", sharey="row", squeeze=False)
        for row, sweep in zip(rows, sweeps):
            row[0].set_ylabel(f"{sweep.name}\n{sweep.dtype}, error in ULP")
            for panel, (kind, label) in zip(row, columns):
                _panel(panel, sweep, kind, label)
        for panel, (kind, label) in zip(rows[0], columns):
            panel.set_title(f"{kind}, y = {label}")
        for panel in rows[-1]:
            panel.set_xlabel("logit")
        text = _svg(figure, "accuracy")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(">", f">\n{_STANDALONE}", 1))


_STANDALONE = f"""<style>
svg {{ {style(LIGHT)} font-family: sans-serif }}
@media (prefers-color-scheme: dark) {{ svg {{ {style(DARK)} }} }}
</style>
<rect width="100%" height="100%" style="fill: var(--paper)"/>
"""
