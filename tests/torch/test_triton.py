"""The Triton kernel beside the C core, on machines without a GPU: run by Triton's interpreter, and compiled to machine code.

Nothing here was run or measured on a GPU. What the interpreter cannot show, the compiled code is asked: that multiply-adds
are fused where they are written and nowhere else, and that nothing in it is approximate or depends on an order.
"""

import ctypes
import functools
import importlib
import itertools
import math
import multiprocessing
import re
import struct
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from c_programs import VERIFY, build
from operands import FLOATING, Operand, move, problem, storage
from triton_interpreter import start_interpreter

from bce_bridge import _abi
from bce_bridge.conformance import cases

pytestmark = [
    pytest.mark.triton,
    # Triton 3.7, compiling under Python 3.13.
    pytest.mark.filterwarnings("ignore:AnnAssign.__init__ missing 1 required positional argument:DeprecationWarning"),
]

REDUCTIONS = ("none", "sum", "mean")
X = torch.zeros(4, 3)


@functools.cache
def interpreter():
    """A process of its own: the interpreter replaces parts of Triton, after which nothing can be compiled."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_interpreter)


def call(name, arguments):
    return getattr(importlib.import_module(__name__), name).__wrapped__(**arguments)


def interpreted(test):
    """Decorator: the test's body runs under the interpreter."""

    @functools.wraps(test)
    def run(**arguments):
        interpreter().submit(call, test.__name__, arguments).result()

    return run


both_paths = pytest.mark.parametrize("path", ["fast", "float64"])


def take(path, block=64):
    """In the interpreter's process: from now on all elements go by the fast path, or none.

    Of the fast path in small blocks: the interpreter combines pairs one by one where it adds them up.
    """
    from bce_bridge.torch.triton_kernel import launch

    fast = path == "fast"
    launch.FAST_FROM, launch.FAST_BLOCKS, launch.BLOCK = (1, 2, block) if fast else (2**62, 16, 512)


def tensor(operand):
    """The operand's memory as a tensor; a copy where torch has no such strides."""
    if operand is None:
        return None
    array = operand.array
    odd = array.ctypes.data % array.itemsize or any(step < 0 or step % array.itemsize for step in array.strides)
    array = array.copy() if odd else array
    if operand.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def bits(result):
    dtype = str(result.dtype).removeprefix("torch.")
    array = result.contiguous()
    return Operand(array.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else array.numpy(), dtype).bits()


def check(operands, reduction="none", smoothing=0.0, with_gradient=True):
    """The kernel gives the bits of the core. operands: logits, targets, weight, pos_weight as Operands or None."""
    from bce_bridge.torch.triton_kernel import loss_and_gradient

    x, y = operands[:2]
    dtype = y.dtype if y.dtype in FLOATING else x.dtype
    shape = x.array.shape
    results = {"loss": Operand(np.empty(shape if reduction == "none" else (), storage(dtype)), dtype)}
    if with_gradient:
        results["gradient"] = Operand(np.empty(shape, storage(x.dtype)), x.dtype)
    arrays = [None if a is None else a.describe() for a in operands]
    _abi.evaluate(*arrays, smoothing, reduction, **{name: result.describe() for name, result in results.items()})
    loss, gradient = loss_and_gradient(*map(tensor, operands), reduction, smoothing, with_gradient)
    what = (shape, [a and a.dtype for a in operands], reduction, smoothing)
    assert loss.shape == results["loss"].array.shape and str(loss.dtype) == f"torch.{dtype}", what
    assert bits(loss) == results["loss"].bits(), what
    assert (gradient is not None) == with_gradient, what
    if with_gradient:
        assert gradient.shape == shape and bits(gradient) == results["gradient"].bits(), what


def numbers(*columns, dtype="float64"):
    return [None if column is None else Operand.of(column, dtype) for column in columns]


def from_bits(bits):
    return struct.unpack("d", struct.pack("q", bits))[0]


# Catches a wrong formula, alignment of weights, reduction or rounding.
@both_paths
@interpreted
def test_golden_cases(path):
    take(path)
    for i, case in enumerate(cases.load_cases()):
        columns = (case.logits, case.targets, case.weight, case.pos_weight)
        if path == "float64" or case.dtype != "float64":  # which has no fast path
            check(numbers(*columns, dtype=case.dtype), "none")
            if path == "float64" or i % 3 == 0:  # slow in the interpreter
                check(numbers(*columns, dtype=case.dtype), "mean")


# Catches an element that is read or written elsewhere than it lies, a conversion that rounds twice or drops subnormals, a
# silenced term that is NaN, a sum that is not exact: over dtypes in any mix, strides, broadcast weights, -inf, NaN, sizes
# around a block's, 0-d and empty tensors.
# float64 has no fast path.
@pytest.mark.parametrize(
    "path, dtype", [*(("float64", dtype) for dtype in FLOATING), *(("fast", dtype) for dtype in FLOATING if dtype != "float64")]
)
@interpreted
def test_hostile_operands(path, dtype):
    take(path)
    shapes = [(0,), (3, 0), (1,), (5,), (511,), (512,), (513,), (1025,), (3, 7), (2, 3, 5), (300, 3), (4, 1, 6), (2,) * 5]
    for seed, shape in enumerate(shapes):
        rng = np.random.default_rng([10, seed])
        operands, smoothing = problem(rng, dtype, shape)
        if seed % 2:
            operands = [a and move(rng, a) for a in operands]
        for reduction in REDUCTIONS:
            check(operands, reduction, smoothing, with_gradient=seed % 3 > 0)
    zero_d = [a and Operand(a.array.reshape(()), a.dtype) for a in problem(rng, dtype, (1,), "full", "full")[0]]
    for reduction in REDUCTIONS:
        check(zero_d, reduction)


# Catches a conversion to 16 bits that rounds twice, carries wrongly or overflows: every logit that there is.
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@both_paths
@interpreted
def test_every_16_bit_logit(path, dtype):
    take(path, 4096)
    every = Operand(np.arange(2**16).astype(np.uint16).view(storage(dtype)), dtype)
    check([every, Operand.of(np.full(2**16, 0.3), dtype), Operand.of([1 / 3], "float64"), None])


# Catches a weight that is no plain number and that a zero, or the larger of two numbers, hides.
@both_paths
@interpreted
def test_odd_weights(path):
    take(path)
    odd = [0.0, -0.0, -1.5, math.inf, -math.inf, math.nan, 1e-30, 1e-38, 1e30, 3e38, 1.0, 2.0**-61]
    x, y, w, p = (a.ravel() for a in np.meshgrid([-3.0, 0.5, -120.0, -math.inf, 130.0], [0.0, 1.0, 0.25], odd, odd))
    for dtype in ("float32", "bfloat16"):
        for weights in ((w, p), (w, None), (None, p)):
            for reduction in ("none", "mean"):
                check(numbers(x, y, *weights, dtype=dtype), reduction)


# Catches a float32 result that lies too near a midpoint for float64 to decide, and was left to it: sigma(x) for every odd
# multiple x of 2^-23, of which half would go the wrong way, softplus(x) for the one known x, and soft targets next to 0.
@both_paths
@interpreted
def test_settled_results(path):
    take(path)
    odd = np.arange(1, 1001, 2) * 2.0**-23
    near = np.concatenate([odd, -odd, [float.fromhex("0x1.d483ap-12")]])
    powers = np.concatenate([2.0 ** np.arange(-40, 125), -(2.0 ** np.arange(-40, 125))])
    for x, y in ((near, 0), (near, 1), (powers, 2.0**-25), (1.5 * powers, 3 * 2.0**-25)):
        for reduction in ("none", "sum"):
            check(numbers(x, np.full_like(x, y), None, None, dtype="float32"), reduction)


# Catches a subnormal e^-|x|, or one of 0, that a weight multiplies.
@interpreted
def test_tails():
    rng = np.random.default_rng(11)
    for low in (690, 740, 3990):
        x = rng.uniform(low, low + 20, 700) * rng.choice([-1, 1], 700)
        w = np.ldexp(rng.uniform(-1, 1, 700), rng.integers(-300, 1024, 700))
        p = np.ldexp(rng.random(700), rng.integers(-900, 1024, 700))
        w[::30], w[::50], p[::70] = 0, np.inf, np.inf
        check(numbers(x, rng.random(700), w, p))
        check(numbers(x, rng.integers(0, 2, 700), w, None), "mean")
        check([*numbers(x, dtype="float32"), *numbers(rng.random(700), w, p)])


def check_sum(weights, dtype, reduction):
    """Of losses that are exactly 1024 times the weights, rounded to dtype: those of a logit of 1024 at target 0."""
    n = len(weights)
    check([*numbers(np.full(n, 1024.0)), *numbers(np.zeros(n), dtype=dtype), *numbers(weights), None], reduction, 0.0, False)


# Catches a limb that is lost, a wrong carry, sign or exponent: sums that cancel to a few last bits, span all exponents, or
# are subnormal or infinite, and awkward divisors.
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@interpreted
def test_exact_sums(reduction):
    take("float64")
    rng, dtypes = np.random.default_rng(12), itertools.cycle(("float64", "float32", "bfloat16"))
    for n in (1, 2, 7, 100, 1500):
        for exponents in ((-1084, 1000), (-1084, -1050), (-1070, -1025), (-20, 20), (900, 1013)):
            w = np.ldexp(rng.uniform(-1, 1, n), rng.integers(*exponents, n))
            if n > 2:
                w[n // 2 : 2 * (n // 2)] = -w[: n // 2]
                w[0] *= 1 + 2.0**-40
            check_sum(w, next(dtypes), reduction)


# Catches a sticky bit that is lost, a rest that is not borrowed from what is above it, and a second rounding: the midpoint of
# two numbers, plus or minus ever less.
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@interpreted
def test_sums_next_to_a_midpoint(reduction):
    take("float64")
    scale = 3.0 if reduction == "mean" else 1.0
    for dtype, half in (("float64", 2.0**-53), ("float32", 2.0**-24)):
        for base in (1, -1 - 2 * half):
            for rest in 2.0 ** np.array([-58, -100, -300]):
                for sign in (1, -1):
                    check_sum(scale * np.array([base, np.copysign(half, base), sign * rest]), dtype, reduction)


# Catches: what global_loss exchanges on CUDA not being the core's partial sum, or a shard's gradient not the core's.
@interpreted
def test_shards_of_a_global_loss():
    take("fast")
    from unittest.mock import patch

    from bce_bridge.torch import distributed

    torch.manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x, y = (torch.randn(60, 50) * 30).to(dtype), torch.rand(50, 60).T
        x[0, :3] = torch.tensor([math.inf, -math.inf, math.nan])
        w, p = torch.rand(50, dtype=torch.float64) * 1e-320, torch.tensor(2e300, dtype=torch.float64)
        for operands in ((x, y, None, None), (x[1:], y[1:], w, p), (x[:0], y[:0], None, None)):
            ours, cores = _abi.partial_from(), _abi.partial_from()
            distributed._add(cores, *operands, 0.1)
            gradient = distributed._gradient(*operands, "mean", 0.1, 77_777)
            with patch.object(distributed, "_by_triton", lambda _: True):
                distributed._add(ours, *operands, 0.1)
                got = distributed._gradient(*operands, "mean", 0.1, 77_777)
            assert _abi.partial_fields(ours) == _abi.partial_fields(cores)
            torch.testing.assert_close(got, gradient, rtol=0, atol=0, equal_nan=True)


# Catches a fast path that settles nothing, which the float64 formulae would hide: elements and the sum of plain logits.
@interpreted
def test_the_fast_path_settles_plain_logits():
    from unittest.mock import patch

    from bce_bridge.torch.triton_kernel import launch, loss_and_gradient

    take("fast")
    torch.manual_seed(0)
    x, y = torch.randn(40_000) * 3, torch.randint(0, 2, (40_000,)).float()
    settle, work = launch.Launch._settle, {}

    def watch(self, partial, counts, *arguments):
        settle(self, partial, counts, *arguments)
        work["listed"], work["unsettled"] = counts[:2].tolist()

    with patch.object(launch.Launch, "_settle", watch):
        for dtype, power in ((torch.float32, 11), (torch.bfloat16, 9), (torch.float16, 6)):
            for reduction in ("mean", "none"):
                loss_and_gradient(x.to(dtype), y.to(dtype), None, None, reduction, 0.0, True)
                assert work["listed"] < 2.0**-power * len(x) and work["unsettled"] == 0, (dtype, reduction, work)


@functools.cache
def pairs_in_c():
    """c_src/verify/pairs.h as a library."""
    folder = Path(tempfile.mkdtemp())
    (folder / "pairs.c").write_text(
        '#include "pairs.h"\n'
        "int functions(const float *a, float *results, long n)\n"
        "{\n"
        "    if (!pairs_make_table()) return 1;\n"
        "    for (long i = 0; i < n; i++) {\n"
        "        pairs_pair l, s;\n"
        "        pairs_functions(a[i], &l, &s);\n"
        "        float all[4] = {l.high, l.low, s.high, s.low};\n"
        "        for (int k = 0; k < 4; k++) results[k * n + i] = all[k];\n"
        "    }\n"
        "    return 0;\n"
        "}\n"
    )
    return ctypes.CDLL(build(folder / "pairs.so", "-shared", "-fPIC", "-I", VERIFY, folder / "pairs.c"))


# Catches an operation of the kernel that is another one in C, where all logits are checked.
@interpreted
def test_the_functions_are_those_in_c():
    import triton
    import triton.language as tl

    from bce_bridge.torch.triton_kernel import pairs, prepare

    globals().update(functions=pairs._functions, tl=tl)  # where Triton looks for names

    @triton.jit
    def store(a, results, table: tl.int64, N: tl.constexpr):
        i = tl.arange(0, N)
        log1p, log1p_low, sigma, sigma_low = functions(tl.load(a + i), table, False)  # noqa: F821
        tl.store(results + i, log1p)
        tl.store(results + N + i, log1p_low)
        tl.store(results + 2 * N + i, sigma)
        tl.store(results + 3 * N + i, sigma_low)

    n = 1 << 14
    a = torch.cat([torch.rand(n // 2) * 105, torch.rand(n // 2) ** 8 * 10])
    a[:4] = torch.tensor([0.0, 104.5, 1 / 128, 2.0**-149])
    got, want = torch.empty(4, n), torch.empty(4, n)
    store[(1,)](a, got, prepare.tables(a.device)[0].data_ptr() - 16 * pairs.MAGIC_BITS, n)
    assert pairs_in_c().functions(*map(ctypes.c_void_p, (a.data_ptr(), want.data_ptr())), ctypes.c_long(n)) == 0
    assert torch.equal(got.view(torch.int32), want.view(torch.int32))


# Catches a bound of the fast path that its functions do not keep, and a result that it settles wrongly.
def test_the_fast_path_in_c(tmp_path):
    program = build(tmp_path / "pairs", VERIFY / "pairs.c")
    done = subprocess.run([program, "1021"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loss: 0 misrounded" in done.stdout and "gradient: 0 misrounded" in done.stdout


# Catches a bound in C that is not the kernel's.
def test_bounds_are_those_in_c():
    from bce_bridge.torch.triton_kernel import launch

    header = (VERIFY / "pairs.h").read_text()
    function, rounding, _ = launch._PAIR_ERRORS
    term, in_c = (
        re.search(r"PAIRS_TERM_ERROR \((\S+)f \+ (\S+)f\)", header).groups(),
        re.search(r"PAIRS_ROUNDING (\S+)f", header)[1],
    )
    assert np.float32(function) == np.float32(float.fromhex(term[0])) and rounding == float.fromhex(term[1])
    assert rounding == float.fromhex(in_c)


# Catches kernels of which one bit is wrong, as under a Triton that rounds a constant: they must not be used in silence.
@interpreted
def test_kernels_with_other_bits_are_refused():
    from unittest.mock import patch

    from triton.runtime import interpreter

    from bce_bridge import binary_cross_entropy_with_logits
    from bce_bridge.torch import functional
    from bce_bridge.torch.triton_kernel import gives_the_cores_bits

    def clear():
        functional._find_triton_problem.cache_clear()
        gives_the_cores_bits.cache_clear()

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    twice = lambda self, x, y, z: handle(x.data * y.data + z.data, z.dtype.scalar)  # noqa: E731
    clear()
    with patch.object(builder, "create_fma", twice):
        with pytest.raises(RuntimeError, match="backend must not be 'triton' .*: with Triton .* do not give the C core's bits"):
            binary_cross_entropy_with_logits(X, X, backend="triton")
    clear()
    assert binary_cross_entropy_with_logits(X, X, backend="triton").item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ((X, X, None, None, "foo", 0.0), ValueError, "reduction must be 'none', 'mean' or 'sum', got 'foo'"),
        ((X, X, None, None, "sum", 2.0), ValueError, r"label_smoothing must be a number in \[0, 1\], got 2.0"),
        ((X.long(), X, None, None, "sum", 0.0), RuntimeError, "input must have a floating dtype, got torch.int64"),
        ((X, X[0], None, None, "sum", 0.0), RuntimeError, r"target must have the input's shape \(4, 3\), got shape \(3,\)"),
        ((X, X, X.T, None, "sum", 0.0), RuntimeError, r"weight must broadcast to .* \(4, 3\), got shape \(3, 4\)"),
        ((X[0], X[0], None, X, "sum", 0.0), RuntimeError, r"pos_weight must broadcast to .* \(3,\), got shape \(4, 3\)"),
        (
            (X, X + 1j, None, None, "sum", 0.0),
            RuntimeError,
            "target must .*, got a torch.strided tensor of dtype torch.complex64",
        ),
        ((X, X, X.to("meta"), None, "sum", 0.0), RuntimeError, "weight must be on the input's device cpu, got meta"),
        (
            (X[:1, :1].expand(2**18, 2**19),) * 2 + (None, None, "sum", 0.0),
            RuntimeError,
            "input must .* 68719476736 .*, got 137438953472",
        ),
    ],
)
def test_refusals_name_the_argument(arguments, error, text):
    from bce_bridge.torch.triton_kernel import loss_and_gradient

    with pytest.raises(error, match=text):
        loss_and_gradient(*arguments, True)


@pytest.fixture(params=[80, 90, 100], ids="sm_{}".format)
def compiled(request, monkeypatch, tmp_path):
    """A function that compiles, for an architecture, what a call of loss_and_gradient launches: it returns the kernels."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from bce_bridge.torch.triton_kernel import loss_and_gradient

    class Driver:
        def get_current_device(self):
            return request.param  # kernels are kept by device

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", request.param, 32)

    kernels, run = [], JITFunction.run

    def compile_only(self, *arguments, warmup, **options):
        kernels.append(run(self, *arguments, warmup=True, **options))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(JITFunction, "run", compile_only)

    def function(*arguments):
        kernels.clear()
        loss_and_gradient(*arguments)
        return list(kernels)

    return function


def double(number):
    """A float64 as PTX writes it."""
    return "0d" + struct.pack(">d", number).hex().upper()


def check_arithmetic(kernel):
    """Nothing in the compiled kernel is contracted, approximate, flushed, or dependent on an order."""
    ptx = kernel.asm["ptx"]
    assert kernel.asm["cubin"].startswith(b"\x7fELF")
    assert not re.search(r"\.ftz|\.approx|\.full\.", ptx)
    # Without the .rn, ptxas may contract them.
    assert not re.search(r"\b(add|sub|mul)\.f(16|32|64)", ptx)
    # The list's places and the counts of programs done may depend on the order.
    names = re.findall(r"\b(?:atom|red)\.\S+", ptx)
    assert all(name.endswith("add.u64") for name in names), names


def instructions(kernel, folder):
    """The names of the machine's instructions, of the whole kernel."""
    import triton

    (folder / "kernel.cubin").write_bytes(kernel.asm["cubin"])
    nvdisasm = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    sass = subprocess.run([nvdisasm, "-c", folder / "kernel.cubin"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", sass)


# Catches float64 on the fast path, which most cards have at 1/32 or 1/64 of the rate: in PTX and in the machine's code.
def test_the_fast_path_has_no_float64(compiled, monkeypatch, tmp_path, request):
    from bce_bridge.torch.triton_kernel import launch

    monkeypatch.setattr(launch, "FAST_FROM", 1)
    whole = request.node.callspec.id == "sm_90"  # the other kernels take most of the time
    if not whole:
        monkeypatch.setattr(launch.Launch, "_settle", lambda *arguments: None)
    x, c = (torch.empty(shape, dtype=torch.float32, device="meta") for shape in ((50, 48), (48,)))
    half, brain = x.half(), x.bfloat16()
    calls = [
        (x, x, None, None, "mean", 0.0, True),
        (x, x.bool(), c, c, "none", 0.0, True),
        (x.T, x.long().T, None, c[:, None], "sum", 0.1, False),
        (brain, brain, None, None, "mean", 0.0, True),
        (half, x, c, None, "mean", 0.1, True),
    ]
    for arguments in calls:
        kernels = compiled(*arguments)
        assert [kernel.name for kernel in kernels] == ["_evaluate_fast", "_settle", "_settle_sum"][: len(kernels)]
        assert len(kernels) == (1 if not whole else 2 if arguments[4] == "none" else 3)
        for kernel in kernels:
            check_arithmetic(kernel)
        assert ".f64" not in kernels[0].asm["ptx"]
        names = instructions(kernels[0], tmp_path)
        assert {"FFMA", "FFMA2"} & set(names) and not [name for name in names if re.match(r"D(ADD|MUL|FMA|SETP|MNMX)", name)]


# Catches what does not compile, or only with contraction, approximation, flushed subnormals or floating atomics. Each line
# is another specialisation: the tails, settling, more dimensions, every dtype, the forward pass alone, and 64-bit indices.
def test_compiles(compiled, monkeypatch):
    from bce_bridge.torch.triton_kernel import float64, launch

    def empty(dtype, *shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    x, c = empty(torch.float32, 50, 48), empty(torch.float32, 48)
    wide, half, brain = (x.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16))
    huge = empty(torch.bfloat16, 2**26, 48)
    monkeypatch.setattr(launch, "FAST_FROM", 2**62)
    calls = [
        (x, x, None, None, "mean", 0.0, True),
        (x, x, None, None, "none", 0.0, True),
        (x.T, x.bool().T, None, c[:, None], "sum", 0.1, True),
        (wide, wide, wide[0], c, "mean", 0.0, True),
        (half, empty(torch.int64, 50, 48), None, brain, "none", 0.0, True),
        (brain, half, c, None, "mean", 0.0, False),
        (huge, huge, None, c, "mean", 0.0, True),
    ]
    for arguments in calls:
        kernels = compiled(*arguments)
        assert [kernel.name for kernel in kernels] == ["_evaluate", "_round_partial"][: 1 + (arguments[4] != "none")]
        for kernel in kernels:
            check_arithmetic(kernel)
        ptx = kernels[0].asm["ptx"]
        assert len(re.findall(r"\bfma\.rn\.f64", ptx)) > 20
        constants = map(from_bits, float64.EXP_POLYNOMIAL.value + float64.LOG1P_POLYNOMIAL.value)
        assert all(double(number) in ptx or double(-number) in ptx for number in constants)
        assert bool(re.search(r"\b(div|rem)\.[su]64", ptx)) == (arguments[0] is huge)
