"""The NumPy front end: values against mpmath, what reaches the core and comes back from it, and every refusal.

The core's own tests, of which these show that the binding passes them on, are c_src/verify/test_*.c.
"""

import itertools
import math
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from mpmath import mp
from operands import hostile, move, problem

from bce_bridge import core
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


# Catches: a wrong polynomial, a lost compensation, a double rounding. 2 ULP is the contract for float64 at hard labels.
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("dtype, bound", [("float64", 2.0), ("float32", 0.5001)])
def test_hard_labels_are_within_the_contract(label, dtype, bound):
    with np.errstate(over="ignore"):
        x = hostile(np.random.default_rng(7), 5000).astype(dtype)
    x = x[np.isfinite(x)]
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
    assert core.loss([-1e300, 1e300], [0, 0], [1e300, 1.0], reduction="none").tolist() == [0.0, 1e300]


# Catches bytes that are taken to be in this machine's order.
def test_any_byte_order():
    x, y = np.array([1.5, -2.0, 30.0]), np.array([0.0, 1.0, 1.0])
    for dtype in map(np.dtype, ("float16", "float32", "float64", ml_dtypes.bfloat16)):
        swapped = dtype.newbyteorder("S")
        assert not swapped.isnative
        native = x.astype(dtype)
        foreign = native.view(f"u{dtype.itemsize}").byteswap().view(swapped)
        assert np.array_equal(core.loss(foreign, y, reduction="none"), core.loss(native, y, reduction="none"))


# Catches: libtorch's NaN at infinite logits, a NaN that is lost, a weight of 0 that does not silence. test_values.c has more.
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "x, y, w, p, loss, gradient",
    [
        (INF, 1, 1, 1, 0, 0),
        (-INF, 1, 2, 3, INF, -6),
        (INF, 0.5, 1, 1, INF, 0.5),
        (-INF, 0.5, 1, 0, 0, 0),
        (1, 0, 1, INF, math.log1p(math.e), 1 / (1 + math.exp(-1))),
        (NAN, 0, 0, 0, NAN, NAN),
        (1, NAN, 0, 1, NAN, NAN),
        (1, 0, NAN, 1, NAN, NAN),
        (1, 0, 1, NAN, NAN, NAN),
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


# Catches an operand whose shape, strides, offset or alignment the core is told wrongly, and one that must be writeable.
@pytest.mark.parametrize("shape", [(5,), (3, 1), (2, 3, 4), (7, 300)])
def test_broadcasting_and_memory_layouts_reach_the_core(shape):
    for seed in range(20):
        rng = np.random.default_rng([seed, *shape])
        operands, smoothing = problem(rng, "float64", shape)
        plain = [a and np.broadcast_to(a.array, shape).copy() for a in operands]
        moved = [a and move(rng, a).array for a in operands]
        moved[1].flags.writeable = False
        for reduction in ("none", "mean", "sum"):
            got, expected = (core.loss_and_grad(*a, reduction, label_smoothing=smoothing) for a in (moved, plain))
            for a, b in zip(got, expected):
                assert a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes(), (seed, reduction)


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
