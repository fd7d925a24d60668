"""The quick formulae are another way to the same bits: wherever their error could decide, they give way."""

import math
import subprocess

import numpy as np
import pytest
from c_programs import VERIFY
from mpmath import mp
from operands import Operand, chosen, move, storage, weights

from bce_bridge import _abi, core
from bce_bridge.conformance import compare

OPTIONS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-DBCE_SIMD_AVX2"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-DBCE_SIMD_AVX512"],
    "neon": ["-DBCE_SIMD_NEON"],
}


# Catches: a wrong coefficient, or a reciprocal less accurate than the window around ties assumes.
@pytest.mark.parametrize("isa", core.build_info()["isas_supported"])
def test_error_is_below_the_window(isa, tmp_path):
    program = tmp_path / "quick_error"
    subprocess.run(["cc", "-O2", *OPTIONS[isa], VERIFY / "quick_error.c", "-o", program, "-lm"], check=True)
    done = subprocess.run([program, "10007" if isa == "scalar" else "1009"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


FLOATS = ["float32", "float32"]


def evaluate(operands, reduction, label_smoothing, dtypes, quick=True):
    """The bits of loss and gradient. A third result sends the call to the other formulae."""
    shape = operands[0].array.shape
    loss = Operand.of(np.zeros(shape if reduction == "none" else ()), dtypes[0])
    gradient = Operand.of(np.zeros(shape), dtypes[1])
    results = {"loss": loss, "gradient": gradient}
    if not quick:
        results["d_weight"] = Operand.of(np.zeros(shape), "float32")
    described = [operand and operand.describe() for operand in operands]
    _abi.evaluate(*described, label_smoothing, reduction, **{name: result.describe() for name, result in results.items()})
    return loss.bits(), gradient.bits()


# Catches: a window around ties that is too narrow, also where terms cancel; a tie of another format, and of subnormal numbers;
# a result that is rounded twice; the sign of a 0; targets outside [0, 1] and weights that are negative, infinite, NaN or tiny,
# if they are trusted; a smoothed target that is rounded before it is taken from 1; a block whose elements lie elsewhere.
@pytest.mark.parametrize("isa", core.build_info()["isas_supported"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_same_bits_as_the_other_formulae(dtype, isa):
    rng = np.random.default_rng(9)
    special = [0.0, -0.0, 0.5, 1.0, 1e-30, 1e-38, 7e30, 1e-45, 3e-320, -2.0, np.inf, np.nan]
    with chosen(isa, 1):
        for i in range(300):
            shape = [(4099,), (37, 150), (64, 256), (10, 41, 7), (255,), (1 << 17,), (1 << 17,)][rng.integers(7)]
            x = Operand.of(rng.normal(0, rng.choice([1e-13, 1e-8, 1e-3, 1, 4, 30, 300]), shape), dtype)
            numbers = x.array.astype(np.float64) if dtype != "bfloat16" else np.zeros(shape)
            near = 1 / (1 + np.exp(-np.clip(numbers, -700, 700)))  # where the gradient is next to 0
            kinds = [rng.random(shape), near, rng.random(shape) < 0.3, rng.choice([0.0, 1.0, 0.5, 2.0**-30], shape)]
            which = rng.integers(0, 4, shape) if rng.random() < 0.5 else rng.integers(0, 4)
            y = np.choose(which, kinds)
            if rng.random() < 0.2:
                y[rng.random(shape) < 1e-3] = rng.choice([-0.5, 1.5, np.nan, -0.0, 1 + 2.0**-23])
            y = Operand.of(y, rng.choice([dtype, "float32", "float16", "bool", "int64"]))
            given = []
            for _ in range(2):
                kind = rng.choice(["none", "none", "scalar", "row", "full"])
                w = weights(rng, kind, shape)
                if w is not None and rng.random() < 0.8:
                    w = np.abs(w)
                if kind == "scalar":
                    w = np.array(rng.choice(special) if rng.random() < 0.5 else w)
                elif kind == "full":
                    w = rng.integers(0, 2, shape).astype(float) if rng.random() < 0.5 else w  # a mask
                    w = np.where(rng.random(shape) < rng.choice([0, 0, 1e-3]), rng.choice(special), w)
                given.append(None if w is None else Operand.of(w, rng.choice([dtype, "float32", "float64"])))
            operands = [operand and (move(rng, operand) if rng.random() < 0.3 else operand) for operand in (x, y, *given)]
            options = rng.choice(["mean", "sum", "none"]), float(rng.choice([0, 0, 0.1, 1e-12, 1]))
            dtypes = [str(rng.choice([dtype, "float32"])), dtype]
            what = (i, shape, [operand and operand.dtype for operand in operands], options, dtypes)
            assert evaluate(operands, *options, dtypes) == evaluate(operands, *options, dtypes, quick=False), what


# Catches: the sign of a gradient that underflows to 0, taken from terms that cancel; a negative weight, under which the terms
# of a loss cancel, if its result is trusted as if they could not.
def test_same_bits_where_terms_cancel():
    rng = np.random.default_rng(12)
    n = 1 << 14
    halves = Operand.of(np.full(n, 0.5), "float32")
    tiny = Operand.of(rng.choice([-1, 1], n) * 2.0 ** -rng.integers(40, 60, n), "float32")
    small = Operand.of(2.0**-126, "float32")
    for operands in ([tiny, halves, small, None], [tiny, halves, None, small]):
        assert evaluate(operands, "mean", 0.0, FLOATS) == evaluate(operands, "mean", 0.0, FLOATS, quick=False)
    x = rng.normal(0, 2, n).astype(np.float32)
    balance = -np.logaddexp(0, x.astype(np.float64)) / np.logaddexp(0, -x.astype(np.float64))
    operands = [Operand.of(x, "float32"), halves, None, Operand.of(balance, "float32")]
    for reduction in ("none", "sum"):
        assert evaluate(operands, reduction, 0.0, FLOATS) == evaluate(operands, reduction, 0.0, FLOATS, quick=False)


# Catches: a weight among those of a mask that is taken for 0 or 1, in a product of factors 1 + w e^-|x|.
@pytest.mark.parametrize("other", [0.5, 1 + 2.0**-23, 1e-3, 2.0, -1.0, np.inf, np.nan])
def test_a_mask_with_another_weight(other):
    rng = np.random.default_rng(13)
    n = 1 << 12
    x, y = Operand.of(rng.normal(0, 0.1, n), "float32"), Operand.of(rng.integers(0, 2, n), "float32")
    mask = rng.integers(0, 2, n).astype(float)
    for places in (slice(0), slice(7, None, 256), slice(n - 1, None)):
        mask[places] = other
        operands = [x, y, Operand.of(mask, "float32"), None]
        assert evaluate(operands, "sum", 0.0, FLOATS) == evaluate(operands, "sum", 0.0, FLOATS, quick=False)


# Catches: a pos_weight that is 0, subnormal, negative, infinite or NaN, if a block of hard labels is taken with it, or without
# looking at it.
@pytest.mark.parametrize("pos_weight", [0.0, 1e-38, 1e-320, 3.0, 1e38, 1e308, -2.0, np.inf, np.nan])
def test_one_pos_weight_with_hard_labels(pos_weight):
    rng = np.random.default_rng(14)
    n = 1 << 12
    x = Operand.of(rng.normal(0, 5, n), "float32")
    for y in (np.zeros(n), np.ones(n), rng.integers(0, 2, n)):
        operands = [x, Operand.of(y, "float32"), None, Operand.of(pos_weight, "float64")]
        for reduction in ("sum", "mean"):
            expected = evaluate(operands, reduction, 0.0, FLOATS, quick=False)
            assert evaluate(operands, reduction, 0.0, FLOATS) == expected
            alone = core.loss(x.array, y.astype(np.float32), pos_weight=pos_weight, reduction=reduction)
            assert Operand.of(alone, "float32").bits() == expected[0]


# Catches: a sum of quick losses that is not taken again where it lies so near a tie that their error decides its rounding.
# The second logit brings the sum within some 2^-46 of the midpoint of two float32, on either side; others, which add next to
# nothing, make a whole step of it, whose sum is taken as the logarithm of a product.
@pytest.mark.parametrize("others", [0, 30])
def test_sums_next_to_a_tie_are_correctly_rounded(others):
    rng = np.random.default_rng(5)
    for _ in range(1000):
        first = np.float32(rng.uniform(-1, 1))
        loss = math.log1p(math.exp(first))
        unit = float(np.spacing(np.float32(loss)))
        midpoint = (math.floor(loss / unit) + 2.5) * unit
        second = np.float32(math.log(math.expm1(midpoint - loss)))
        for candidate in (np.nextafter(second, np.float32(-100)), second, np.nextafter(second, np.float32(0))):
            logits = np.array([first, candidate] + [-80.0] * others, np.float32)
            targets = np.zeros(len(logits), np.float32)
            wide = core.loss(logits.astype(np.float64), targets.astype(np.float64), reduction="none")
            assert abs(math.fsum(wide) / midpoint - 1) < 2**-40
            assert core.loss(logits, targets, reduction="sum") == np.float32(math.fsum(wide))
            shown, gradient = core.loss_and_grad(logits, targets, reduction="sum")
            assert shown == np.float32(math.fsum(wide))
            assert np.array_equal(gradient, core.loss_and_grad(logits, targets, reduction="none")[1])


# Catches: a product of 1 + e^-|x| that overflows, or in which a small e^-|x| is lost.
@pytest.mark.parametrize("x", [0.0, -1e-3, -3.0, -30.0, -80.0, 0.5, 60.0])
def test_sum_of_many_equal_losses(x):
    for n in (32, 256, 256 * 31, 256 * 32, 100_000, 1_000_003):
        logits, targets = np.full(n, x, np.float32), np.zeros(n, np.float32)
        with mp.workdps(50):
            expected = n * mp.log1p(mp.exp(mp.mpf(float(logits[0]))))
            total = core.loss(logits, targets, reduction="sum")
            assert compare.error_in_ulp(total, expected, "float32") <= 0.5001
            mean, _ = core.loss_and_grad(logits, targets)
            assert compare.error_in_ulp(mean, expected / n, "float32") <= 0.5001


# The same of means, which are divided, as is the error of their sum: by as much and no more. Of two threads the first adds next
# to nothing to the sum, nor to its error. Of 2^15 pairs of last logits that bring the mean near a midpoint the best is taken.
@pytest.mark.parametrize("count, repeat", [(3, 200), (4096, 200), (2**18, 20)])
def test_means_next_to_a_tie_are_correctly_rounded(count, repeat):
    rng = np.random.default_rng(7)
    threads = core.get_num_threads()
    core.set_num_threads(2)
    for _ in range(repeat):
        logits = rng.uniform(-1, 1, count).astype(np.float32)
        if count == 2**18:
            logits[: count // 2] = -60.0
        rest = math.fsum(core.loss(logits[:-2].astype(np.float64), np.zeros(count - 2), reduction="none"))
        pairs = rng.uniform(-1, 1, (2**15, 2)).astype(np.float32)
        first, second = np.logaddexp(0, pairs.astype(np.float64)).T
        unit = float(np.spacing(np.float32((rest + first[0] + second[0]) / count))) * count
        midpoint = (np.floor((rest + first + second) / unit) + 0.5) * unit
        wanted = np.maximum(midpoint - rest - first, 1e-3)
        pairs[:, 1] = np.log(np.expm1(wanted))
        second = np.logaddexp(0, pairs[:, 1].astype(np.float64))
        best = np.argmin(np.abs(rest + first + second - midpoint))
        logits[-2:] = pairs[best]
        exactly = core.Accumulator().update(logits, np.zeros(count))
        assert abs(exactly.sum() / midpoint[best] - 1) < 2**-41
        assert core.loss(logits, np.zeros(count, np.float32)) == exactly.mean(np.float32)
    core.set_num_threads(threads)


# Catches: quick gradients where they are subnormal in their type, whose ties lie elsewhere than those of normal numbers: 1 / n
# and a small weight bring them there though the logits are moderate. Each logit is the one at which the gradient is closest to
# a tie between two subnormal numbers.
@pytest.mark.parametrize("kind", ["none", "one", "of each class"])
@pytest.mark.parametrize("dtype, least, bits", [("float16", -24, 10), ("float32", -149, 23), ("bfloat16", -133, 7)])
def test_subnormal_gradients_next_to_a_tie_have_the_same_bits(dtype, least, bits, kind):
    n = 1024
    counts = np.sort(np.random.default_rng(8).integers(2 ** (bits - 3), 2**bits, n))  # so that each block has its own range
    with mp.workprec(400):
        ties = [(2 * int(k) + 1) * mp.mpf(2) ** (least - 1) for k in counts]
        small = 0.125 if dtype == "float16" else 2.0**-99
        pos_weight = {"none": None, "one": small, "of each class": (small, small)}[kind]
        sigmas = [tie * n / (small if pos_weight else 1) for tie in ties]
        logits = np.array([float(mp.log(sigma / (1 - sigma))) for sigma in sigmas], np.float32)
    if pos_weight is not None:
        logits = -logits
    logits, targets = logits.reshape(-1, 2), np.full((n // 2, 2), pos_weight is not None, np.float32)
    pos_weight = pos_weight and Operand.of(pos_weight, "float64")
    operands = [Operand.of(logits, "float32"), Operand.of(targets, "float32"), None, pos_weight]
    got, expected = (evaluate(operands, "mean", 0.0, ["float32", dtype], quick) for quick in (True, False))
    assert got == expected and np.count_nonzero(np.frombuffer(got[1], storage(dtype))) == n


# Catches: targets outside [0, 1] taken by formulae whose error is judged by a sum that has no negative terms. The loss is next
# to 0 at y = softplus(x) / x.
def test_losses_that_cancel_are_not_taken_quickly():
    rng = np.random.default_rng(11)
    for x in rng.uniform(0.5, 5, 1000).astype(np.float32):
        logits = np.full(32, x)
        targets = np.full(32, np.logaddexp(0, float(x)) / float(x), np.float32)
        assert core.loss(logits, targets, reduction="sum") == core.Accumulator().update(logits, targets).sum(np.float32)


# Catches: a total that takes quick and other blocks together wrongly, or loses one.
def test_mean_of_hard_soft_and_infinite_blocks():
    rng = np.random.default_rng(6)
    for n in (1, 31, 32, 33, 255, 256, 257, 1000, 5000, 300000):
        logits = (rng.standard_normal(n) * 5).astype(np.float32)
        targets = (rng.random(n) < 0.3).astype(np.float32)
        targets[n // 2 :: 777] = 0.5
        masked = rng.random(n) < 1e-3
        logits[masked], targets[masked] = -np.inf, 0
        expected = core.Accumulator().update(logits, targets)
        assert core.loss(logits, targets) == expected.mean(np.float32)
        assert core.loss(logits, targets, reduction="sum") == expected.sum(np.float32)
        shifted = -1.0 + 2.0 * targets  # negative losses beside quick ones: their sum may cancel
        mixed = np.where(np.arange(n) < n // 2, targets, shifted).astype(np.float32)
        expected = core.Accumulator().update(logits, mixed)
        assert core.loss(logits, mixed, reduction="sum") == expected.sum(np.float32)
