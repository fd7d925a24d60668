"""Write docs/cuda.md: what bounds the CUDA kernels on each card, from their machine code, and what a device answered.

    python tools/cuda_page.py docs/cuda.md docs/gpu-check.json

needs Triton but no device: the kernels are compiled for each card's architecture and disassembled. The second file is what
tools/gpu-check.sh wrote. The text between the tables stands in this file.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from bce_bridge.torch.triton_kernel import launch


class Card(NamedTuple):
    """Rates by NVIDIA's datasheets: 10^12 operations a second, a fused multiply-add being two, and 10^9 bytes a second."""

    name: str
    architecture: int
    float32: float
    float64: float
    memory: float
    lanes: int  # float32 lanes of a multiprocessor, which issues 128 lanes' instructions a clock


CARDS = (
    Card("A100 80 GB", 80, 19.5, 9.7, 2039, 64),
    Card("H100 SXM", 90, 67, 34, 3350, 128),
    Card("B200", 100, 80, 40, 8000, 128),
    Card("B300", 103, 80, 1.3, 8000, 128),
    Card("L4", 89, 30.3, 0.49, 300, 128),
    Card("T4", 75, 8.1, 0.25, 320, 64),
    Card("RTX 4090", 89, 82.6, 1.29, 1008, 128),
)
# What is launched, the bytes of an element, and whether by the fast path.
PROBLEMS = {
    "float32": (torch.float32, 12, True),
    "bfloat16": (torch.bfloat16, 6, True),
    "float32, float64 formulae": (torch.float32, 12, False),
}
KINDS = {"float32": r"F(ADD|MUL|FMA)2?|F(MNMX|SETP|SEL|CHK)|MUFU", "float64": r"D(ADD|MUL|FMA|SETP|MNMX)"}


def compiled(architecture, dtype, fast):
    """The first kernel of a training step, for this architecture; None if Triton has not got it."""

    class Driver:
        def get_current_device(self):
            return architecture

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", architecture, 32)

    kernels, run = [], JITFunction.run

    def compile_only(self, *arguments, warmup, **options):
        if not kernels:  # the others are not shown
            kernels.append(run(self, *arguments, warmup=True, **options))

    x = torch.empty(1 << 24, dtype=dtype, device="meta")
    driver._active, JITFunction.run, launch.FAST_FROM = Driver(), compile_only, 1 if fast else 2**62
    try:
        launch.loss_and_gradient(x, x, None, None, "mean", 0.0, True)
    except Exception as error:
        print(f"sm_{architecture}: {type(error).__name__}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
        return None
    finally:
        JITFunction.run = run
    return kernels[0]


def instructions(kernel):
    """The machine's instructions by their addresses' order, with the position of each label."""
    nvdisasm = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run([nvdisasm, "-c", file.name], capture_output=True, text=True, check=True).stdout
    found, labels = [], {}
    for line in text.splitlines():
        if match := re.match(r"\s*(\.L_x_\d+):", line):
            labels[match[1]] = len(found)
        elif match := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            found.append(match[1])
    return found, labels


def per_element(kernel, fast):
    """Instructions an element, by kind: of the fast path's loop over a thread's 4 elements, or of the whole float64 kernel,
    which has 4 elements a thread and whose loops, over the digits of a sum, are counted once."""
    found, labels = instructions(kernel)
    body = found
    if fast:
        branches = (
            (at, labels.get(m[1], at + 1)) for at, text in enumerate(found) if (m := re.search(r"BRA.*(\.L_x_\d+)", text))
        )
        loops = [found[begin : end + 1] for end, begin in branches if begin <= end]
        body = next(loop for loop in loops if any("STG" in text for text in loop))
    counts = Counter()
    for text in body:
        name = re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]
        # FFMA2 and its like are two operations of a lane.
        counts[next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name)), "other")] += 1 + name.endswith(
            "2"
        )
    return {kind: counts[kind] / 4 for kind in (*KINDS, "other")}


def bounds(card, counts, size):
    """ns an element that memory, float32, float64 and the issue of instructions take, each alone."""
    return {
        "memory": size / card.memory,
        "float32": counts["float32"] / (card.float32 / 2) / 1000,
        "float64": counts["float64"] / (card.float64 / 2) / 1000,
        "issue": sum(counts.values()) / (card.float32 / 2 * 128 / card.lanes) / 1000,
    }


def roofline():
    yield "| card | problem | float32, float64, other instructions | memory, ns | arithmetic, ns | bound by |"
    yield "| --- | --- | --- | ---: | ---: | --- |"
    known = {}
    for card in CARDS:
        for name, (dtype, size, fast) in PROBLEMS.items():
            key = card.architecture, name
            if key not in known:
                kernel = compiled(card.architecture, dtype, fast)
                known[key] = kernel and per_element(kernel, fast)
            counts = known[key]
            if counts is None:
                yield f"| {card.name} | {name} | not compiled for sm_{card.architecture} by Triton {triton.__version__} | | | |"
                continue
            found = bounds(card, counts, size)
            memory, bound = found["memory"], max(found, key=found.get)
            arithmetic = max(value for kind, value in found.items() if kind != "memory")
            numbers = ", ".join(f"{counts[kind]:.0f}" for kind in counts)
            yield f"| {card.name} | {name} | {numbers} | {memory:.4f} | {arithmetic:.4f} | {bound} |"


def times(content):
    rows = {name: row for name, row in content["steps"]["times"].items() if isinstance(row, dict) and "ours" in row}
    names = list(next(iter(rows.values())))
    yield "| problem | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for name, row in rows.items():
        cells = (f"{row[key] / row['copy limit']:.2f} ({row[key]:.3f} ms)" for key in names)
        yield f"| {name} | " + " | ".join(cells) + " |"


def checks(content):
    yield "| check | of | answer |"
    yield "| --- | --- | --- |"
    for step, rows in content["steps"].items():
        for name, row in rows.items():
            if step != "times" and isinstance(row, dict):
                yield f"| {step} | {name} | {', '.join(f'{key}: {value}' for key, value in row.items())} |"
            elif name == "error":
                yield f"| {step} | | {row.splitlines()[0]} |"


TEXT = """# On CUDA

Written by `python tools/cuda_page.py docs/cuda.md docs/gpu-check.json`.

## How it computes

Results of at most float32, from {from_weak} elements on ({from_strong} where float64 is fast), go by a fast path that has
no float64 instruction: loss and gradient in pairs of float32 (`triton_kernel/pairs.py`), from a table of log(1 +
e^-a) and sigma(-a) at steps of 1/64 and a Taylor series. What its error could decide is listed, some one in 2^12 elements,
and a second kernel computes that in float64. A sum is an interval whose ends are exact; only if they round apart does a
third kernel add up float64 losses. So the bits are the core's. `make verify-pairs` checks the same operations in C for all
2^32 logits and both labels:

```text
{pairs}
```

Everything else, and what the fast path leaves, goes by the core's own float64 formulae. At first use on a device the
kernels must answer a dozen known elements with the core's bits; if not, a warning says so and libtorch's operator is used.
AMD's cards (ROCm), Apple's (MPS) and others always go to libtorch's operator.

## What bounds it: an estimate

The instructions of the compiled kernels (Triton {triton}) for loss and gradient of an element, over the rates of the cards'
datasheets: nothing here was measured. "Arithmetic" is the slowest of float32, float64 and the issue of all instructions.

{roofline}

## What a device answered

`tools/gpu-check.sh` on one {device}, torch {torch}, Triton {device_triton}. Times are of a training step's loss and
gradient ("mean"), over that of adding two tensors into a third, which moves the same bytes. "ours, kernels" is what the
device computes, launches included, without autograd; "ours", "torch eager" and "torch.compile" are forward and backward
through autograd, where this machine's Python took most of the time of small tensors: ours makes three launches of Triton
and more Python than torch does, and is slower than torch eager below some 2^24 elements. "torch.compile, grad_and_value"
has no autograd either. Other block sizes, blocks to a program and warps did not make the main kernel faster.

{times}

{checks}
"""


def main(page, answers):
    content = json.loads(Path(answers).read_text())
    pairs = (Path(__file__).resolve().parent.parent / "docs/pairs.txt").read_text().rstrip()
    # The bounds first: compiled() changes them.
    text = TEXT.format(
        from_weak=f"2^{launch.FAST_FROM.bit_length() - 1}",
        from_strong=f"2^{launch.FAST_FROM_WITH_FLOAT64.bit_length() - 1}",
        pairs=pairs,
        triton=importlib.metadata.version("triton"),
        roofline="\n".join(roofline()),
        device=content["device"],
        torch=content["torch"],
        device_triton=content["triton"],
        times="\n".join(times(content)),
        checks="\n".join(checks(content)),
    )
    Path(page).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
