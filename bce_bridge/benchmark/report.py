"""The results for reading: tables for the terminal and for docs/performance.md, and the plot.

Tables are made once, as text, and rendered twice. Imports rich and matplotlib where they are needed.
"""

from typing import NamedTuple

from bce_bridge.benchmark.results import base, fastest, judge, ratio

UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
MARKERS = "<!-- begin: bce-bridge bench --from {source} --markdown {target} -->", "<!-- end -->"
WAYS = {"forward + backward": "b", "grad_and_value": "g", "forward": "f"}


class Table(NamedTuple):
    title: str
    headings: tuple  # the columns from the first "n" on are numbers
    rows: list  # of text


def size(text):
    """A number of elements: 1000, 16Ki, 1Mi. Raises ValueError."""
    digits = text.rstrip("KMGi")
    unit = text[len(digits) :]
    if not digits.isdecimal() or int(digits) == 0 or unit not in ("", *UNITS):
        raise ValueError(f"size must be a whole number above 0, perhaps with Ki, Mi or Gi, got {text!r}")
    return int(digits) * UNITS.get(unit, 1)


def size_text(n):
    """1000, 16 Ki, 1 Mi: the inverse of size, with a space."""
    for unit, value in reversed(UNITS.items()):
        if n % value == 0:
            return f"{n // value} {unit}"
    return str(n)


def _number(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _type(row):
    return row.dtype + ("" if row.given == "none" else f", {row.given}")


def _contenders(results, section):
    """Names of the section's contenders in the order of their rows, the base first."""
    names = dict.fromkeys(row.contender for row in results.rows if row.section == section)
    first = base(results, section)
    return [first, *(name for name in names if name != first)]


def _times(results, section, quantity):
    """One line for each type, number of threads and size: the base's time, and the others' as multiples of it; then the
    memory of each where it was measured."""
    names = _contenders(results, section)
    with_memory = dict.fromkeys(row.contender for row in results.rows if row.section == section and row.memory is not None)
    settings = fastest(results.rows)
    lines = []
    for contenders in settings.values():
        row = next(iter(contenders.values()))
        if (row.section, row.quantity) != (section, quantity):
            continue
        cells = [_number(contenders[names[0]].ns)]
        for name in names[1:]:
            other = contenders.get(name)
            if other is None:
                cells.append("-")
            else:
                way = f" {WAYS[other.way]}" if name == "torch.compile" else ""
                cells.append(_number(ratio(results, other, settings)) + way)
        cells += (_number(contenders[name].memory) for name in with_memory)
        lines.append(((_type(row), row.threads, row.n), (_type(row), str(row.threads), size_text(row.n), *cells)))
    by_type = sorted(results.rows, key=lambda row: (row.dtype != "float32", row.given != "none"))
    types = list(dict.fromkeys(map(_type, by_type)))
    lines.sort(key=lambda line: (types.index(line[0][0]), *line[0][1:]))
    memory = (f"{name} memory" for name in with_memory)
    headings = ("type", "threads", "n", f"{names[0]}, ns", *(f"{name} ×" for name in names[1:]), *memory)
    return Table(f"{quantity}, {section}" if section != "kernel" else quantity, headings, [text for _, text in lines])


def _goals(results):
    rows = []
    for goal, value, met in judge(results):
        judged = ("-", "not measured") if met is None else (_number(value), "met" if met else "missed")
        rows.append((goal.text, f"{goal.relation} {goal.bound:g}", *judged))
    title = "Goals: float32 loss + gradient, scalar pos_weight, AVX-512"
    return Table(title, ("ratio of medians", "goal", "measured", ""), rows)


def tables(results):
    """Every Table of the results: times by section and quantity, then the goals."""
    for section in dict.fromkeys(row.section for row in results.rows):
        for quantity in dict.fromkeys(row.quantity for row in results.rows if row.section == section):
            yield _times(results, section, quantity)
    yield _goals(results)


def notes(results):
    """Lines to print with the tables: where they were measured, and what the columns mean."""
    yield "; ".join(f"{name} {value}" for name, value in results.environment.items()) + "."
    yield "ns: median nanoseconds an element. ×: the contender's time over that of the column marked ns; above 1 it is slower."
    if any(row.memory is not None for row in results.rows):
        yield "memory: the most that a call holds at any moment, results included, as a multiple of the input's bytes."
    yield "torch.compile: the faster of compiled forward + backward (b) and compiled grad_and_value (g); f: the forward alone."


def rich_table(table):
    """The Table for a terminal."""
    from rich import box
    from rich.table import Table as RichTable

    result = RichTable(box=box.SIMPLE_HEAD, title=table.title, title_justify="left")
    for i, heading in enumerate(table.headings):
        result.add_column(heading, justify=_justify(table, i))
    for row in table.rows:
        style = {"met": "green", "missed": "red"}.get(row[-1], "")
        result.add_row(*row, style=style)
    return result


def _justify(table, column):
    return "right" if "n" in table.headings[: column + 1] else "left"


def markdown(results):
    """The tables and notes as Markdown."""
    blocks = ["\n".join(notes(results))]
    for table in tables(results):
        rules = ["---:" if _justify(table, i) == "right" else "---" for i in range(len(table.headings))]
        lines = [table.headings, rules, *table.rows]
        blocks.append(f"### {table.title[0].upper()}{table.title[1:]}")
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def update_markdown(results, source, target):
    """Put markdown(results) between the markers in the file target, which name the command with its source.

    Raises ValueError where there are no such markers.
    """
    with open(target, encoding="utf-8") as file:
        text = file.read()
    begin, end = MARKERS[0].format(source=source, target=target), MARKERS[1]
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{target} must have the lines {begin} and {end}, between which the tables go")
    with open(target, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n\n{markdown(results)}\n\n{end}{after}")


COLOURS = {
    "bce_bridge": "#0b6e4f",
    "bce_bridge, results given": "#63b58f",
    "torch eager": "#c1440e",
    "torch.compile": "#e8963c",
    "NumPy": "#4a6fa5",
    "memory limit": "#808080",
}


def plot(results, path):
    """Time for an element against the size, one panel for each number of threads, of the loss and gradient in the first type
    measured; the picture's format is its suffix's. Raises ValueError for an unknown one."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    rows = [row for row in results.rows if row.section == "kernel" and row.quantity == "loss + gradient"]
    kinds = list(dict.fromkeys(_type(row) for row in rows))
    kind = "float32, pos_weight" if "float32, pos_weight" in kinds else kinds[0]
    settings = fastest(row for row in rows if _type(row) == kind)
    threads = sorted({setting[-1] for setting in settings})
    figure = Figure(figsize=(4.8 * len(threads) + 1.2, 4.6), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    sizes = sorted({setting[-2] for setting in settings})
    for panel, count in zip(panels, threads):
        for name in _contenders(results, "kernel"):
            own = (contenders[name] for contenders in settings.values() if name in contenders)
            points = sorted((row.n, row.ns) for row in own if row.threads == count)
            style = {"memory limit": "--", "bce_bridge, results given": ":"}.get(name, "-")
            if points:
                panel.plot(*zip(*points), style, marker="o", markersize=4, label=name, color=COLOURS.get(name))
        panel.set(xscale="log", yscale="log", xlabel="elements", title=f"{count} thread{'s' if count > 1 else ''}")
        panel.xaxis.set_major_locator(FixedLocator(sizes))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda n, _: size_text(int(n))))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: f"{ns:g}"))
        panel.grid(alpha=0.3, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("nanoseconds an element")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    processor, isa = results.environment.get("processor", ""), results.environment["instruction set"]
    machine = results.environment.get("device", f"{processor}, {isa}")
    figure.suptitle(f"Loss and gradient, {kind}: {machine}", fontsize=11)
    figure.savefig(path, dpi=150, metadata={"Software": None} if str(path).endswith(".png") else None)
