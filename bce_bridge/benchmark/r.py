"""The times in R, taken there: by r.R, in a child process.

Imports nothing of R or torch but in that child.
"""

import importlib.resources
import itertools
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from bce_bridge.benchmark.results import Row

SIZES = (1000, 1 << 14, 1 << 20)
SAMPLE = 0.02  # seconds: the clock, Python's, takes a hundred microseconds to ask


def settings(options, quantities, pos_weight):
    """(quantity, "pos_weight" or "none", its number or 0, n, threads) for each comparison; of doubles alone."""
    types = [name for name in options.types if name.partition("+")[0] == "float64"]
    sizes = tuple(n for n in options.sizes if n in SIZES) or options.sizes
    if options.device != "cpu":
        return
    for n, name, quantity, threads in itertools.product(sizes, types, quantities, options.threads):
        yield (quantity, *(("pos_weight", pos_weight) if "+" in name else ("none", 0.0)), n, threads)


def run(settings, rounds):
    """(the versions of R and its packages as text, rows), by R in a child process. rounds: a function of n.

    Raises RuntimeError whose text is one line on what is missing.
    """
    questions = [(p, "gradient" in quantity, n, threads, rounds(n)) for quantity, _, p, n, threads in settings]
    child = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import answer; answer()"],
        input=json.dumps([sys.path, questions]),
        capture_output=True,
        text=True,
    )
    if child.returncode:
        raise RuntimeError(child.stderr.strip().splitlines()[-1] if child.stderr.strip() else "the R process ended")
    versions, answers = json.loads(child.stdout.splitlines()[-1])
    rows = []
    for (quantity, given, _, n, threads), contenders in zip(settings, answers):
        for name, times, calls in contenders:
            way = name.split("\t")
            numbers = (round(f(times) / n * 1e9, 4) for f in (statistics.median, min, max))
            rows.append(Row("R", quantity, "float64", given, n, threads, *way, *numbers, len(times), calls))
    return versions, rows


def answer():
    """What the child process does: measure what stdin asks for, and print the answers as the last line."""
    path, questions = json.loads(sys.stdin.read())
    sys.path[:] = path
    from bce_bridge import r
    from bce_bridge.r import session

    try:
        r.version("r-package")
    except r.NotAvailable as error:
        sys.exit(str(error))
    rinterface, lock, _ = session.start()
    with lock:
        functions = rinterface.baseenv["new.env"](parent=rinterface.globalenv)
        # Python's clock: R has none that is monotonic.
        functions["clock"] = clock = rinterface.rternalize(lambda: rinterface.FloatSexpVector([time.perf_counter()]))
        source = importlib.resources.files(__package__).joinpath("r.R").read_text("utf-8")
        rinterface.baseenv["eval"](rinterface.parse(source), functions)
        answers = [_measured(rinterface, functions, *question) for question in questions]
        first, *others = functions["versions"]()
        print("\n" + json.dumps([", ".join([first, *others]), answers]))
    del clock


def _measured(rinterface, functions, pos_weight, gradient, n, threads, rounds):
    numbers = (n, pos_weight, gradient, threads, rounds, SAMPLE)
    names, times, calls = functions["measure"](*(rinterface.FloatSexpVector([float(number)]) for number in numbers))
    columns = np.array(times).reshape((rounds, len(names)), order="F").T.tolist()
    return [*zip(names, columns, map(int, calls))]
