"""What tools/gpu-check.sh runs: checks of bits, gradients and memory on a CUDA device, and times beside torch and a copy.

    python tools/gpu_check.py FILE [SECONDS]

writes FILE (JSON) after each step and prints a table at the end; exits with 1 if anything differs from the C core. Steps that
the time does not allow are named as left out. Without a device all tensors are on the CPU and Triton's interpreter computes.
"""

import importlib.metadata
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch

ON_DEVICE = torch.cuda.is_available()
if not ON_DEVICE:
    from triton_interpreter import start_interpreter

    start_interpreter()

import bce_bridge  # noqa: E402
from bce_bridge.torch import distributed, evaluate  # noqa: E402
from bce_bridge.torch.triton_kernel import gives_the_cores_bits, launch  # noqa: E402

DEVICE = "cuda" if ON_DEVICE else "cpu"
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
ELEMENTS = 10**8 if ON_DEVICE else 4000
CHUNK = 1 << 23 if ON_DEVICE else 2000
SIZES = (1000, 1 << 18, 1 << 22, 1 << 26)
F = torch.nn.functional.binary_cross_entropy_with_logits


def differing(got, want):
    """How many numbers have other bits; NaN are all alike."""
    bits = INTEGERS[want.element_size()]
    got = got.detach().cpu()
    return int(((got.view(bits) != want.view(bits)) & ~(got.isnan() & want.isnan())).sum())


def to_device(*operands):
    return [operand.to(DEVICE) if isinstance(operand, torch.Tensor) else operand for operand in operands]


def count_differences(operands, reduction, smoothing):
    """Of loss and gradient, and of the loss without a gradient, between the kernel and the core."""
    x, y = operands[:2]
    dtype = y.dtype if y.dtype.is_floating_point else x.dtype
    want = evaluate.core_loss_and_gradient(*operands, reduction, smoothing, dtype, True)
    there = to_device(*operands)
    got = launch.loss_and_gradient(*there, reduction, smoothing, True)
    alone = launch.loss_and_gradient(*there, reduction, smoothing, False)[0]
    return sum(map(differing, got, want)) + differing(alone, want[0])


def random_problems(dtype, n):
    """Operands of every kind: masked, confident and plain logits; hard, soft and boolean targets; weights."""
    x = torch.randn(n) * 4
    x[: n // 50] = float("-inf")
    x[n // 50 : n // 25] = -1e4
    x[n // 25 : n // 20] *= 25
    x = x.to(dtype)
    hard, soft, w = torch.randint(0, 2, (n,)).to(dtype), torch.rand(n).to(dtype), torch.rand(n).to(dtype)
    hard[: n // 25] = 0
    p = torch.tensor(3.0, dtype=dtype)
    yield "hard labels", (x, hard, None, None), 0.0
    yield "soft labels", (x, soft, None, None), 0.0
    yield "boolean labels, pos_weight", (x, hard.bool(), None, p), 0.0
    yield "smoothed labels", (x, hard, None, None), 0.1
    yield "weight, pos_weight, smoothed", (x, soft, w, p), 0.1


def known_elements(report):
    yield "both paths", {"different": int(not gives_the_cores_bits(torch.device(DEVICE)))}


def handed_over(report):
    """What the fast path leaves to float64: elements of plain logits, and the sum, which it should settle itself."""
    torch.manual_seed(5)
    n = CHUNK
    x, y = torch.randn(n) * 3, torch.randint(0, 2, (n,)).float()
    settle = launch.Launch._settle
    seen = {}

    def watch(self, partial, work, *arguments):
        settle(self, partial, work, *arguments)
        seen["work"] = work.tolist()

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with patch.object(launch.Launch, "_settle", watch):
            launch.loss_and_gradient(*to_device(x.to(dtype), y.to(dtype), None, None), "mean", 0.0, True)
        listed, unsettled = seen["work"][:2]
        yield f"{dtype}"[6:], {"share of elements": listed / n, "sum": unsettled, "different": int(listed > n * 2**-9)}


def random_bits(report):
    torch.manual_seed(0)
    for dtype in TYPES:
        different, seen = 0, 0
        while not seen or (seen < ELEMENTS // len(TYPES) and report.time_left() > 0.65 * report.seconds):
            for _, operands, smoothing in random_problems(dtype, CHUNK):
                for reduction in ("none", "mean"):
                    different += count_differences(operands, reduction, smoothing)
                seen += CHUNK
        yield f"{dtype}"[6:], {"elements": seen, "different": different}


def every_16_bit_logit(report):
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    targets = torch.tensor([0.0, 1.0, 0.3, 0.5] if ON_DEVICE else [0.3])
    for dtype in (torch.float16, torch.bfloat16):
        x = every.view(dtype).repeat(len(targets))
        y = targets.repeat_interleave(len(every)).to(dtype)
        different = 0
        for least in (1, 2**62):  # by the fast path, and by float64 formulae
            with patch.multiple(launch, FAST_FROM=least, FAST_FROM_WITH_FLOAT64=least):
                different += count_differences((x, y, None, None), "none", 0.0)
        yield f"{dtype}"[6:], {"elements": len(x), "different": different}


def weight_gradients(report):
    """Gradients in all operands: those but the input's are torch's operations in float64, near the CPU's."""
    torch.manual_seed(1)
    grads = []
    base = torch.randn(64, 40) * 3, torch.rand(64, 40), torch.rand(40), torch.rand(40) * 5
    for device in ("cpu", DEVICE):
        leaves = [tensor.double().to(device).requires_grad_() for tensor in base]
        loss = bce_bridge.binary_cross_entropy_with_logits(*leaves[:3], pos_weight=leaves[3], backend=backend(device))
        grads.append([g.cpu() for g in torch.autograd.grad(loss, leaves)])
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*grads))
    yield "four operands", {"largest difference, of the largest": worst, "different": int(worst > 2**-48)}


def backend(device):
    return "triton" if device == DEVICE else "core"


def one_rank(report):
    """global_loss, by NCCL on a device: the mean of the core."""
    torch.manual_seed(2)
    x, y = torch.randn(3000) * 3, torch.rand(3000)
    want = evaluate.core_loss_and_gradient(x, y, None, None, "mean", 0.0, torch.float32, True)
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "nccl" if ON_DEVICE else "gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1
        )
        leaf = x.to(DEVICE).requires_grad_()
        loss = distributed.global_loss(leaf, y.to(DEVICE))
        loss.backward()
        torch.distributed.destroy_process_group()
    yield "one rank", {"different": differing(loss, want[0]) + differing(leaf.grad, want[1])}


def compiled(report):
    """torch.compile over the loss: the same bits."""
    torch.manual_seed(3)
    x, y = torch.randn(1 << 19) * 3, torch.rand(1 << 19)
    want = evaluate.core_loss_and_gradient(x, y, None, None, "mean", 0.0, torch.float32, True)
    leaf = x.to(DEVICE).requires_grad_()
    loss = torch.compile(bce_bridge.BCEWithLogitsLoss(), fullgraph=True)(leaf, y.to(DEVICE))
    loss.backward()
    yield "loss and gradient", {"different": differing(loss, want[0]) + differing(leaf.grad, want[1])}


def step_memory(report):
    """The peak of memory that a step takes beside its operands, over the input's size."""
    for name, function in (("ours", bce_bridge.binary_cross_entropy_with_logits), ("torch eager", F)):
        x, y = torch.randn(1 << 24, device=DEVICE, requires_grad=True), torch.rand(1 << 24, device=DEVICE)
        function(x[:1000].detach().requires_grad_(), y[:1000]).backward()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function(x, y).backward()
        yield name, {"times the input": round((torch.cuda.max_memory_allocated() - before) / (4 * x.numel()), 3)}


def contenders(x, y, p):
    """name -> a call that computes loss and gradient; the limit moves the same bytes."""
    leaf, out = x.clone().requires_grad_(), torch.empty_like(x)
    compiled_loss = torch.compile(F)
    both = torch.compile(torch.func.grad_and_value(lambda x, y, p: F(x, y, pos_weight=p)))

    def step(function):
        leaf.grad = None
        function(leaf, y, pos_weight=p).backward()

    return {
        "ours": lambda: step(bce_bridge.binary_cross_entropy_with_logits),
        "ours, kernels": lambda: launch.loss_and_gradient(x, y, None, p, "mean", 0.0, True),
        "torch eager": lambda: step(F),
        "torch.compile": lambda: step(compiled_loss),
        "torch.compile, grad_and_value": lambda: both(x, y, p),
        "copy limit": lambda: torch.add(x, y, out=out),
    }


def times(report):
    """Medians in milliseconds, the contenders in turn; "kernels" is what runs on the device, without autograd."""
    from triton.testing import do_bench

    torch.manual_seed(4)
    for n in reversed(SIZES):
        for dtype, with_pos_weight in ((torch.float32, False), (torch.bfloat16, False), (torch.float32, True)):
            name = f"{dtype}"[6:] + (", pos_weight" if with_pos_weight else "") + f", n = {n}"
            if report.time_left() < 15:
                yield name, {"left out": "no time"}
                continue
            torch._dynamo.reset()
            x = (torch.randn(n, device=DEVICE) * 3).to(dtype)
            y = torch.randint(0, 2, (n,), device=DEVICE).to(dtype)
            p = torch.tensor(3.0, dtype=dtype, device=DEVICE) if with_pos_weight else None
            calls = contenders(x, y, p)
            rounds = [
                {key: do_bench(call, warmup=3, rep=12, return_mode="median") for key, call in calls.items()} for _ in range(3)
            ]
            yield name, {key: round(sorted(r[key] for r in rounds)[1], 5) for key in calls}


class Report:
    def __init__(self, file, seconds):
        self.file, self.seconds, self.begin = file, seconds, time.monotonic()
        self.failures = 0
        name = torch.cuda.get_device_name() if ON_DEVICE else "none: Triton's interpreter"
        self.content = {
            "device": name,
            "torch": torch.__version__,
            "triton": importlib.metadata.version("triton"),
            "python": sys.version.split()[0],
            "bce_bridge": bce_bridge.__version__,
            "steps": {},
        }

    def time_left(self):
        return self.seconds - (time.monotonic() - self.begin)

    def step(self, function):
        name = function.__name__.replace("_", " ")
        rows = self.content["steps"][name] = {}
        begin = time.monotonic()
        try:
            for key, row in function(self):
                rows[key] = row
                self.failures += row.get("different", 0) > 0
                print(f"{name}: {key}: " + ", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        except Exception as error:  # a step that fails leaves the others their turn
            rows["error"] = f"{type(error).__name__}: {error}"
            self.failures += 1
            print(f"{name}: {rows['error'][:400]}", flush=True)
        rows["seconds"] = round(time.monotonic() - begin, 1)
        self.file.write_text(json.dumps(self.content, indent=1) + "\n")

    def table(self):
        rows = {
            key: row for key, row in self.content["steps"].get("times", {}).items() if isinstance(row, dict) and "ours" in row
        }
        if rows:
            print(f"\n{self.content['device']}, torch {self.content['torch']}: time over the copy limit's, and ms")
            names = list(next(iter(rows.values())))
            print(" " * 34 + "".join(f"{name[:17]:>19}" for name in names))
            for key, row in rows.items():
                cells = (f"{row[name] / row['copy limit']:.2f} ({row[name]:.3f})" for name in names)
                print(f"{key:34}" + "".join(f"{cell:>19}" for cell in cells))


def main(file, seconds=300):
    report = Report(Path(file), float(seconds))
    if not ON_DEVICE:
        launch.FAST_FROM = 1500  # so that the rehearsal goes both ways
    steps = [known_elements, handed_over, every_16_bit_logit, random_bits, weight_gradients, one_rank]
    if ON_DEVICE:
        steps += [compiled, step_memory, times]
    for step in steps:
        report.step(step)
    report.table()
    print(f"{report.failures} failures, {time.monotonic() - report.begin:.0f} s")
    return report.failures > 0


if __name__ == "__main__":
    sys.exit(main(*itertools.islice(sys.argv, 1, None)))
