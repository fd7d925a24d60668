"""The quick formulae for hard labels are another way to the same bits: wherever their error could decide, they give way."""

import math
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from mpmath import mp
from operands import chosen

from bce_bridge import binary_cross_entropy_with_logits, core
from bce_bridge.conformance import compare

VERIFY = Path(__file__).resolve().parents[2] / "c_src/verify"
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


def problem(dtype, n, seed, spread=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, generator=generator) * spread).to(dtype)
    return logits, torch.randint(0, 2, (n,), generator=generator).to(dtype)


# Catches: a window around ties that is too narrow, a wrong limit for underflow to subnormal numbers, a tie of another format.
# One soft label in each block of 256 sends the block to the other formulae; its own element is left out.
@pytest.mark.parametrize("pos_weight", [None, 3.0, 1e-30, 7e30, 0.0, -2.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_same_bits_as_beside_a_soft_label(dtype, pos_weight):
    dtype = getattr(torch, dtype)
    weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float64)
    for seed, (n, spread) in enumerate([(1 << 20, 4.0), (1 << 18, 0.001), (1 << 18, 30.0), (4099, 4.0), (1 << 18, 1e-8)]):
        logits, hard = problem(dtype, n, seed, spread)
        soft = hard.clone()
        soft[::256] = 0.25
        keep = torch.ones(n, dtype=torch.bool)
        keep[::256] = False
        for divisor in ("none", "mean"):
            results = []
            for targets in (hard, soft):
                x = logits.clone().requires_grad_()
                loss = binary_cross_entropy_with_logits(x, targets, reduction=divisor, pos_weight=weight)
                loss.backward(torch.ones_like(loss))
                results.append((loss.detach(), x.grad))
            (loss, gradient), (loss_beside, gradient_beside) = results
            if divisor == "none":
                assert torch.equal(loss[keep], loss_beside[keep])
            assert torch.equal(gradient[keep], gradient_beside[keep])


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
# a tie between two subnormal numbers. A weight, even of 1, sends a call to the other formulae.
@pytest.mark.parametrize("pos_weight", [None, 0.125, (0.125, 0.125)])  # the last one a number for each of two classes
@pytest.mark.parametrize("dtype, least, bits", [("float16", -24, 10), ("float32", -149, 23), (ml_dtypes.bfloat16, -133, 7)])
def test_subnormal_gradients_next_to_a_tie_have_the_same_bits(dtype, least, bits, pos_weight):
    n = 1024
    counts = np.sort(np.random.default_rng(8).integers(2 ** (bits - 3), 2**bits, n))  # so that each block has its own range
    with mp.workprec(400):
        ties = [(2 * int(k) + 1) * mp.mpf(2) ** (least - 1) for k in counts]
        sigmas = [tie * n / (0.125 if pos_weight else 1) for tie in ties]
        logits = np.array([float(mp.log(sigma / (1 - sigma))) for sigma in sigmas], np.float32)
    if pos_weight is not None:
        logits = -logits
    logits, targets = logits.reshape(-1, 2), np.full((n // 2, 2), pos_weight is not None, np.float32)
    got, expected = np.empty((2, n // 2, 2), dtype)
    core.loss_and_grad(logits, targets, pos_weight=pos_weight, out=got)
    core.loss_and_grad(logits, targets, 1.0, pos_weight, out=expected)
    assert np.count_nonzero(got) == n and np.array_equal(got, expected)


# Catches: a narrow result that is rounded to float32 and then again, which some of a million float32 logits show; float64
# logits that are rounded to float32. A weight sends a call to the other formulae.
@pytest.mark.parametrize("logits_dtype", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32"], ids=str)
def test_narrow_results_are_rounded_once(dtype, logits_dtype):
    rng = np.random.default_rng(9)
    logits, targets = rng.normal(0, 2, 2**20).astype(logits_dtype), rng.integers(0, 2, 2**20).astype(dtype)
    got, expected = np.empty((2, 2**20), dtype)
    losses, _ = core.loss_and_grad(logits, targets, reduction="none", out=got)
    wanted, _ = core.loss_and_grad(logits, targets, 1.0, reduction="none", out=expected)
    assert losses.dtype == dtype and np.array_equal(losses, wanted) and np.array_equal(got, expected)


# Catches: a gradient at a soft or smoothed target whose cancelling terms are trusted too far, a smoothed target that is rounded
# before it is taken from 1, a target outside [0, 1] that goes the quick way. A result that overwrites an operand sends a call
# to the other formulae.
@pytest.mark.parametrize("isa", core.build_info()["isas_supported"])
@pytest.mark.parametrize("label_smoothing", [0.0, 1e-12, 0.1, 1.0])
def test_soft_targets_have_the_bits_of_the_other_formulae(label_smoothing, isa):
    rng = np.random.default_rng(10)
    n = 1 << 18
    with chosen(isa, 1):
        for spread in (1e-6, 1.0, 10.0, 40.0):
            logits = (rng.standard_normal(n) * spread).astype(np.float32)
            near = 1 / (1 + np.exp(-logits.astype(np.float64)))  # where the gradient is next to 0
            kinds = [rng.random(n), near, logits > 0, rng.choice([0.0, 1.0, 2.0**-30], n)]
            targets = np.choose(rng.integers(0, 4, n), kinds).astype(np.float32)
            for outside in (False, True):
                if outside:
                    targets[::512] = rng.choice([-0.5, 1.5, np.nan], n // 512)
                for options in ({"reduction": "mean"}, {"reduction": "sum"}):
                    options["label_smoothing"] = label_smoothing
                    gradient, other = np.empty_like(logits), logits.copy()
                    loss, _ = core.loss_and_grad(logits, targets, out=gradient, **options)
                    wanted, _ = core.loss_and_grad(other, targets, out=other, **options)
                    assert np.array_equal([loss, core.loss(logits, targets, **options)], [wanted, wanted], equal_nan=True)
                    assert np.array_equal(gradient, other, equal_nan=True)


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
