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
from bce_bridge.benchmark import problems, r
from bce_bridge.benchmark.memory import peak_memory
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


def environment(device="cpu"):
    """What the results depend on, as text; "device" only where it is not the CPU."""
    found = {
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
    return found if device == "cpu" else {**found, "device": torch.cuda.get_device_name(device)}


def default_rounds(n):
    """Samples of each contender: more where they are short."""
    return 15 if n < 1 << 20 else 9 if n < 1 << 24 else 5


def _synchronize(device):
    """Wait for what was launched on the device: a call returns before that is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def _time(contender, calls, device):
    """Seconds of that many calls."""
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        contender.call()
    _synchronize(device)
    return time.perf_counter() - start


def _calls(contender, n, device):
    """How many calls make a sample; one at sizes that are large for a CPU, without a try."""
    if n >= 1 << 22 and device == "cpu":
        return 1
    contender.before()
    _time(contender, 1, device)  # compiles
    return max(1, math.ceil(SAMPLE / _time(contender, 1, device)))


def _memory(setting, contender, device):
    """Peak memory of a call as a multiple of the logits' bytes, where the section wants it; else None."""
    if not problems.SECTIONS[setting.section].memory:
        return None
    contender.call()  # what the first call sets up for good is not the step's
    contender.before()
    return round(peak_memory(contender.call, device) / (setting.n * getattr(torch, setting.dtype).itemsize), 4)


def measure(setting, contenders, rounds, device="cpu"):
    """Rows of the contenders of a setting. Each sample follows an untimed call of the same contender, which compiles the first
    time, and leaves the caches and the system's free pages as a program would find them that makes this call again and again.
    """
    core.set_num_threads(setting.threads)
    torch.set_num_threads(setting.threads)
    contenders = list(contenders)
    memory = [_memory(setting, contender, device) for contender in contenders]
    calls = [_calls(contender, setting.n, device) for contender in contenders]
    samples = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, count, times in zip(contenders, calls, samples):
            contender.before()
            if setting.threads > 1:
                time.sleep(PAUSE)
            if not times or times[-1] * count < SLOW:
                contender.call()
            times.append(_time(contender, count, device) / count)
    for contender, count, times, peak in zip(contenders, calls, samples, memory):
        numbers = (round(f(times) / setting.n * 1e9, 4) for f in (statistics.median, min, max))
        yield Row(*setting, contender.name, contender.way, *numbers, rounds, count, peak)


def run(options, rounds=None, progress=lambda text, done, total: None):
    """Measure every setting of every section; rounds is the number of samples, by default default_rounds(n).

    Leaves the numbers of threads and the instruction set as they were.
    """
    settings = [setting for section in problems.SECTIONS.values() for setting in section.settings(options)]
    settings.sort(key=lambda setting: (setting.n, setting.dtype))  # operands of one size and type are made once
    found = environment(options.device)
    if options.compiler and (problem := problems.compiler_problem(options.device)):
        found["torch.compile"] = f"not measured: {problem}"
        options = options._replace(compiler=False)
    isa, threads, torch_threads = _abi.isa(), core.get_num_threads(), torch.get_num_threads()
    rows = []
    gc.disable()
    try:
        for i, setting in enumerate(settings):
            contenders = problems.SECTIONS[setting.section].contenders(setting, options)
            rows += measure(setting, contenders, rounds or default_rounds(setting.n), options.device)
            problems.set_instruction_set(isa)
            progress("measuring", i, len(settings))
    finally:
        gc.enable()
        problems.operands.cache_clear()
        problems.set_instruction_set(isa)
        torch.set_num_threads(torch_threads)
        core.set_num_threads(threads)
    in_r = [*r.settings(options, problems.QUANTITIES, problems.POS_WEIGHT)]
    if in_r:
        progress("measuring in R", len(settings), len(settings))
        try:
            found["R"], more = r.run(in_r, lambda n: rounds or default_rounds(n))
            rows += more
        except RuntimeError as error:
            found["R"] = f"not measured: {error}"
    order = {section: place for place, section in enumerate((*problems.SECTIONS, "R"))}
    rows.sort(key=lambda row: order[row.section])  # stable: the sections one after the other
    return Results(found, rows)
