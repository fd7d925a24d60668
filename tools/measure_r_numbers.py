"""What a call on R's doubles takes beside the same call on NumPy's: python tools/measure_r_numbers.py docs/performance.md

Under "mean", of one thread; medians of both in turn, each in a process of its own, written between the lines of the page that
name this file. Needs R and bcebridge.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bce_bridge import core

SIZES = (10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)
CASES = ("loss alone", "gradient too", "logical targets", "pos_weight")
BEGIN, END = "<!-- begin: python tools/measure_r_numbers.py docs/performance.md -->", "<!-- end -->"
SETUP = """
    suppressMessages(library(bcebridge))
    bce_num_threads(1)
    prepare <- function(n, case) {
      set.seed(n)
      x <<- rnorm(n, 0, 3)
      y <<- runif(n) < 0.5
      if (case != "logical targets") y <<- as.double(y)
      p <<- if (case == "pos_weight") 3
    }
    measure <- function(calls, gradient) {
      begin <- Sys.time()
      for (i in seq_len(calls)) bce_with_logits(x, y, pos_weight = p, gradient = gradient)
      as.numeric(Sys.time() - begin, units = "secs") / calls
    }
    measure <- compiler::cmpfun(measure)
    input <- file("stdin", "r")
    while (length(line <- readLines(input, 1))) cat(format(eval(parse(text = line)), digits = 17), "\\n", sep = "")
"""


class R:
    def __init__(self):
        self.process = subprocess.Popen(["Rscript", "-e", SETUP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, code):
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def measure_numpy(compute, operands, calls):
    begin = time.perf_counter()
    for _ in range(calls):
        compute(*operands)
    return (time.perf_counter() - begin) / calls


def median_times(r, n, case):
    """Microseconds a call of R and of NumPy."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(0, 3, n), rng.random(n) < 0.5
    operands = (x, y if case == "logical targets" else y.astype(float), None, 3.0 if case == "pos_weight" else None)
    r(f'{{prepare({n}, "{case}"); 0}}')
    calls = max(1, 200_000 // (n + 200))
    gradient, compute = ("FALSE", core.loss) if case == "loss alone" else ("TRUE", core.loss_and_grad)
    times = [(float(r(f"measure({calls}, {gradient})")), measure_numpy(compute, operands, calls)) for _ in range(21)]
    return np.median(times[1:], axis=0) * 1e6


def main(page):
    core.set_num_threads(1)
    r = R()
    rows = []
    for case in CASES:
        for n in SIZES:
            ours, numpys = median_times(r, n, case)
            rows.append(f"| {case} | {n:,} | {ours:.3g} | {numpys:.3g} | {ours / numpys:.2f} |")
    version = r("as.character(getRversion())")
    machine = f"{platform.system()} {platform.machine()}, {core.build_info()['isa']}, {os.cpu_count()} processors"
    table = [
        "",
        f"R {version}, NumPy {np.__version__}, {machine}.",
        "",
        "| what | n | R | NumPy | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
    text = Path(page).read_text(encoding="utf-8").split("\n")
    begin = text.index(BEGIN) + 1
    end = text.index(END, begin)
    Path(page).write_text("\n".join(text[:begin] + table + text[end:]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
