"""Binary cross entropy with logits on NumPy arrays, computed by the C core. Imports NumPy and the core alone.

For logit x, target y, weight w and positive-class weight p (1 where not given)

    loss      l       = w [(1 - y) log(1 + e^x) + p y log(1 + e^-x)]
    gradient  dl/dx   = w [(1 - y) sigma(x) - p y sigma(-x)],    sigma(x) = 1 / (1 + e^-x)
    curvature d2l/dx2 = w (1 - y + p y) sigma(x) sigma(-x)

(the loss of torch.nn.BCEWithLogitsLoss, written so that nothing cancels). All arithmetic is in float64, and each result is
rounded once. A zero coefficient silences its term even at an infinite logit; NaN in any operand gives NaN.

Arguments, of every function here:

    logits      real array of any shape: float16, float32, float64, or bfloat16 from ml_dtypes; integers count as float64
    targets     real or boolean array of the logits' shape; probabilities, though values outside [0, 1] are computed too
    weight      real array that broadcasts to the logits' shape, or None
    pos_weight  likewise: the weight of the positive term; of shape (C,) for C classes in the last dimension
    reduction   "mean" (over all elements, also with weights), "sum" or "none"
    label_smoothing   e in [0, 1]: targets y become y (1 - e) + e / 2

Arrays may have any strides and byte order. The loss has the dtype of the targets when that is floating and they are an array,
else that of the logits; derivatives have the dtype of the logits. Under "mean" and "sum" the loss is a NumPy scalar, and the
derivatives are those of that scalar.

Errors: TypeError for what holds no real numbers (text, objects, complex numbers, dates, masked arrays) or is wider than
float64; ValueError for shapes that do not fit and for an unknown reduction. The text names the argument. A signal whose handler
raises, as Ctrl-C does in the main thread, ends a call within some tenth of a second; what was given as out is then undefined.
"""

import numbers
import threading

import numpy as np
from numpy.ma import MaskedArray

from bce_bridge import _abi

__all__ = ["Accumulator", "build_info", "curvature", "get_num_threads", "loss", "loss_and_grad", "set_num_threads"]


# dtype.name takes NumPy microseconds.
_NAMES = {np.dtype(name): name for name in _abi.DTYPES if name != "bfloat16"}


def _name(dtype):
    """What the core calls a native dtype, or None."""
    return _NAMES.get(dtype) or ("bfloat16" if dtype.name == "bfloat16" and dtype.isnative else None)


def _describe(array):
    return _abi.Array(array.__array_interface__["data"][0], _name(array.dtype), array.shape, array.strides)


def _operand(name, value):
    """value as an array of a dtype that the core reads, copied only if it must be."""
    if value is None:
        raise TypeError(f"{name} is None, wants a real array")
    if isinstance(value, MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: fill it, or give the mask as a weight of 0 and 1")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from None
    dtype = array.dtype
    if _name(dtype):
        return array
    if dtype.kind not in "fiub" and dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {dtype}, wants real numbers")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {dtype}, which float64 cannot hold: convert it with astype(float64)")
    if dtype.name not in _abi.DTYPES:
        return array.astype(np.float64)  # uint16, uint32, uint64
    if not dtype.isnative:
        return array.astype(dtype.newbyteorder("="))
    return array


def _floating(dtype):
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _operands(logits, targets, weight, pos_weight):
    x = _operand("logits", logits)
    y = _operand("targets", targets)
    if x.dtype.kind == "b":
        raise TypeError("logits has dtype bool, wants real numbers")
    if not _floating(x.dtype):
        x = x.astype(np.float64)
    w = None if weight is None else _operand("weight", weight)
    p = None if pos_weight is None else _operand("pos_weight", pos_weight)
    return x, y, w, p


def _run(operands, reduction, label_smoothing, **results):
    _abi.evaluate(*(None if a is None else _describe(a) for a in operands), label_smoothing, reduction, **results)


def checked_operands(logits, targets, weight=None, pos_weight=None, reduction="mean"):
    """(logits, targets, weight, pos_weight) as arrays of dtypes that the core reads, None where not given, whose shapes fit.

    For callers that compute the loss by other means than the core and want its errors: see the module.
    """
    operands = _operands(logits, targets, weight, pos_weight)
    _run(operands, reduction, 0.0)
    return operands


def _result(out, logits, operands):
    """out, if the core may write a derivative there. Sharing memory with an operand is for being that very array."""
    if isinstance(out, MaskedArray):
        raise TypeError("out is a masked array, whose mask would not be kept: give its data")
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is of type {type(out).__name__}, wants a NumPy array")
    if not _floating(out.dtype) or _name(out.dtype) is None or not out.dtype.isnative:
        raise TypeError(f"out has dtype {out.dtype}, wants a native float64, float32, float16 or bfloat16")
    if out.shape != logits.shape:
        raise ValueError(f"out of shape {out.shape} must have the logits' shape {logits.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if _overlaps_itself(out):
        raise ValueError("out overlaps itself: elements of it share memory")
    for operand in operands:
        if operand is not None and np.shares_memory(out, operand) and _describe(operand) != _describe(out):
            raise ValueError("out overlaps an operand: it may be an operand itself, or share no memory with one")
    return out


def _overlaps_itself(array):
    """Whether elements may share memory: each stride must pass over all that the smaller ones reach."""
    reach = array.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape)):
        if n > 1 and stride < reach:
            return array.size > 0
        reach += stride * (n - 1)
    return False


def _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, names, out=None):
    _abi.reduction_code(reduction)
    x, y, w, p = _operands(logits, targets, weight, pos_weight)
    # A list or number has no dtype of its own, as in NumPy's promotion rules.
    loss_dtype = y.dtype if hasattr(targets, "dtype") and _floating(np.asarray(targets).dtype) else x.dtype
    results = {}
    for name in names:
        if out is not None and name != "loss":
            results[name] = _result(out, x, (x, y, w, p))
            continue
        scalar = name == "loss" and reduction != "none"
        # Of the operand's own memory layout, so that both are walked in one order.
        results[name] = (
            np.empty((), loss_dtype) if scalar else np.empty_like(x, loss_dtype if name == "loss" else x.dtype, subok=False)
        )
    _run((x, y, w, p), reduction, label_smoothing, **{name: _describe(array) for name, array in results.items()})
    return tuple(array if array is out else array[()] for array in results.values())


def loss(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """The loss: an array of the logits' shape under "none", else a scalar. Arguments and errors: see the module."""
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss"])[0]


def loss_and_grad(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0, out=None):
    """(loss, gradient with respect to the logits) in one pass. Arguments and errors: see the module.

    out: a floating array of the logits' shape for the gradient, which is then returned as it is; it may be the logits or
    targets themselves. Memory used before spares a large call the pages that the system clears.
    """
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss", "gradient"], out)


def curvature(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """The second derivative with respect to each logit, the diagonal that is the whole Hessian. Arguments and errors: see
    the module."""
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["curvature"])[0]


_MAX_COUNT = 2**63 - 1
_MAX_FLOAT64 = (2**53 - 1) << 971 + 1074  # in units of 2^-1074
# What is pickled: the number of this format, the sum of the finite losses in units of 2^-1074, and the numbers of elements.
_STATE_FORMAT = 1
_STATE = ("format", "sum", "count", "nan", "plus_infinity", "minus_infinity")


class Accumulator:
    """The exact sum of element losses that arrive in parts: a stream, a file larger than memory, the shards of many machines.

    However the elements are divided among calls of update() and accumulators, and in whatever order those are merged, sum()
    and mean() have the bits that one call of loss() on all of them gives: nothing is rounded before the end. Accumulators
    are equal when their exact sums and their counts are; they can be copied and pickled (a pickle holds integers alone and
    says of which format it is; what is no such state raises ValueError). An accumulator takes 576 bytes, and threads may
    share one.

        accumulator = Accumulator()
        for logits, targets in batches:
            accumulator.update(logits, targets)
        accumulator.mean()

        functools.reduce(Accumulator.merge, accumulators, Accumulator())    # the accumulators of several workers

        for start in range(0, n, size):    # files larger than memory: each map lets go of the pages that it has read
            shape = (min(size, n - start),)
            x, y = (np.memmap(file, np.float32, "r", 4 * start, shape) for file in (logits_file, targets_file))
            accumulator.update(x, y)
    """

    __slots__ = ("_lock", "_partial")
    __hash__ = None

    def __init__(self):
        self._partial = _abi.partial_from()
        self._lock = threading.Lock()

    def update(self, logits, targets, weight=None, pos_weight=None, *, label_smoothing=0.0):
        """Add the element losses, in one pass and without storing them; return self. Arguments and errors: see the module.

        On an error nothing has been added. The arrays are read where they lie, and the other threads run meanwhile.
        """
        part = _abi.partial_from()
        _run(_operands(logits, targets, weight, pos_weight), "sum", label_smoothing, partial=part)
        return self._add(part)

    def merge(self, other):
        """Add what another accumulator holds; return self. Raises TypeError for anything else."""
        if not isinstance(other, Accumulator):
            raise TypeError(f"other is of type {type(other).__name__}, wants an Accumulator")
        return self._add(_abi.partial_from(other._fields()))

    def _add(self, partial):
        with self._lock:
            if self._partial.count > _MAX_COUNT - partial.count:
                raise OverflowError(f"the count of {self._partial.count} and {partial.count} elements is above 2^63 - 1")
            _abi.lib.bce_partial_merge(self._partial, partial)
        return self

    def _fields(self):
        with self._lock:
            return _abi.partial_fields(self._partial)

    def _round(self, reduction, dtype):
        dtype = np.dtype(dtype)
        if not _floating(dtype) or dtype.name not in _abi.DTYPES:
            raise TypeError(f"dtype is {dtype}, wants float64, float32, float16 or bfloat16")
        result = np.empty((), dtype.newbyteorder("="))
        with self._lock:
            _abi.round_partial(self._partial, reduction, dtype.name, result.ctypes.data)
        return result[()]

    def sum(self, dtype=np.float64):
        """The exact sum, correctly rounded to a NumPy scalar of the floating dtype; 0 if empty."""
        return self._round("sum", dtype)

    def mean(self, dtype=np.float64):
        """The exact sum divided by count, rounded once to a NumPy scalar of the floating dtype; NaN if empty."""
        return self._round("mean", dtype)

    @property
    def count(self):
        """The number of elements, as an int."""
        with self._lock:
            return self._partial.count

    def to_array(self):
        """The state as an int64 array of shape (72,), to be added to others' elementwise.

        So an all-reduce by sum, of up to 2^30 machines, gives each of them from_array() of the whole. The first 68 numbers are
        the digits, of 32 bits each and the lowest first, of the sum of the finite losses in units of 2^-1074; then follow the
        numbers of elements, of NaN, of plus infinity and of minus infinity. Equal accumulators have equal arrays.
        """
        return np.array(self._fields(), np.int64)

    @classmethod
    def from_array(cls, array):
        """The accumulator of a to_array(), or of a sum of them. Raises TypeError unless it is an int64 array, ValueError for
        another shape and for numbers that are the state of no accumulator."""
        if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") != np.int64:
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else f"type {type(array).__name__}"
            raise TypeError(f"array is of {got}, wants a NumPy array of int64")
        if array.shape != (_abi.PARTIAL_SIZE,):
            raise ValueError(f"array has the shape {array.shape}, wants ({_abi.PARTIAL_SIZE},)")
        fields = array.tolist()
        return cls._of(sum(limb << 32 * i for i, limb in enumerate(fields[:-4])), *fields[-4:])

    @classmethod
    def _of(cls, total, count, nan, plus_infinity, minus_infinity):
        """Of the sum of the finite losses in units of 2^-1074, and the numbers of elements; ValueError if these cannot be."""
        finite = count - nan - plus_infinity - minus_infinity
        if min(count, nan, plus_infinity, minus_infinity, finite) < 0 or count > _MAX_COUNT:
            raise ValueError(
                f"no accumulator's state: {count} elements, {nan} of them NaN, {plus_infinity} plus infinity and "
                f"{minus_infinity} minus infinity"
            )
        if abs(total) > finite * _MAX_FLOAT64:
            raise ValueError(f"no accumulator's state: its sum is too large for {finite} finite numbers")
        last = _abi.PARTIAL_LIMBS - 1
        limbs = [total >> 32 * i & 0xFFFFFFFF for i in range(last)]
        accumulator = cls()
        accumulator._partial = _abi.partial_from([*limbs, total >> 32 * last, count, nan, plus_infinity, minus_infinity])
        return accumulator

    def __getstate__(self):
        *limbs, count, nan, plus_infinity, minus_infinity = self._fields()
        total = sum(limb << 32 * i for i, limb in enumerate(limbs))
        return dict(zip(_STATE, (_STATE_FORMAT, total, count, nan, plus_infinity, minus_infinity)))

    def __setstate__(self, state):
        fits = isinstance(state, dict) and set(state) == set(_STATE) and all(type(value) is int for value in state.values())
        if not fits or state["format"] != _STATE_FORMAT:
            raise ValueError(f"no accumulator's state of format {_STATE_FORMAT}, a dict of the integers {', '.join(_STATE)}")
        self._partial = Accumulator._of(*(state[name] for name in _STATE[1:]))._partial
        self._lock = threading.Lock()

    def __eq__(self, other):
        return self._fields() == other._fields() if isinstance(other, Accumulator) else NotImplemented

    def __repr__(self):
        return f"<Accumulator of {self.count} losses: mean {float(self.mean())!r}, sum {float(self.sum())!r}>"


def set_num_threads(n):
    """Let one call use up to n threads, 1 to 1,024; results do not depend on it. Raises ValueError for any other n.

    Threads are started by the call and ended in it, one for every 131,072 elements at most.
    """
    if isinstance(n, (bool, np.bool_)) or not isinstance(n, numbers.Integral) or not 1 <= n <= _abi.MAX_THREADS:
        raise ValueError(f"n is {n!r}, wants an integer from 1 to {_abi.MAX_THREADS}")
    _abi.lib.bce_set_num_threads(int(n))


def get_num_threads():
    """The largest number of threads that one call uses: at first BCE_BRIDGE_NUM_THREADS, or else the number of processors."""
    return _abi.lib.bce_get_num_threads()


def build_info():
    """The core's version and compiler, the instruction set in use, those of this build and of this machine, and the number of
    threads.

    A dict of version, compiler and isa: str, isas_built and isas_supported: lists of str, the widest first, num_threads: int.
    Raises RuntimeError if the environment variable BCE_BRIDGE_ISA names an instruction set that is not to be had.
    """
    isas = _abi.isas()
    return {
        "version": _abi.VERSION,
        "compiler": _abi.COMPILER,
        "isa": _abi.isa(),
        "isas_built": list(isas),
        "isas_supported": [name for name, supported in isas.items() if supported],
        "num_threads": get_num_threads(),
    }
