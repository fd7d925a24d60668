"""Take the times: rounds over the contenders of one setting, so that what slows the machine slows all of them."""

import gc
import math
import os
import platform
import statistics
import time
from datetime import datetime, timezone

import numpy as np
import torch

import bce_bridge
from bce_bridge import _abi, core
from bce_bridge.benchmark import problems
from bce_bridge.benchmark.results import Results, Row

SAMPLE = 0.004  # seconds that a sample lasts at least, by as many calls as that takes
SLOW = 0.5  # seconds: a call that takes longer is not repeated untimed before each sample
PAUSE = 0.004  # seconds before a sample on several threads: OpenMP's workers spin on for a while and would slow the next one


def cores():
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1] for line in file if line.startswith("model name"))
            return " ".join(next(names).split())
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment():
    """What the results depend on, as text."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "processor": _cpu(),
        "cores": str(cores()),
        "instruction set": _abi.isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "bce_bridge": bce_bridge.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }


def default_rounds(n):
    """Samples of each contender: more where they are short."""
    return 15 if n < 1 << 20 else 9 if n < 1 << 24 else 5


def _time(contender, calls):
    """Seconds of that many calls."""
    start = time.perf_counter()
    for _ in range(calls):
        contender.call()
    return time.perf_counter() - start


def _calls(contender, n):
    """How many calls make a sample; one at large sizes, without a try."""
    if n >= 1 << 22:
        return 1
    contender.before()
    _time(contender, 1)  # compiles
    return max(1, math.ceil(SAMPLE / _time(contender, 1)))


def measure(setting, contenders, rounds):
    """Rows of the contenders of a setting. Each sample follows an untimed call of the same contender, which compiles the first
    time, and leaves the caches and the system's free pages as a program would find them that makes this call again and again.
    """
    core.set_num_threads(setting.threads)
    torch.set_num_threads(setting.threads)
    contenders = list(contenders)
    calls = [_calls(contender, setting.n) for contender in contenders]
    samples = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, count, times in zip(contenders, calls, samples):
            contender.before()
            if setting.threads > 1:
                time.sleep(PAUSE)
            if not times or times[-1] * count < SLOW:
                contender.call()
            times.append(_time(contender, count) / count)
    for contender, count, times in zip(contenders, calls, samples):
        numbers = (round(f(times) / setting.n * 1e9, 4) for f in (statistics.median, min, max))
        yield Row(*setting, contender.name, contender.way, *numbers, rounds, count)


def run(options, rounds=None, progress=lambda text, done, total: None):
    """Measure every setting of every section; rounds is the number of samples, by default default_rounds(n).

    Leaves the numbers of threads and the instruction set as they were.
    """
    settings = [setting for section in problems.SECTIONS.values() for setting in section.settings(options)]
    settings.sort(key=lambda setting: (setting.n, setting.dtype))  # operands of one size and type are made once
    found = environment()
    if options.compiler and (problem := problems.compiler_problem()):
        found["torch.compile"] = f"not measured: {problem}"
        options = options._replace(compiler=False)
    isa, threads, torch_threads = _abi.isa(), core.get_num_threads(), torch.get_num_threads()
    rows = []
    gc.disable()
    try:
        for i, setting in enumerate(settings):
            contenders = problems.SECTIONS[setting.section].contenders(setting, options.compiler)
            rows += measure(setting, contenders, rounds or default_rounds(setting.n))
            problems.set_instruction_set(isa)
            progress("measuring", i, len(settings))
    finally:
        gc.enable()
        problems.operands.cache_clear()
        problems.set_instruction_set(isa)
        torch.set_num_threads(torch_threads)
        core.set_num_threads(threads)
    order = {section: place for place, section in enumerate(problems.SECTIONS)}
    rows.sort(key=lambda row: order[row.section])  # stable: the sections one after the other
    return Results(found, rows)
