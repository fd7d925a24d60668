"""The same bits whatever computes them: instruction sets, threads, parts, memory layouts, languages. NaN is NaN."""

import functools
import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from operands import FLOATING, WEIGHTS, Operand, chosen, hostile, move, problem, storage, weights
from processes import run_python

from bce_bridge import _abi, core

ISAS = core.build_info()["isas_supported"]
RESULTS = ("loss", "gradient", "curvature", "d_targets", "d_weight", "d_pos_weight")
# Every remainder of a vector, of a block of the core (256), and of what two or three blocks are; up to 4,100.
LENGTHS = [*range(70), 100, 127, 128, 129, 191, 255, 256, 257, 300, 383, 511, 512, 513, 700, 767, 769, 1000, 1023, 1024]
LENGTHS += [1025, 1500, 2047, 2049, 3000, 3333, 4093, 4095, 4096, 4097, 4100]


def compute(operands, smoothing, reduction="none", like=None):
    """(bits of the six results and the fields of the partial sum); the results lie in memory as `like` does."""
    x = operands[0]
    results = {name: like(x) if like else Operand(np.empty_like(x.array), x.dtype) for name in RESULTS}
    if reduction != "none":
        results["loss"] = Operand(np.empty((), storage(x.dtype)), x.dtype)
    partial = _abi.partial_from()
    arrays = [None if a is None else a.describe() for a in operands]
    _abi.evaluate(
        *arrays, smoothing, reduction, partial=partial, **{name: result.describe() for name, result in results.items()}
    )
    return [result.bits() for result in results.values()], _abi.partial_fields(partial)


# Catches a vector body that computes otherwise than its tail or another instruction set, a product that is contracted on one.
@pytest.mark.parametrize("dtype", FLOATING)
def test_instruction_sets_and_memory_layouts(dtype):
    for n in LENGTHS:
        rng = np.random.default_rng([1, n])
        for shape in ((n,), (2, n) if n % 2 else (n, 3)):
            operands, smoothing = problem(rng, dtype, shape)
            for reduction in ("none", "mean"):
                want = None
                for isa in ISAS:
                    with chosen(isa):
                        got = compute(operands, smoothing, reduction)
                        want = want or got
                        assert got == want, (n, shape, reduction, isa)
                        moved = [a and move(rng, a) for a in operands]
                        got = compute(moved, smoothing, reduction, functools.partial(move, rng))
                        assert got == want, (n, shape, reduction, isa)


# Catches a broadcast weight that is read at another element by another instruction set, or along the other dimension.
@pytest.mark.parametrize("weight, pos_weight", list(itertools.product(WEIGHTS, repeat=2)))
def test_weights_of_every_shape(weight, pos_weight):
    for dtype, shape in itertools.product(FLOATING, [(1, 5), (7, 1), (3, 301), (301, 3), (4, 256), (2, 5, 37)]):
        rng = np.random.default_rng([2, *shape])
        operands, smoothing = problem(rng, dtype, shape, weight, pos_weight)
        expanded = [a and Operand(np.broadcast_to(a.array, shape).copy(), a.dtype) for a in operands]
        answers = []
        for isa in ISAS:
            with chosen(isa):
                answers += [compute(operands, smoothing), compute(expanded, smoothing)]
        assert all(answer == answers[0] for answer in answers), (dtype, shape)


# Catches an element whose result depends on where in a call it stands, and partial sums that are rounded.
@pytest.mark.parametrize("dtype", FLOATING)
def test_parts_are_the_whole(dtype):
    for n in LENGTHS[60:]:
        rng = np.random.default_rng([3, n])
        operands, smoothing = problem(rng, dtype, (n,), "full", "full")
        results, fields = compute(operands, smoothing)
        cuts = [0, *sorted(rng.integers(0, n + 1, 6)), n]
        for isa in ISAS:
            with chosen(isa):
                parts = [compute([a[i:j] for a in operands], smoothing) for i, j in itertools.pairwise(cuts)]
            assert [b"".join(pieces) for pieces in zip(*(part[0] for part in parts))] == results, (n, isa)
            total = core.Accumulator.from_array(np.sum([part[1] for part in parts], axis=0))
            assert total == core.Accumulator.from_array(np.array(fields)), (n, isa)


# Catches a share of a thread that overlaps another's, leaves elements out, or reads a broadcast weight from its own start.
# From 2^17 elements a thread on: up to the seven threads that the longest here is worth.
@pytest.mark.parametrize("shape", [(2**18 + 1,), (515, 700), (2**20 - 131,), (31, 29, 1100)], ids=str)
def test_numbers_of_threads(shape):
    for dtype in FLOATING:
        rng = np.random.default_rng([4, *shape])
        operands, smoothing = problem(rng, dtype, shape, *("full", "scalar") if len(shape) == 1 else ("row", "column"))
        moved = [a and move(rng, a) for a in operands]
        with chosen(ISAS[0], 1):
            want = compute(operands, smoothing)
        for threads in range(1, 8):
            with chosen(ISAS[0], threads):
                assert compute(moved if threads == 4 else operands, smoothing) == want, (dtype, threads)
        for isa, threads in zip(ISAS[1:], (7, 3)):
            with chosen(isa, threads):
                assert compute(operands, smoothing) == want, (dtype, isa, threads)


def test_bfloat16_through_torch():
    """Catches a second conversion in the torch layer."""
    import torch

    from bce_bridge import binary_cross_entropy_with_logits

    rng = np.random.default_rng(5)
    x = Operand.of(hostile(rng, (1000,)), "bfloat16")
    y = Operand.of(rng.random(1000), "bfloat16")
    for isa in ISAS:
        with chosen(isa):
            for reduction in ("none", "sum"):
                tensors = [torch.from_numpy(a.array.view(np.int16)).view(torch.bfloat16) for a in (x, y)]
                loss = binary_cross_entropy_with_logits(tensors[0].requires_grad_(), tensors[1], reduction=reduction)
                loss.sum().backward()
                got = [t.detach().view(torch.int16).numpy().view(np.uint16) for t in (loss, tensors[0].grad)]
                (want_loss, want_gradient, *_), _ = compute([x, y, None, None], 0.0, reduction)
                assert [Operand(a, "bfloat16").bits() for a in got] == [want_loss, want_gradient], (isa, reduction)


# What a fresh process computes, as one line of JSON: [isa, number of threads, digest].
_DIGEST = """
import hashlib, json
import numpy as np
from bce_bridge import core
info = core.build_info()
rng = np.random.default_rng(6)
x, y, w = rng.normal(0, 8, (600, 700)).astype(np.float32), rng.random((600, 700)).astype(np.float32), rng.random(700)
results = [*core.loss_and_grad(x, y, w, reduction="none"), core.loss(x, y, w), core.curvature(x, y, w)]
digest = hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest()
print(json.dumps([info["isa"], info["num_threads"], digest]))
"""


def test_environment_variables():
    """Catches a variable that is not read, or one that changes more than the speed."""
    isa, threads, digest = json.loads(run_python(_DIGEST, BCE_BRIDGE_ISA=None, BCE_BRIDGE_NUM_THREADS=None))
    assert isa == ISAS[0] and threads >= 1
    assert json.loads(run_python(_DIGEST, BCE_BRIDGE_ISA="")) == [isa, threads, digest]
    for name, number in zip(ISAS, (3, 7, 1)):
        got = json.loads(run_python(_DIGEST, BCE_BRIDGE_ISA=name, BCE_BRIDGE_NUM_THREADS=str(number)))
        assert got == [name, number, digest]


def test_an_instruction_set_that_is_not_to_be_had_is_an_error():
    """Catches a silent choice of another one, and results that were written all the same."""
    foreign = "avx512" if "neon" in ISAS else "neon"
    code = """
import numpy as np
from bce_bridge import core
a = core.Accumulator()
for use in (core.build_info, lambda: core.loss([1.0], [1]), lambda: core.loss_and_grad([], []), lambda: a.update([1.0], [1])):
    try:
        use()
    except RuntimeError as error:
        print(error)
assert a.count == 0
"""
    for name in ("sse9", foreign, "AVX2", " "):
        lines = run_python(code, BCE_BRIDGE_ISA=name).splitlines()
        assert len(lines) == 4
        for line in lines:
            assert line.startswith("BCE_BRIDGE_ISA must be an instruction set of this build (")
            assert line.endswith(f"scalar), got '{name}'")
    with pytest.raises(RuntimeError, match=r"isa must be an instruction set of this build \(.*scalar\), got 'sse9'"):
        _abi.call(_abi.lib.bce_set_isa, b"sse9")


def test_build_info_says_what_is_there():
    info = core.build_info()
    assert set(info) == {"version", "compiler", "isa", "isas_built", "isas_supported", "num_threads"}
    assert re.fullmatch(r"(GCC|clang) \d+\..*", info["compiler"])
    assert info["isa"] in info["isas_supported"] and set(info["isas_supported"]) <= set(info["isas_built"])
    assert info["isas_built"][-1] == info["isas_supported"][-1] == "scalar"
    for isa in ISAS:
        with chosen(isa):
            assert core.build_info()["isa"] == isa


# What Python and R, embedded in one process with one environment, compute by cores of their own: a digest of all of it.
def r_and_python():
    from embedded_r import r_text

    from bce_bridge import r

    r.version("r-package")  # starts R
    r_text("library(bcebridge); ''")
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    sizes = [(n,) for n in LENGTHS[::4]] + [(37, 11), (5, 1), (1, 5), (257, 3), (2**18 + 1,), (300, 2000)]
    for shape in sizes:
        x = hostile(rng, shape)
        y = np.where(rng.random(shape) < 0.5, rng.integers(0, 2, shape), rng.random(shape))
        w, p = (weights(rng, rng.choice(WEIGHTS), shape) for _ in range(2))
        for reduction in ("none", "mean", "sum"):
            python, in_r = core.loss_and_grad(x, y, w, p, reduction), r.evaluate("r-package", x, y, w, p, reduction)
            bits = [b"".join(Operand(np.asarray(a), "float64").bits() for a in answer) for answer in (python, in_r)]
            assert bits[0] == bits[1], (shape, reduction)
            digest.update(bits[0])
    return [core.build_info()["isa"], core.get_num_threads(), int(r_text("format(bce_num_threads())")[0]), digest.hexdigest()]


# Catches compilers or flags of the two packages that compute otherwise, and a core in R that does not read the variables.
@pytest.mark.r
def test_python_and_r_on_every_instruction_set():
    code = f"""
import json, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import test_same_bits
print(json.dumps(test_same_bits.r_and_python()))
"""
    choices = list(zip(ISAS, (3, 2, 1)))
    answers = [json.loads(run_python(code, BCE_BRIDGE_ISA=isa, BCE_BRIDGE_NUM_THREADS=str(n))) for isa, n in choices]
    assert [answer[:3] for answer in answers] == [[isa, n, n] for isa, n in choices]
    assert len({answer[3] for answer in answers}) == 1


# Catches a NaN whose sign or payload depends on the instruction set.
def test_every_nan_is_the_same():
    names = ("loss", "gradient", "curvature", "d_targets", "d_weight", "d_pos_weight")
    payload = np.array([0xFFF8000000000001], np.uint64).view(float)[0]
    for dtype, unsigned in ((np.float64, np.uint64), (np.float32, np.uint32), (np.float16, np.uint16)):
        usual = np.array([np.nan], dtype).view(unsigned)[0]
        for isa in ISAS:
            with chosen(isa):
                for nan in (np.nan, -np.nan, payload):
                    for position in range(4):
                        operands = [np.full(70, number, dtype) for number in (1.5, 0.5, 2.0, 3.0)]
                        operands[position][::7] = nan
                        for array in core._evaluate(*operands, "none", 0.0, names):
                            array = array[np.isnan(array)]
                            assert (array.view(unsigned) == usual).all(), (dtype, isa, position)
