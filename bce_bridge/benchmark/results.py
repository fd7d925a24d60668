"""The results as data: rows of times, their ratios, the goals; written to CSV and JSON and read back.

Imports nothing outside the standard library.
"""

import csv
import json
from typing import NamedTuple

# Of each section, the contender that ratios are taken to; else the instruction set in use.
BASE = {"kernel": "bce_bridge", "training step": "bce_bridge", "situation": "bce_bridge", "R": "bcebridge"}
GIVEN = "bce_bridge, results given"
FORMAT = "bce-bench/1"


class Row(NamedTuple):
    """One contender in one setting. Times are of one call, in nanoseconds an element: the median, least and largest sample."""

    section: str
    quantity: str
    dtype: str
    given: str
    n: int
    threads: int
    contender: str
    way: str
    ns: float
    ns_least: float
    ns_largest: float
    rounds: int  # samples
    calls: int  # in each sample
    memory: float | None = None  # peak of a call, as a multiple of the logits' bytes; None where not measured

    @property
    def setting(self):
        return self[:6]


class Results(NamedTuple):
    environment: dict  # text to text: what they were measured on
    rows: list


class Goal(NamedTuple):
    """A bound on a ratio of medians or on a peak of memory, of loss + gradient."""

    text: str
    section: str
    n: int
    threads: int  # 0 for all
    contender: str
    over: str  # "contender": its time over the base's; "given": the time into given memory over its; "memory": its memory
    relation: str  # "at least" or "at most"
    bound: float
    dtype: str = "float32"
    given: str = "pos_weight"


_MI = 1 << 20
GOALS = (
    Goal("torch eager / ours, 1 Mi, one thread", "kernel", _MI, 1, "torch eager", "contender", "at least", 3.0),
    Goal("torch.compile / ours, 1 Mi, one thread", "kernel", _MI, 1, "torch.compile", "contender", "at least", 1.2),
    Goal("torch eager / ours, 16 Mi, one thread", "kernel", 16 * _MI, 1, "torch eager", "contender", "at least", 8.0),
    Goal("torch.compile / ours, 16 Mi, one thread", "kernel", 16 * _MI, 1, "torch.compile", "contender", "at least", 1.8),
    # The limit's result has its memory given, too.
    Goal(
        "ours, results given / memory limit, 64 Mi, all threads", "kernel", 64 * _MI, 0, "memory limit", "given", "at most", 2.5
    ),
    Goal("torch eager / ours, step, 1000, one thread", "training step", 1000, 1, "torch eager", "contender", "at least", 1.0),
    Goal("peak memory of a step / input, 1 Mi", "training step", _MI, 1, "bce_bridge", "memory", "at most", 1.0),
    Goal("AVX2 / AVX-512, 1 Mi, one thread", "instruction set", _MI, 1, "avx2", "contender", "at most", 2.2),
)


def fastest(rows):
    """Of each contender in each setting the row of its fastest way: a dict of settings to dicts of names to rows."""
    settings = {}
    for row in rows:
        contenders = settings.setdefault(row.setting, {})
        if row.contender not in contenders or row.ns < contenders[row.contender].ns:
            contenders[row.contender] = row
    return settings


def base(results, section):
    """The name of the contender that the section's ratios are taken to."""
    return BASE.get(section, results.environment["instruction set"])


def ratio(results, row, settings=None):
    """The row's median over that of its setting's base: how many times as long it takes."""
    return row.ns / (settings or fastest(results.rows))[row.setting][base(results, row.section)].ns


def judge(results):
    """(goal, value, met) for each goal of the sections that were measured; value and met are None where its setting was not,
    and for goals of time on another instruction set than AVX-512 or on a device."""
    settings = fastest(results.rows)
    sections = {row.section for row in results.rows}
    avx512 = results.environment["instruction set"] == "avx512" and "device" not in results.environment
    for goal in (goal for goal in GOALS if goal.section in sections):
        threads = goal.threads or int(results.environment["cores"])
        contenders = settings.get((goal.section, "loss + gradient", goal.dtype, goal.given, goal.n, threads), {})
        if goal.contender not in contenders or not (avx512 or goal.over == "memory"):
            yield goal, None, None
            continue
        row = contenders[goal.contender]
        if goal.over == "given":
            value = contenders[GIVEN].ns / row.ns
        else:
            value = row.memory if goal.over == "memory" else ratio(results, row, settings)
        yield goal, value, value >= goal.bound if goal.relation == "at least" else value <= goal.bound


def _records(results):
    settings = fastest(results.rows)
    return [{**row._asdict(), "ratio": round(ratio(results, row, settings), 4)} for row in results.rows]


def as_json(results):
    """Everything that was measured and what follows from it, of JSON types alone."""
    goals = [{**goal._asdict(), "value": value, "met": met} for goal, value, met in judge(results)]
    return {"format": FORMAT, "environment": results.environment, "rows": _records(results), "goals": goals}


def write_csv(results, path):
    """The environment as lines of `# name: value`, then the rows with their ratios."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in results.environment.items())
        writer = csv.DictWriter(file, [*Row._fields, "ratio"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_records(results))


def read(path):
    """The Results in a file that write_csv or --json wrote, by its suffix. Raises ValueError for any other file."""
    with open(path, encoding="utf-8", newline="") as file:
        if str(path).endswith(".json"):
            content = json.load(file)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(f"{path} must be what bce-bridge bench --json wrote, of format {FORMAT}")
            environment, records = content["environment"], content["rows"]
        else:
            lines = file.read().splitlines()
            environment = dict(line[2:].partition(": ")[::2] for line in lines if line.startswith("# "))
            records = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    try:
        kinds = {**Row.__annotations__, "memory": lambda value: None if value in ("", None) else float(value)}
        records = [{**Row._field_defaults, **record} for record in records]
        rows = [Row(*(kinds[name](record[name]) for name in Row._fields)) for record in records]
        missing = {"cores", "instruction set"} - set(environment)
    except KeyError as error:
        raise ValueError(f"{path} must be what bce-bridge bench --csv wrote, got no column {error}") from None
    if missing or not rows:
        raise ValueError(f"{path} must be what bce-bridge bench --csv wrote, got no rows, or no environment before them")
    return Results(environment, rows)
