"""The NumPy front end: values against mpmath, limits, broadcasting, memory layouts, sums, and every refusal."""

import itertools
import math
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from mpmath import mp

from bce_bridge import _abi, core
from bce_bridge.conformance import compare, exact

INF, NAN = math.inf, math.nan


def errors(got, values, dtype):
    return [compare.error_in_ulp(g, v, dtype) for g, v in zip(np.ravel(got), values)]


def elements(x, y, w=None, p=None):
    """The exact (loss, gradient, ...) of each element, by mpmath."""
    x = np.asarray(x)
    operands = [np.broadcast_to(1.0 if a is None else a, x.shape).ravel() for a in (x, y, w, p)]
    with mp.workprec(exact.PRECISION):
        return [exact.element(*numbers) for numbers in zip(*operands)]


def hostile_logits(rng, n):
    """Dense, near 0, log-spaced, near multiples of log(2), in both tails, subnormal."""
    sign = rng.choice([-1.0, 1.0], n)
    return np.concatenate(
        [
            rng.normal(0, 3, n),
            rng.uniform(-0.01, 0.01, n),
            sign * np.exp(rng.uniform(-300, np.log(745), n)),
            np.round(rng.uniform(-50, 50, n)) * np.log(2) + rng.normal(0, 1e-3, n),
            rng.uniform(-745.2, -690, n // 4),
            rng.uniform(30, 800, n // 4),
            sign[: n // 4] * 5e-324 * rng.integers(0, 100, n // 4),
        ]
    )


# Catches: a wrong polynomial, a lost compensation, a double rounding. 2 ULP is the contract for float64 at hard labels.
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("dtype, bound", [("float64", 2.0), ("float32", 0.5001)])
def test_hard_labels_are_within_the_contract(label, dtype, bound):
    x = hostile_logits(np.random.default_rng(7), 1500).astype(dtype)
    y = np.full(x.shape, label, dtype)
    loss, gradient = core.loss_and_grad(x, y, reduction="none")
    losses, gradients, *_ = zip(*elements(x, y))
    assert loss.dtype == gradient.dtype == dtype
    assert max(errors(loss, losses, dtype)) <= bound
    assert max(errors(gradient, gradients, dtype)) <= bound


# Catches an infinite weight that is multiplied by an e^-|x| of 0, and a zero that does not silence it.
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_infinite_weights(dtype):
    infinite, two = np.array(np.inf, dtype), np.array(2, dtype)
    for x in np.array([-1e4, -701.0, -1.0, 1.0, 701.0, 1e4], dtype)[:, None]:
        for y in np.array([0.0, 0.5, 1.0], dtype)[:, None]:
            assert core.loss(x, y, infinite) == np.inf, (x, y)
        loss, gradient = core.loss_and_grad(x, np.zeros_like(x), two, infinite)
        assert np.isfinite(loss) and np.isfinite(gradient[0]), x
    for x in np.array([-1e4, -701.0, 701.0, 1e4], dtype)[:, None]:
        for y in np.array([0.0, 1.0], dtype)[:, None]:
            _, gradient = core.loss_and_grad(x, y, infinite)
            assert gradient[0] == (np.inf if y == 0 else -np.inf), (x, y)


# Catches a product that overflows before e^-x makes it small, also times a mantissa of up to the square root of 2; a float32
# result of a subnormal e^-x, or one of 0.
@pytest.mark.parametrize("dtype, bound", [("float64", 4.0), ("float32", 0.5001)])
@pytest.mark.parametrize("label", [0.0, 0.25, 1.0])
def test_largest_weights_in_the_tails(label, dtype, bound):
    x = np.concatenate([sign * np.linspace(700.5, 760.0, 90) for sign in (-1.0, 1.0)]).astype(dtype)
    w = np.array([1.2e308, 1.7e308, np.finfo(float).max])[np.arange(180) % 3]
    cheap = x * (1 - 2 * label) < 0  # the term that remains is the small one
    x, w = (x[cheap], w[cheap]) if label in (0.0, 1.0) else (x, w / 1000)
    y = np.full(x.shape, label, dtype)
    losses, gradients, *_ = zip(*elements(x, label, w))
    curvatures = [mp.mpf(w) * mp.exp(-abs(mp.mpf(float(x)))) for x, w in zip(x, w)]
    assert max(errors(core.curvature(x, y, w, reduction="none"), curvatures, dtype)) <= bound
    if dtype == "float64" or label != 0.25:  # else they are beyond float32
        for results, values in zip(core.loss_and_grad(x, y, w, reduction="none"), (losses, gradients)):
            assert max(errors(results, values, dtype)) <= bound


# Catches bytes that are taken to be in this machine's order.
def test_any_byte_order():
    x, y = np.array([1.5, -2.0, 30.0]), np.array([0.0, 1.0, 1.0])
    for dtype in map(np.dtype, ("float16", "float32", "float64", ml_dtypes.bfloat16)):
        swapped = dtype.newbyteorder("S")
        assert not swapped.isnative
        native = x.astype(dtype)
        foreign = native.view(f"u{dtype.itemsize}").byteswap().view(swapped)
        assert np.array_equal(core.loss(foreign, y, reduction="none"), core.loss(native, y, reduction="none"))


# Catches: a coefficient rounded once too often. The loss has no cancelling terms for y in [0, 1] and w, p >= 0.
@pytest.mark.parametrize("dtype, bound", [("float64", 4.0), ("float32", 0.5001)])
def test_soft_labels_and_weights_are_within_the_contract(dtype, bound):
    rng = np.random.default_rng(8)
    x = hostile_logits(rng, 800)
    x = x[np.abs(x) < 700].astype(dtype)
    y, w, p = (rng.uniform(0, high, x.shape).astype(dtype) for high in (1, 5, 20))
    loss, gradient = core.loss_and_grad(x, y, w, p, "none")
    curvature = core.curvature(x, y, w, p, "none")
    rows = elements(x, y, w, p)
    assert max(errors(loss, [row[0] for row in rows], dtype)) <= bound
    with mp.workprec(exact.PRECISION):
        for got, (_, value, _, terms, *_) in zip(gradient, rows):
            allowed = bound * compare.ulp(value, dtype) + 4 * mp.mpf(2) ** -53 * terms
            assert abs(mp.mpf(float(got)) - value) <= allowed
        for got, *numbers in zip(curvature, x, y, w, p):
            x1, y1, w1, p1 = (mp.mpf(float(number)) for number in numbers)
            t = mp.exp(-abs(x1))
            value = w1 * (1 - y1 + p1 * y1) * t / (1 + t) ** 2
            assert compare.error_in_ulp(got, value, dtype) <= bound


# Catches: libtorch's NaN at infinite logits, a NaN that is lost, a weight of 0 that does not silence.
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "x, y, w, p, loss, gradient",
    [
        (INF, 1, 1, 1, 0, 0),
        (-INF, 0, 1, 1, 0, 0),
        (INF, 0, 1, 1, INF, 1),
        (-INF, 1, 1, 1, INF, -1),
        (INF, 0, 2, 3, INF, 2),
        (-INF, 1, 2, 3, INF, -6),
        (INF, 0.5, 1, 1, INF, 0.5),
        (-INF, 0.5, 1, 1, INF, -0.5),
        (INF, 0, 0, 1, 0, 0),
        (-INF, 1, 0, 1, 0, 0),
        (-INF, 1, 1, 0, 0, 0),
        (-INF, 0.5, 1, 0, 0, 0),
        (3, 0.5, 0, 2, 0, 0),
        (1, 0, 1, INF, math.log1p(math.e), 1 / (1 + math.exp(-1))),
        (1, INF, 0, 1, 0, 0),
        (NAN, 0, 1, 1, NAN, NAN),
        (NAN, 1, 1, 1, NAN, NAN),
        (NAN, 0, 0, 0, NAN, NAN),
        (1, NAN, 1, 1, NAN, NAN),
        (1, NAN, 0, 1, NAN, NAN),
        (1, 0, NAN, 1, NAN, NAN),
        (1, 0, 1, NAN, NAN, NAN),
        (1, 1, 0, NAN, NAN, NAN),
        (INF, 1, NAN, 1, NAN, NAN),
    ],
)
def test_limits(dtype, x, y, w, p, loss, gradient):
    x, y, w, p = (np.array([a], dtype) for a in (x, y, w, p))
    expected = np.array([loss], dtype), np.array([gradient], dtype)
    for weight in (w, None) if w == 1 else (w,):
        for pos_weight in (p, None) if p == 1 else (p,):
            got = core.loss_and_grad(x, y, weight, pos_weight, "none")
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(core.loss(x, y, weight, pos_weight, "sum"), expected[0][0])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_empty(shape):
    x = np.zeros(shape, np.float32)
    loss, gradient = core.loss_and_grad(x, x, reduction="none")
    assert loss.shape == gradient.shape == shape
    assert np.isnan(core.loss(x, x)) and core.loss(x, x).dtype == np.float32
    assert core.loss(x, x, reduction="sum") == 0
    assert core.loss_and_grad(x, x)[1].shape == shape


# Catches: an element that does not exist mixing into a sum, wrong strides, a wrong alignment of dimensions.
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (3, 1), (1, 4), (2, 3, 4), (2, 1, 3, 2), (7, 300), (300, 7)])
def test_broadcasting_equals_expanding(shape):
    rng = np.random.default_rng(len(shape))
    x, y = rng.normal(size=shape), rng.uniform(size=shape)
    narrow = [
        tuple(n if keep else 1 for n, keep in zip(shape[drop:], keeps))
        for drop in range(len(shape) + 1)
        for keeps in itertools.product([True, False], repeat=len(shape) - drop)
    ]
    for w_shape, p_shape in zip(narrow, reversed(narrow)):
        w, p = rng.uniform(size=w_shape), rng.uniform(size=p_shape)
        full = [np.broadcast_to(a, shape).copy() for a in (w, p)]
        for reduction in ("none", "mean", "sum"):
            got = core.loss_and_grad(x, y, w, p, reduction)
            expected = core.loss_and_grad(x, y, *full, reduction)
            for a, b in zip(got, expected):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


# Catches: assuming contiguity, alignment or native byte order.
def test_memory_layouts_give_the_same_bits():
    rng = np.random.default_rng(3)
    x, y, w = rng.normal(0, 4, (6, 10, 7)), rng.uniform(size=(6, 10, 7)), rng.uniform(size=(10, 1))
    expected = core.loss_and_grad(x, y, w, reduction="none")
    total = core.loss(x, y, w, reduction="sum")
    misaligned = np.ndarray(x.shape, np.float64, b"\0" + x.tobytes(), offset=1)
    frozen = x.copy()
    frozen.flags.writeable = False
    spread = np.zeros((12, 20, 21))[::2, ::2, ::3]
    spread[...] = x
    layouts = {
        "Fortran": np.asfortranarray(x),
        "transposed": np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1),
        "reversed": np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
        "spread": spread,
        "misaligned": misaligned,
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
        "read-only": frozen,
    }
    for name, layout in layouts.items():
        assert layout.shape == x.shape, name
        for a, b in zip(core.loss_and_grad(layout, y, w, reduction="none"), expected):
            assert np.ascontiguousarray(a).tobytes() == b.tobytes(), name
        assert core.loss(layout, y, w, reduction="sum") == total, name


@pytest.mark.parametrize("x_dtype, y_dtype", list(itertools.product(["float16", "float32", "float64"], repeat=2)))
def test_mixed_floats_compute_in_float64_and_round_once(x_dtype, y_dtype):
    rng = np.random.default_rng(5)
    x, y = rng.normal(0, 3, 700).astype(x_dtype), rng.uniform(size=700).astype(y_dtype)
    loss, gradient = core.loss_and_grad(x, y, reduction="none")
    wide_loss, wide_gradient = core.loss_and_grad(x.astype(float), y.astype(float), reduction="none")
    assert loss.dtype == y_dtype and gradient.dtype == x_dtype
    np.testing.assert_array_equal(loss, wide_loss.astype(y_dtype))
    np.testing.assert_array_equal(gradient, wide_gradient.astype(x_dtype))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integer_targets_and_weights(dtype):
    x = np.linspace(-3, 3, 40, dtype=np.float32)
    y = (np.arange(40) % 2).astype(dtype)
    expected = core.loss_and_grad(x, y.astype(np.float32), y.astype(np.float32), y.astype(np.float32), "none")
    got = core.loss_and_grad(x, y, y, y, "none")
    assert got[0].dtype == got[1].dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_float16_conversions_are_numpys():
    """All 65,536 numbers in, and results over the whole range out, subnormal and overflowing ones too."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    y = np.zeros(every.shape, np.float16)
    loss, gradient = core.loss_and_grad(every, y, reduction="none")
    wide_loss, wide_gradient = core.loss_and_grad(every.astype(np.float64), y.astype(np.float64), reduction="none")
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(loss, wide_loss.astype(np.float16))
        np.testing.assert_array_equal(gradient, wide_gradient.astype(np.float16))
        w = np.exp(np.linspace(-30, 30, 5000))
        narrow = core.loss(np.zeros(5000, np.float16), np.zeros(5000, np.float16), w, reduction="none")
        wide = core.loss(np.zeros(5000), np.zeros(5000), w, reduction="none")
        np.testing.assert_array_equal(narrow, wide.astype(np.float16))


def test_lists_and_numbers():
    assert core.loss(0.0, 0.0) == core.loss([0], [0]) == core.loss(np.float64(0), 0) == math.log(2)
    assert core.loss(np.float32([1, 2]), [0, 1]).dtype == np.float32
    assert core.loss([[1.0], [2.0]], [[0.5], [1]], reduction="none").shape == (2, 1)


# Catches: recursive, pairwise or compensated summation, whose last bits depend on order and size.
def test_sums_are_correctly_rounded():
    rng = np.random.default_rng(11)
    for n in (1, 31, 32, 33, 255, 256, 257, 1000, 70001):
        x, y = rng.normal(0, 10, n), rng.uniform(size=n)
        w = rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n)
        for weight in (None, w):
            losses = core.loss(x, y, weight, reduction="none")
            assert core.loss(x, y, weight, reduction="sum") == math.fsum(losses), n
            order = rng.permutation(n)
            shuffled = core.loss(x[order], y[order], None if weight is None else weight[order], reduction="sum")
            assert shuffled == math.fsum(losses)


# Catches: a sum that is only nearly exact: cancellation to nothing, ties decided by a far digit, subnormal numbers.
@pytest.mark.parametrize(
    "terms",
    [
        [1e300, 1.0, -1e300],
        [1.0, 2.0**-53, 2.0**-106],
        [1.0, 2.0**-53, -(2.0**-106)],
        [1.0, 2.0**-53, 5e-324],
        [5e-324] * 3 + [-5e-324],
        [2.0**1023, 2.0**1023, -(2.0**1023)],
        [1.7e308, 1.7e308],
        [2.0**-1022, -(2.0**-1074)],
        [1e16, 1.0, 1.0, -1e16] * 100,
        [2.0**k * (-1) ** k for k in range(-1074, 1000, 7)],
    ],
)
def test_hostile_sums(terms):
    # No weights give these very losses, so the partial sum takes the numbers themselves.
    partial = _abi.ffi.new("bce_partial *")
    _abi.lib.bce_partial_add(partial, _abi.ffi.new("double[]", terms), len(terms))
    result = _abi.ffi.new("double *")
    assert _abi.lib.bce_partial_round(partial, _abi.lib.BCE_SUM, _abi.lib.BCE_FLOAT64, result) == _abi.lib.BCE_OK
    with mp.workprec(4000):
        exact_sum = mp.fsum(mp.mpf(t) for t in terms)
        assert compare.error_in_ulp(result[0], exact_sum, "float64") <= 0.5
        assert _abi.lib.bce_partial_round(partial, _abi.lib.BCE_MEAN, _abi.lib.BCE_FLOAT64, result) == _abi.lib.BCE_OK
        mean = exact_sum / len(terms)
        assert compare.error_in_ulp(result[0], mean, "float64") <= 0.5


def test_mean_is_the_exact_sum_divided_and_rounded_once():
    rng = np.random.default_rng(12)
    for n in (3, 7, 1000, 4099):
        x, y = rng.normal(0, 5, n), rng.integers(0, 2, n)
        with mp.workprec(200):
            mean = mp.fsum(mp.mpf(float(v)) for v in core.loss(x, y, reduction="none")) / n
            assert compare.error_in_ulp(core.loss(x, y), mean, "float64") <= 0.5
            single = core.loss(x.astype(np.float32), y, reduction="none")
            wide = core.loss(x.astype(np.float32).astype(float), y, reduction="none")
            mean = mp.fsum(mp.mpf(float(v)) for v in wide) / n
            assert single.dtype == np.float32
            assert compare.error_in_ulp(core.loss(x.astype(np.float32), y), mean, "float32") <= 0.5


def test_label_smoothing_is_the_smoothed_target():
    x, y = np.linspace(-5, 5, 64), np.tile([0.0, 1.0], 32)
    for e in (0.0, 0.25, 1.0):
        got = core.loss_and_grad(x, y, label_smoothing=e)
        expected = core.loss_and_grad(x, y * (1 - e) + e / 2)
        for a, b in zip(got, expected):
            np.testing.assert_array_equal(a, b)


# Catches 1 - y' taken from a rounded y' near 1, which loses e. Each coefficient is within 3 u, u = 2^-53, and the loss of exact
# coefficients within 4 ULP, as is the gradient of its terms.
@pytest.mark.parametrize("label", [0.0, 0.375, 1.0])
@pytest.mark.parametrize("e", [1e-300, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0])
def test_label_smoothing_does_not_cancel(e, label):
    x = np.concatenate([np.linspace(-60, 60, 241), [-750.0, -699.0, 699.0, 750.0]])
    weights = None, np.linspace(0.5, 3.0, x.size)
    for w in weights:
        loss, gradient = core.loss_and_grad(x, np.full(x.shape, label), w, reduction="none", label_smoothing=e)
        single = core.loss(x.astype(np.float32), np.full(x.shape, label, np.float32), w, reduction="none", label_smoothing=e)
        with mp.workprec(1400):
            smoothed = mp.mpf(label) * (1 - mp.mpf(e)) + mp.mpf(e) / 2
            for i, number in enumerate(map(mp.mpf, x)):
                scale = 1 if w is None else mp.mpf(w[i])
                negative, positive = scale * (1 - smoothed), scale * smoothed
                value = negative * mp.log1p(mp.exp(number)) + positive * mp.log1p(mp.exp(-number))
                assert compare.error_in_ulp(loss[i], value, "float64") <= 7
                assert compare.error_in_ulp(single[i], value, "float32") <= 0.5001
                terms = negative / (1 + mp.exp(-number)), positive / (1 + mp.exp(number))
                assert abs(gradient[i] - (terms[0] - terms[1])) <= 8 * mp.mpf(2) ** -53 * sum(terms)


def test_derivatives_with_respect_to_targets_and_weights():
    """The core's other derivatives, against central differences in 200-bit arithmetic."""
    rng = np.random.default_rng(13)
    operands = [rng.normal(0, 4, 300), rng.uniform(size=300), rng.uniform(size=300), rng.uniform(0, 9, 300)]
    results = {name: np.empty(300) for name in ("d_targets", "d_weight", "d_pos_weight", "curvature")}
    _abi.evaluate(
        *map(core._describe, operands), 0.0, "none", **{name: core._describe(array) for name, array in results.items()}
    )
    step = mp.mpf(2) ** -60
    for i, numbers in enumerate(zip(*operands)):
        with mp.workprec(400):

            def f(k, sign, of, numbers=numbers):
                moved = [mp.mpf(float(number)) for number in numbers]
                moved[k] += sign * step
                x, y, w, p = moved
                t = mp.exp(-x)
                return {
                    "loss": w * ((1 - y) * mp.log1p(1 / t) + p * y * mp.log1p(t)),
                    "gradient": w * ((1 - y) / (1 + t) - p * y * t / (1 + t)),
                }[of]

            for k, name, of in (
                (1, "d_targets", "loss"),
                (2, "d_weight", "loss"),
                (3, "d_pos_weight", "loss"),
                (0, "curvature", "gradient"),
            ):
                value = (f(k, 1, of) - f(k, -1, of)) / (2 * step)
                scale = max(abs(value), mp.mpf(abs(numbers[0])) * numbers[2] if name == "d_targets" else mp.mpf(0))
                assert abs(mp.mpf(results[name][i]) - value) <= 6 * mp.mpf(2) ** -53 * scale, (name, i)


A = np.zeros((4, 3))


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (([1.0, 2.0], [1.0]), ValueError, r"targets must have the logits' shape \(2,\), got shape \(1,\)"),
        ((A, A.T), ValueError, r"targets must have the logits' shape \(4, 3\), got shape \(3, 4\)"),
        ((A, A, np.ones(4)), ValueError, r"weight must broadcast to the logits' shape \(4, 3\), got shape \(4,\)"),
        ((A, A, None, np.ones((5, 3))), ValueError, r"pos_weight must broadcast to the logits' .*, got shape \(5, 3\)"),
        ((A, A, np.ones((2, 4, 3))), ValueError, r"weight must broadcast to the logits' shape \(4, 3\), got shape \(2, 4, 3\)"),
        ((A[:1], A[:1], np.ones((4, 3))), ValueError, r"weight must broadcast to .* \(1, 3\), got shape \(4, 3\)"),
        ((A, A, np.ones(0)), ValueError, r"weight must broadcast to the logits' shape \(4, 3\), got shape \(0,\)"),
        ((A, A, None, None, "foo"), ValueError, "reduction must be 'none', 'mean' or 'sum', got 'foo'"),
        ((A, A, None, None, None), ValueError, "reduction must be 'none', 'mean' or 'sum', got None"),
        ((A, A, None, None, ["mean"]), ValueError, r"reduction must be 'none', 'mean' or 'sum', got \['mean'\]"),
        ((None, A), TypeError, "logits must be an array of real numbers, got None"),
        ((A, None), TypeError, "targets must be an array of real numbers, got None"),
        ((A + 1j, A), TypeError, "logits must have a real dtype, got complex128"),
        ((A, A.astype(str)), TypeError, "targets must have a real dtype, got <U"),
        ((A, A.astype(object)), TypeError, "targets must have a real dtype, got object"),
        ((A, A, "three"), TypeError, "weight must have a real dtype, got <U5"),
        ((A, A, None, np.ones(3, "M8[s]")), TypeError, "pos_weight must have a real dtype, got datetime64"),
        ((A > 0, A), TypeError, "logits must have a real dtype, got bool"),
        ((np.ma.masked_array(A), A), TypeError, "logits must have no mask, got a masked array: fill it"),
        ((A.astype(np.longdouble), A), TypeError, "logits must have a dtype that float64 can hold, got (float128|longdouble)"),
        (([[1.0, 2.0], [3.0]], A), ValueError, "logits must be an array: "),
        (({"a": 1}, A), TypeError, "logits must have a real dtype, got object"),
    ],
)
def test_refusals_name_the_argument(arguments, error, text):
    for function in (core.loss, core.loss_and_grad, core.curvature):
        with pytest.raises(error, match=text):
            function(*arguments)


@pytest.mark.parametrize("e", [-0.1, 1.1, NAN, INF])
def test_label_smoothing_outside_0_1_is_refused(e):
    with pytest.raises(ValueError, match=rf"^label_smoothing must be a number in \[0, 1\], got {e}$"):
        core.loss(A, A, label_smoothing=e)


# Catches cffi's own text, which names no argument.
@pytest.mark.parametrize("e", ["a", None, [0.5], 0.5j, True])
def test_label_smoothing_that_is_no_number_is_refused(e):
    for function in (core.loss, core.loss_and_grad, core.curvature, core.Accumulator().update):
        with pytest.raises(TypeError, match=rf"^label_smoothing must be a number in \[0, 1\], got {re.escape(repr(e))}$"):
            function(A, A, label_smoothing=e)
    for number in (1, np.float32(0.5), np.int8(0)):
        assert core.loss(A, A, label_smoothing=number) == core.loss(A, A, label_smoothing=float(number))


def test_core_refuses_what_no_binding_should_send():
    """The C API on its own: null pointers, unknown enumerators, sizes that overflow, negative dimensions."""
    ffi, lib = _abi.ffi, _abi.lib
    message = ffi.new("char[]", lib.BCE_MESSAGE_SIZE)
    results = ffi.new("bce_results *")
    assert lib.bce_evaluate(ffi.NULL, results, message) == lib.BCE_ERROR_ARGUMENT
    assert lib.bce_evaluate(ffi.new("bce_arguments *"), ffi.NULL, ffi.NULL) == lib.BCE_ERROR_ARGUMENT

    partial = ffi.new("bce_partial *")
    assert lib.bce_partial_add(ffi.NULL, ffi.NULL, 0) == lib.BCE_ERROR_ARGUMENT
    assert lib.bce_partial_add(partial, ffi.NULL, 1) == lib.BCE_ERROR_ARGUMENT
    assert lib.bce_partial_add(partial, ffi.NULL, 0) == lib.BCE_OK
    assert lib.bce_partial_merge(ffi.NULL, partial) == lib.BCE_ERROR_ARGUMENT
    assert lib.bce_partial_merge(partial, ffi.NULL) == lib.BCE_ERROR_ARGUMENT
    assert lib.bce_partial_round(ffi.NULL, lib.BCE_SUM, lib.BCE_FLOAT64, partial) == lib.BCE_ERROR_ARGUMENT

    number = ffi.new("double *")
    good = {
        "data": number,
        "dtype": lib.BCE_FLOAT64,
        "ndim": 1,
        "shape": ffi.new("int64_t[]", [1]),
        "strides": ffi.new("int64_t[]", [8]),
    }
    huge = ffi.new("int64_t[]", [2**40, 2**40])
    for change, status in [
        ({"data": ffi.NULL}, lib.BCE_ERROR_ARGUMENT),
        ({"dtype": 77}, lib.BCE_ERROR_DTYPE),
        ({"dtype": lib.BCE_BOOL}, lib.BCE_ERROR_DTYPE),
        ({"ndim": -1}, lib.BCE_ERROR_SHAPE),
        ({"ndim": 65}, lib.BCE_ERROR_SHAPE),
        ({"shape": ffi.new("int64_t[]", [-1])}, lib.BCE_ERROR_SHAPE),
        ({"shape": ffi.NULL}, lib.BCE_ERROR_ARGUMENT),
        ({"ndim": 2, "shape": huge, "strides": huge}, lib.BCE_ERROR_SHAPE),
    ]:
        arguments = ffi.new("bce_arguments *", {"logits": {**good, **change}, "targets": good})
        assert lib.bce_evaluate(arguments, results, message) == status, change
        assert ffi.string(message).startswith(b"logits")
    arguments = ffi.new("bce_arguments *", {"logits": good, "targets": good, "reduction": 5})
    assert lib.bce_evaluate(arguments, results, message) == lib.BCE_ERROR_ARGUMENT


def test_nothing_is_written_on_an_error():
    x, out = np.zeros(3), np.full(3, 7.0)
    with pytest.raises(ValueError, match="weight"):
        _abi.evaluate(
            core._describe(x), core._describe(x), core._describe(np.ones(2)), None, 0.0, "none", loss=core._describe(out)
        )
    assert (out == 7).all()


def test_results_are_plain_and_picklable():
    loss, gradient = core.loss_and_grad([1.0, 2.0], [0, 1])
    assert type(loss) is np.float64 and type(gradient) is np.ndarray
    assert pickle.loads(pickle.dumps(loss)) == loss


# Catches: a gradient written elsewhere, rounded to another type than out's, or computed from operands already overwritten.
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradient_into_given_memory(reduction):
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((70, 50)).astype(np.float32) * 4
    targets = (rng.random((70, 50)) < 0.5).astype(np.float32)
    loss, gradient = core.loss_and_grad(logits, targets, reduction=reduction)
    for out in (np.empty_like(logits), np.empty((70, 100), np.float32)[:, ::2], np.empty((50, 70), np.float64).T):
        given = core.loss_and_grad(logits, targets, reduction=reduction, out=out)
        wide = core.loss_and_grad(logits.astype(out.dtype), targets, reduction=reduction)[1]
        assert given[1] is out and np.array_equal(given[0], loss) and np.array_equal(out, wide)
    for own in (logits.copy(), targets.copy()):
        operands = (own, targets) if own[0, 0] == logits[0, 0] else (logits, own)
        given = core.loss_and_grad(*operands, reduction=reduction, out=own)
        assert given[1] is own and np.array_equal(given[0], loss) and np.array_equal(own, gradient)


@pytest.mark.parametrize(
    "out, error, message",
    [
        ([0.0], TypeError, "out must be a NumPy array, got list"),
        (np.zeros(3, np.int64), TypeError, "out must have a native dtype float64, float32, float16 or bfloat16, got int64"),
        (np.zeros(3, ">f4"), TypeError, "out must have a native dtype float64, float32, float16 or bfloat16, got >f4"),
        (np.zeros(4, np.float32), ValueError, "out must have the logits' shape (3,), got shape (4,)"),
        (np.broadcast_to(np.float32(0), 3), ValueError, "out must be writeable, got a read-only array"),
        ("overlapping", ValueError, "out must be an operand itself or overlap none"),
        (np.ma.zeros(3, np.float32), TypeError, "out must have no mask, got a masked array"),
        (np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (3,), (2,)), ValueError, "out must not overlap itself"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (3,), (0,)), ValueError, "out must not overlap itself"),
    ],
)
def test_refused_memory(out, error, message):
    whole = np.zeros(4, np.float32)
    with pytest.raises(error, match=re.escape(message)):
        core.loss_and_grad(whole[1:], np.zeros(3, np.float32), out=whole[:3] if isinstance(out, str) else out)


# Catches: an overlap that is looked for in some operands alone, and one refused where the memory is an operand's own.
@pytest.mark.parametrize("name", ["logits", "targets", "weight", "pos_weight"])
def test_memory_that_overlaps_any_operand_is_refused(name):
    whole = np.linspace(0.1, 0.9, 4)
    operands = {each: np.linspace(0.2, 0.8, 3) for each in ("logits", "targets", "weight", "pos_weight")}
    _, expected = core.loss_and_grad(**{**operands, name: whole[1:].copy()})
    operands[name] = whole[1:]
    with pytest.raises(ValueError, match="out must be an operand itself or overlap none"):
        core.loss_and_grad(**operands, out=whole[:3])
    assert np.array_equal(core.loss_and_grad(**operands, out=operands[name])[1], expected)


# Catches: double-double arithmetic outside its domain, and a tie that the tiny rest e^-|x| should have broken.
# Up to that rest the loss is (1 - y) x and the gradient 1 - y, both exact in float64 here, and the rest is positive in the
# first and negative in the second.
@pytest.mark.parametrize("exponent", [8, 9, 10, 12, 40, 69, 100, 126])
def test_ties_but_for_a_tiny_rest(exponent):
    y = np.array([2.0**-25, 3 * 2.0**-25, 5 * 2.0**-26, 2.0**-24 + 2.0**-40, 1 - 2.0**-24, 0.25], np.float32)
    for x in (2.0**exponent, 1.5 * 2.0**exponent):
        loss, gradient = core.loss_and_grad(np.full(6, x, np.float32), y, reduction="none")
        for got, product, towards in ((loss, (1 - y.astype(float)) * x, np.inf), (gradient, 1 - y.astype(float), -np.inf)):
            assert np.array_equal(got, np.nextafter(product, towards).astype(np.float32))
