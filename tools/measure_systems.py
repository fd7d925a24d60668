"""Writes docs/systems.md: time and peak memory of a training step through the losses for PyKEEN and Composer, beside theirs.

    .venv/bin/python tools/measure_systems.py

Times are those of forward and backward, in rounds over the contenders, so that what slows the machine slows all of them.
"""

import gc
import statistics
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pykeen.losses
import torch

from bce_bridge import composer, core
from bce_bridge import pykeen as bridge
from bce_bridge.benchmark.measure import cores, environment
from bce_bridge.benchmark.memory import peak_memory

ROUNDS = 9
ENTITIES = 256, 100_000  # one batch of 1-N scoring
CLASSES = 4096, 10_000


def step(loss, leaf):
    """Forward and backward, from a leaf without a gradient; with the gradient that it gets."""
    leaf.grad = None
    loss(leaf).backward()


def scoring():
    """(setting, {contender: loss of the scores}, shape) of PyKEEN's LCWA training."""
    labels = (torch.rand(ENTITIES) < 0.001).float()
    for setting, kind, smoothing in (
        ("plain", {}, None),
        ("pos_weight", {"pos_weight": 3.0}, None),
        ("label smoothing", {}, 0.1),
    ):

        def call(loss, scores, smoothing=smoothing):
            return loss.process_lcwa_scores(scores, labels, smoothing, num_entities=ENTITIES[1])

        losses = {"bce_bridge": bridge.BCEWithLogitsLoss(**kind), "PyKEEN": pykeen.losses.BCEWithLogitsLoss(**kind)}
        yield f"1-N scoring, {setting}", {name: partial(call, loss) for name, loss in losses.items()}, ENTITIES


def classification():
    """The same of class indices. Composer wants an older torch, and so is measured by what it calls."""
    indices = torch.randint(CLASSES[1], CLASSES[:1])

    def composers(logits):
        target = torch.zeros(logits.shape, dtype=torch.int64).scatter_(1, indices[:, None], 1).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return loss / len(logits)

    def ours(logits):
        return composer.binary_cross_entropy_with_logits(logits, indices)

    class Corrected(torch.autograd.Function):
        """No targets at all: the loss and gradient at 0 everywhere, and what the classes given change. The sum is corrected
        in float64, not exactly: a bound on what can be saved."""

        @staticmethod
        def forward(ctx, logits):
            n = torch.arange(len(indices))
            nothing = torch.zeros((), dtype=torch.bool).expand_as(logits)
            loss, gradient = core.loss_and_grad(logits.numpy(), nothing.numpy(), reduction="sum")
            gradient = torch.from_numpy(gradient)
            gradient[n, indices] -= 1
            ctx.save_for_backward(gradient.div_(len(indices)))
            return (torch.tensor(loss).double() - logits[n, indices].double().sum()).float() / len(indices)

        @staticmethod
        def backward(ctx, grad_output):
            return ctx.saved_tensors[0] * grad_output

    yield "class indices", {"bce_bridge": ours, "without targets": Corrected.apply, "Composer": composers}, CLASSES


def measure():
    """A line of the table for each setting, number of threads and contender."""
    for setting, losses, shape in (*scoring(), *classification()):
        leaf = (torch.randn(shape) * 3).requires_grad_()
        size = leaf.numel() * leaf.element_size()
        memory = {}
        for name, loss in losses.items():
            step(loss, leaf)
            leaf.grad = None
            memory[name] = peak_memory(partial(step, loss, leaf)) / size
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            core.set_num_threads(threads)
            times = {name: [] for name in losses}
            for _ in range(ROUNDS):
                for name, loss in losses.items():
                    gc.collect()
                    start = time.perf_counter()
                    step(loss, leaf)
                    times[name].append(1e3 * (time.perf_counter() - start))
            base = statistics.median(times["bce_bridge"])
            for name, found in times.items():
                median = statistics.median(found)
                spread = f"{min(found):.0f} to {max(found):.0f}"
                cells = setting, " x ".join(map(str, shape)), threads, name, f"{median:.0f}", spread, f"{median / base:.2f}"
                yield (*cells, f"{memory[name]:.2f}")


def main():
    torch.manual_seed(0)
    headings = "setting", "logits", "threads", "loss", "ms", "least to largest", "×", "memory"
    rows = [headings, ["---"] * len(headings), *measure()]
    found = {**environment(), "pykeen": version("pykeen")}
    text = "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
    note = "; ".join(f"{name} {value}" for name, value in found.items())
    (Path(__file__).resolve().parent.parent / "docs/systems.md").write_text(
        f"""# A training step in PyKEEN and in Composer

Written by `tools/measure_systems.py`. Forward and backward in float32: the median of {ROUNDS} rounds in milliseconds, and as a
multiple of ours; memory is the most that a step holds at any moment, the gradient included, as a multiple of the logits' bytes.
Composer wants an older torch: measured is what its function does, an int64 one-hot array made float32 and libtorch's loss. Ours
makes a boolean one. "Without targets" is what never expanding the indices would give at best: the loss and gradient at targets of
0, corrected at the indexed elements; it would need an autograd function of its own, past compilers, transforms and weights, for
little.

{text}

{note}.
"""  # noqa: E501
    )


if __name__ == "__main__":
    main()
