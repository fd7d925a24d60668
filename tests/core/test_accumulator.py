"""core.Accumulator: the bits of one call whatever the parts and their order; states kept and sent; memory."""

import copy
import functools
import itertools
import math
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from embedded_r import in_own_process
from mpmath import mp

from bce_bridge import core
from bce_bridge.conformance import compare
from bce_bridge.core import Accumulator

INF, NAN = math.inf, math.nan
N = 1000


def problem(rng, dtype=np.float64, n=N):
    """Logits in both tails, soft and hard targets, weights of both signs over sixty orders of magnitude (six in float32)."""
    reach = 30 if dtype == np.float64 else 3
    x = rng.normal(0, 10, n)
    x[:5] = 700, -745, 1e-310, 0, -0.0
    y = np.where(rng.random(n) < 0.5, rng.integers(0, 2, n), rng.random(n))
    w = rng.normal(size=n) * 10.0 ** rng.integers(-reach, reach, n)
    return [a.astype(dtype) for a in (x, y, w, rng.exponential(3, n))]


def accumulate(*operands, **options):
    return Accumulator().update(*operands, **options)


def partition(rng, n):
    """The indices 0 to n - 1, each in one of some arrays, in any order; some of the arrays are empty."""
    cuts = np.sort(rng.integers(0, n + 1, rng.integers(0, 40)))
    return np.split(rng.permutation(n), cuts)


def same(a, b):
    return a == b and a.to_array().tobytes() == b.to_array().tobytes()


def bits(number):
    return "nan" if np.isnan(number) else np.float64(number).tobytes()


# Catches a sum or a count that is rounded before the end, and a merge that depends on who is merged into whom.
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_partition_gives_the_bits_of_one_call(dtype):
    rng = np.random.default_rng(1)
    operands = problem(rng, dtype)
    losses = core.loss(*(a.astype(np.float64) for a in operands), reduction="none")
    whole = accumulate(*operands)
    total = math.fsum(losses)
    with mp.workprec(4000):
        assert compare.error_in_ulp(whole.mean(), mp.fsum(map(mp.mpf, losses.tolist())) / N, "float64") <= 0.5
    assert bits(whole.sum()) == bits(total) and whole.count == N
    for _ in range(100):
        parts = partition(rng, N)
        stream = Accumulator()
        for part in parts:
            stream.update(*(a[part] for a in operands))
        assert bits(stream.sum()) == bits(total) and bits(stream.mean()) == bits(whole.mean()) and same(stream, whole)
        trees = [accumulate(*(a[part] for a in operands)) for part in parts]
        while len(trees) > 1:
            i, j = rng.choice(len(trees), 2, replace=False)
            trees[i].merge(trees[j])
            del trees[j]
        assert bits(trees[0].sum()) == bits(total) and same(trees[0], whole)


# Catches a double rounding: through float64 to the narrower type.
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_call_in_the_dtype_of_the_operands_is_the_accumulator_rounded_to_it(dtype):
    rng = np.random.default_rng(2)
    for n in (0, 1, 2, 7, 100, 1001):
        x, y = rng.normal(0, 3, n).astype(dtype), rng.random(n).astype(dtype)
        halves = accumulate(x[: n // 2], y[: n // 2]).merge(accumulate(x[n // 2 :], y[n // 2 :]))
        for reduction in ("mean", "sum"):
            got, want = getattr(halves, reduction)(dtype), core.loss(x, y, reduction=reduction)
            assert got.dtype == want.dtype == dtype and got.tobytes() == want.tobytes()


def test_options_and_layouts_are_those_of_the_loss():
    rng = np.random.default_rng(3)
    x, y, w, p = rng.normal(size=(20, 30)), rng.random((20, 30)), rng.random((20, 1)), rng.random(30)
    whole = accumulate(x, y, w, p, label_smoothing=0.1)
    assert whole.mean() == core.loss(x, y, w, p, label_smoothing=0.1)
    assert whole.count == 600
    columns = Accumulator()
    for j in range(30):
        columns.update(x[::-1, j], y[::-1, j], w[::-1, 0], p[j], label_smoothing=0.1)
    assert same(columns, whole)
    assert same(accumulate(np.asfortranarray(x), y, w, p, label_smoothing=0.1), whole)


# Catches an infinity that is lost in a merge, one that turns NaN by its order, and cancellation that leaves a rest.
def test_hostile_numbers():
    pieces = {
        "finite": ([1.0, -2.0], [0, 1], None),
        "huge": ([1e300, 1e300], [0, 0], [1, 1]),
        "minus huge": ([1e300, 1e300], [0, 0], [-1, -1]),
        "over": ([1e308] * 4, [0] * 4, None),
        "minus over": ([1e308] * 4, [0] * 4, [-1] * 4),
        "subnormal": ([-745.0] * 3, [0] * 3, None),
        "infinite": ([INF], [0], None),
        "minus infinite": ([INF], [0], [-1]),
        "silenced": ([INF, -INF], [1, 0], None),
        "empty": ([], [], None),
        "nan": ([NAN], [0], None),
    }
    pieces = {name: (x, y, np.ones(len(x)) if w is None else w) for name, (x, y, w) in pieces.items()}
    for size in (1, 2, 3, 4):
        for names in itertools.combinations(pieces, size):
            x, y, w = map(np.concatenate, zip(*(pieces[name] for name in names)))
            orders = [
                functools.reduce(lambda a, name: a.update(*pieces[name]), order, Accumulator())
                for order in (names, names[::-1])
            ]
            merged = functools.reduce(Accumulator.merge, (accumulate(*pieces[name]) for name in names), Accumulator())
            for got in (*orders, merged):
                assert bits(got.sum()) == bits(core.loss(x, y, w, reduction="sum")), names
                assert bits(got.mean()) == bits(core.loss(x, y, w)), names
                assert same(got, orders[0]) and got.count == len(x)
    assert accumulate([1e300], [0]).update([0.0], [0]).update([1e300], [0], [-1]).sum() == math.log(2)
    assert accumulate([1e308] * 4, [0] * 4).sum() == INF, "a sum above the largest number"
    assert accumulate([1e308] * 4, [0] * 4).mean() == 1e308, "of which the mean is finite"


def test_empty():
    empty = Accumulator()
    assert math.isnan(empty.mean()) and empty.sum() == 0 and empty.count == 0
    assert same(empty.update([], []).update(np.zeros((3, 0)), np.zeros((3, 0))), Accumulator())
    assert type(empty.sum()) is type(empty.mean()) is np.float64 and type(empty.count) is int


def test_equality_repr_and_hash():
    a = accumulate([0.0], [0])
    assert a == accumulate([0.0], [1]) and a != Accumulator() and a != a.sum()
    assert a != accumulate([0.0, 1e300, 1e300], [0, 0, 0], [1, 1, -1]), "the count counts"
    assert repr(a) == "<Accumulator of 1 losses: mean 0.6931471805599453, sum 0.6931471805599453>"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_updates_and_merges_return_the_accumulator():
    a, b = Accumulator(), accumulate([1.0], [1])
    assert a.merge(b) is a and a.update([2.0], [0]) is a and b.count == 1
    assert a.merge(a) is a and a.count == 4 and a.sum() == 2 * core.loss([1.0, 2.0], [1, 0], reduction="sum")


# Catches a state that is shared or lost, a lock in a pickle, and a pickle that depends on how its sum came about.
def test_copies_and_pickles():
    rng = np.random.default_rng(4)
    for operands in (problem(rng), ([], []), ([INF, NAN, INF, 1.0], [0] * 4, [1, 1, -1, -3]), ([1e308], [0], [-1])):
        original = accumulate(*operands)
        copies = [pickle.loads(pickle.dumps(original, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        copies += [copy.copy(original), copy.deepcopy(original), Accumulator.from_array(original.to_array())]
        for duplicate in copies:
            assert same(duplicate, original) and type(duplicate) is Accumulator
            duplicate.update([1.0], [0])
            assert original.count == len(operands[0]), "copies go their own ways"
    forwards, backwards = accumulate([1.0, -2e300], [0, 1]), accumulate([-2e300, 1.0], [1, 0])
    assert pickle.dumps(forwards) == pickle.dumps(backwards)


GOOD = {"format": 1, "sum": -5, "count": 3, "nan": 1, "plus_infinity": 0, "minus_infinity": 0}


# Catches a damaged or a newer pickle that is computed with.
@pytest.mark.parametrize(
    "state",
    [
        (),
        {},
        {**GOOD, "format": 2},
        {**GOOD, "sum": 0.5},
        {**GOOD, "sum": "5"},
        {**GOOD, "count": True},
        {**GOOD, "more": 1},
        {name: value for name, value in GOOD.items() if name != "nan"},
        {**GOOD, "count": -1},
        {**GOOD, "nan": -1},
        {**GOOD, "nan": 4},
        {**GOOD, "plus_infinity": 2, "minus_infinity": 1},
        {**GOOD, "count": 2**63},
        {**GOOD, "nan": 3},
        {**GOOD, "sum": 3 << 2098},
        {**GOOD, "sum": -(1 << 100000)},
    ],
)
def test_what_is_no_state_is_refused(state):
    good = object.__new__(Accumulator)
    good.__setstate__(GOOD)
    assert good.count == 3 and math.isnan(good.sum())
    with pytest.raises(ValueError, match="^state must be that of an Accumulator, "):
        object.__new__(Accumulator).__setstate__(state)


# Catches an all-reduce, which adds int64 arrays, that is not the merged accumulator.
def test_arrays_add_up_to_the_merged_accumulator():
    rng = np.random.default_rng(5)
    operands = problem(rng)
    operands[0][10:13], operands[2][12] = (INF, NAN, INF), -1
    parts = [accumulate(*(a[part] for a in operands)) for part in np.array_split(rng.permutation(N), 64)]
    arrays = [part.to_array() for part in parts]
    assert all(a.shape == (72,) and a.dtype == np.int64 for a in arrays)
    merged = Accumulator.from_array(sum(arrays))
    assert same(merged, accumulate(*operands)) and same(merged, functools.reduce(Accumulator.merge, parts))
    finite = accumulate([1e290, -3.0, 2.0], [0, 0, 1], [-1, 1, 1])
    many = Accumulator.from_array(finite.to_array() * 2**30)
    assert many.count == 3 * 2**30 and many.mean() == finite.mean() and many.sum() == finite.sum() * 2**30
    assert same(many.merge(many), Accumulator.from_array(many.to_array()))
    big_endian = finite.to_array().astype(">i8")
    assert same(Accumulator.from_array(big_endian[::-1][::-1]), finite)


@pytest.mark.parametrize(
    "array, error, text",
    [
        ([0] * 72, TypeError, "array must be a NumPy array of int64, got list"),
        (np.zeros(72), TypeError, "array must be a NumPy array of int64, got dtype float64"),
        (np.zeros(72, np.uint64), TypeError, "array must be a NumPy array of int64, got dtype uint64"),
        (np.zeros(71, np.int64), ValueError, r"array must have shape \(72,\), got shape \(71,\)"),
        (np.zeros((1, 72), np.int64), ValueError, r"array must have shape \(72,\), got shape \(1, 72\)"),
        (np.r_[np.zeros(68, np.int64), -1, 0, 0, 0], ValueError, "state must be that of an Accumulator, got -1 elements"),
        (np.r_[np.zeros(68, np.int64), 1, 1, 1, 0], ValueError, "state must be .* Accumulator, got 1 elements, 1 of them NaN"),
        (np.r_[1, np.zeros(71, np.int64)], ValueError, "got a sum too large for 0 finite numbers"),
        (np.full(72, 2**63 - 1), ValueError, "state must be that of an Accumulator, got "),
        (np.r_[np.full(68, -(2**63)), 1, 0, 0, 0], ValueError, "got a sum too large for 1 finite numbers"),
    ],
)
def test_arrays_that_are_no_state_are_refused(array, error, text):
    with pytest.raises(error, match=text):
        Accumulator.from_array(array)


# Catches limbs whose carry overflows: below the last, any int64 may stand in an array that others have added up.
def test_limbs_that_are_not_canonical_are_normalized_exactly():
    rng = np.random.default_rng(6)
    for _ in range(200):
        limbs = np.zeros(68, np.int64)
        limbs[:65] = rng.choice([-(2**63), 2**63 - 1, -1, 0, 2**32 - 1, *rng.integers(-(2**63), 2**63 - 1, 5)], 65)
        array = np.r_[limbs, 2**40, 0, 0, 0]
        total = sum(limb << 32 * i for i, limb in enumerate(limbs.tolist()))
        accumulator = Accumulator.from_array(array)
        assert accumulator.__getstate__()["sum"] == total and accumulator.count == 2**40


# Catches a division that forgets its remainder or the digits it did not reach. Python's int / int is correctly rounded.
def test_means_and_sums_next_to_a_tie_are_rounded_once():
    rng = np.random.default_rng(11)
    for _ in range(150):
        count = int(rng.choice([1, 2, 3, 7, 10**6 + 3, 2**40 - 1]))
        tie = 2 * int(rng.integers(2**52, 2**53)) + 1
        shift = int(rng.integers(70, 2000))
        for bits_below in (8, 9, 10, 11, 40, 64, 70):
            for nudge in (-1, 0, 1):
                total = (count * (tie << bits_below) + nudge) << shift - bits_below
                for sign in (-1, 1):
                    state = {**GOOD, "sum": sign * total, "count": count, "nan": 0}
                    accumulator = object.__new__(Accumulator)
                    accumulator.__setstate__(state)
                    assert accumulator.mean() == sign * total / (count << 1074)
                    assert accumulator.sum() == sign * total / (1 << 1074)


def test_refusals_add_nothing():
    a = accumulate([1.0, 2.0], [0, 1])
    before = a.to_array()
    for arguments, error in (
        (([1.0], [1, 0]), ValueError),
        (([1.0], [1], [1, 2]), ValueError),
        ((None, [1]), TypeError),
        (([1.0], ["a"]), TypeError),
    ):
        with pytest.raises(error):
            a.update(*arguments)
    with pytest.raises(ValueError, match="label_smoothing"):
        a.update([1.0], [1], label_smoothing=2)
    for other in (before, None, 3.0):
        with pytest.raises(TypeError, match="^other must be an Accumulator, got "):
            a.merge(other)
    for dtype in (np.int64, np.longdouble, complex):
        with pytest.raises(TypeError, match="^dtype must be float64, float32, float16 or bfloat16, got "):
            a.sum(dtype)
    full = Accumulator.from_array(np.r_[np.zeros(68, np.int64), 2**63 - 1, 0, 0, 0])
    for add in (lambda: full.update([1.0], [1]), lambda: full.merge(a), lambda: full.merge(full)):
        with pytest.raises(OverflowError, match="count must be at most 2\\^63 - 1, got "):
            add()
    assert (a.to_array() == before).all() and full.count == 2**63 - 1


# Catches an update that is lost between two threads, and a merge of two accumulators into each other that deadlocks.
def test_threads_may_share_an_accumulator():
    rng = np.random.default_rng(7)
    operands = problem(rng)
    shared, other = Accumulator(), Accumulator()
    start = threading.Barrier(8)

    def work(k):
        start.wait()
        for _ in range(200):
            shared.update(*(a[k::8] for a in operands))
            (other.merge(shared), shared.merge(Accumulator()), shared.sum()) if k % 2 else shared == other

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(shared, Accumulator.from_array(accumulate(*operands).to_array() * 200))


# Catches an update that copies its operands or keeps something: the one array that it may hold is the mapping itself. What the
# core asks for is counted in c_src/verify/test_threads.c.
def test_a_mapped_file_is_read_where_it_lies(tmp_path):
    path = tmp_path / "logits.f32"
    np.random.default_rng(9).normal(0, 4, 1 << 20).astype(np.float32).tofile(path)
    x = np.memmap(path, np.float32, "r")
    accumulator = accumulate(x, x, x[:1], x)
    tracemalloc.start()
    try:
        for _ in range(64):
            accumulator.update(x, x, x[:1], x)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000 and peak < 100_000


# Catches a state that only one of the languages reads.
@pytest.mark.r
@in_own_process
def test_r_and_python_exchange_accumulators():
    from embedded_r import r_text

    from bce_bridge.r import session

    session.start()
    rng = np.random.default_rng(10)
    operands = problem(rng)
    operands[0][10] = INF
    original = accumulate(*operands)
    update = "a$update(rnorm(9, 0, 1e3), runif(9), rnorm(9) * 2^(5 * i))"
    r_text(f"set.seed(1); a <- bcebridge::bce_accumulator(); for (i in 1:9) {update}; ''")
    state = "format(as.raw(a))"
    received = Accumulator.from_array(np.frombuffer(bytes.fromhex("".join(r_text(state))), "<i8"))
    assert received.count == 81 and received.mean() == float.fromhex(r_text("sprintf('%a', a$mean())")[0])
    literal = ", ".join(f"0x{byte:02x}" for byte in original.to_array().astype("<i8").tobytes())
    r_text(f"a$merge(bcebridge::bce_accumulator(as.raw(c({literal})))); ''")
    merged = original.merge(received).to_array().astype("<i8").tobytes()
    assert bytes.fromhex("".join(r_text(state))) == merged
