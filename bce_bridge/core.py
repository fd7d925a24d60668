"""Binary cross entropy with logits on NumPy arrays, computed by the C core. Imports NumPy and the core alone.

For logit x, target y, weight w and positive-class weight p (1 where not given)

    loss      l       = w [(1 - y) log(1 + e^x) + p y log(1 + e^-x)]
    gradient  dl/dx   = w [(1 - y) sigma(x) - p y sigma(-x)],    sigma(x) = 1 / (1 + e^-x)
    curvature d2l/dx2 = w (1 - y + p y) sigma(x) sigma(-x)

This is the loss of torch.nn.BCEWithLogitsLoss, written so that nothing cancels. All arithmetic is in float64, and each result
is rounded once. A zero coefficient silences its term even at an infinite logit. NaN in any operand gives NaN.

`loss` documents the arguments and errors that all functions here share.
"""

import numbers
import threading
from reprlib import repr as short_repr

import numpy as np
from numpy.ma import MaskedArray

from bce_bridge import _abi, _errors

__all__ = ["Accumulator", "build_info", "curvature", "get_num_threads", "loss", "loss_and_grad", "set_num_threads"]


# A table, because dtype.name takes NumPy microseconds.
_NAMES = {np.dtype(name): name for name in _abi.DTYPES if name != "bfloat16"}


def _name(dtype):
    """What the core calls a native dtype, or None."""
    return _NAMES.get(dtype) or ("bfloat16" if dtype.name == "bfloat16" and dtype.isnative else None)


def _describe(array):
    return _abi.Array(array.__array_interface__["data"][0], _name(array.dtype), array.shape, array.strides)


def _operand(name, value):
    """value as an array of a dtype that the core reads, copied only if it must be."""
    if value is None:
        raise TypeError(f"{name} must be an array of real numbers, got None")
    if isinstance(value, MaskedArray):
        raise TypeError(f"{name} must have no mask, got a masked array: fill it, or give the mask as a weight of 0 and 1")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None
    dtype = array.dtype
    if _name(dtype):
        return array
    if dtype.kind not in "fiub" and dtype.name != "bfloat16":
        raise TypeError(f"{name} must have a real dtype, got {dtype}")
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise TypeError(f"{name} must have a dtype that float64 can hold, got {dtype}: convert it with .astype('float64')")
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
        raise TypeError("logits must have a real dtype, got bool")
    if not _floating(x.dtype):
        x = x.astype(np.float64)
    w = None if weight is None else _operand("weight", weight)
    p = None if pos_weight is None else _operand("pos_weight", pos_weight)
    return x, y, w, p


def _run(operands, reduction, label_smoothing, **results):
    label_smoothing = _errors.checked_label_smoothing(label_smoothing)
    _abi.evaluate(*(None if a is None else _describe(a) for a in operands), label_smoothing, reduction, **results)


def checked_operands(logits, targets, weight=None, pos_weight=None, reduction="mean"):
    """(logits, targets, weight, pos_weight) as arrays of dtypes that the core reads, None where not given, whose shapes fit.

    For callers that compute the loss by other means and want the errors of `loss`.
    """
    operands = _operands(logits, targets, weight, pos_weight)
    _run(operands, reduction, 0.0)
    return operands


def _result(out, logits, operands):
    """Return out if the core may write a derivative there. `out` must be an operand itself or overlap none."""
    if isinstance(out, MaskedArray):
        raise TypeError("out must have no mask, got a masked array: give its .data")
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if not _floating(out.dtype) or _name(out.dtype) is None or not out.dtype.isnative:
        raise TypeError(f"out must have a native dtype float64, float32, float16 or bfloat16, got {out.dtype}")
    if out.shape != logits.shape:
        raise ValueError(f"out must have the logits' shape {logits.shape}, got shape {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError("out must not overlap itself, got elements that share memory")
    for operand in operands:
        if operand is not None and np.shares_memory(out, operand) and _describe(operand) != _describe(out):
            raise ValueError("out must be an operand itself or overlap none, got a part of an operand's memory")
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
        # In the logits' memory layout, so that both are walked in the same order.
        results[name] = (
            np.empty((), loss_dtype) if scalar else np.empty_like(x, loss_dtype if name == "loss" else x.dtype, subok=False)
        )
    _run((x, y, w, p), reduction, label_smoothing, **{name: _describe(array) for name, array in results.items()})
    return tuple(array if array is out else array[()] for array in results.values())


def loss(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """Compute the binary cross entropy of logits and targets.

    Parameters
    ----------
    logits : array_like
        Real numbers, of any shape: float16, float32, float64, or bfloat16 from ml_dtypes. Integers count as float64.
    targets : array_like
        Real or boolean numbers, of the logits' shape. They are probabilities, but values outside [0, 1] are computed too.
    weight : array_like, optional
        Real numbers that broadcast to the logits' shape.
    pos_weight : array_like, optional
        Weight of the positive term: real numbers that broadcast to the logits' shape. For C classes in the last dimension its
        shape is (C,).
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements, also with weights.
    label_smoothing : float, default 0.0
        e in [0, 1]: targets y become y (1 - e) + e / 2.

    Returns
    -------
    ndarray or NumPy scalar
        An array of the logits' shape under "none", else a scalar. The dtype is that of the targets if they are an array of
        floating dtype, else that of the logits.

    Raises
    ------
    TypeError
        If an array does not hold real numbers (text, objects, complex numbers, dates, masked arrays) or is wider than float64,
        if the logits are boolean, or if label_smoothing is not a number.
    ValueError
        If shapes do not fit, reduction is unknown, or label_smoothing is outside [0, 1].

    Notes
    -----
    The formula stands at the top of the module. Arrays may have any strides and byte order. Error texts name the argument.

    A signal handler that raises, as Ctrl-C does in the main thread, ends a call within about a tenth of a second. What was
    given as `out` is then undefined.

    Examples
    --------
    >>> import numpy as np
    >>> from bce_bridge import core
    >>> logits, targets = np.array([2.0, -1.0]), np.array([1.0, 0.0])
    >>> core.loss(logits, targets, reduction="none").round(4)
    array([0.1269, 0.3133])
    >>> print(core.loss(logits, targets).round(4))
    0.2201
    """
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss"])[0]


def loss_and_grad(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0, out=None):
    """Compute the loss and its gradient with respect to the logits in one pass.

    Parameters
    ----------
    logits, targets, weight, pos_weight, reduction, label_smoothing
        As in `loss`.
    out : ndarray, optional
        Floating array of the logits' shape that receives the gradient. It may be the logits or targets themselves. Reusing
        memory spares a large call the pages that the system would have to clear.

    Returns
    -------
    loss : ndarray or NumPy scalar
        As from `loss`.
    gradient : ndarray or NumPy scalar
        `out` itself if given, else of the logits' shape and dtype. Under "mean" and "sum" it is the gradient of the scalar.

    Raises
    ------
    TypeError, ValueError
        As `loss`; also if `out` is not a writeable array of the logits' shape and a native floating dtype, overlaps itself, or
        overlaps an operand without being that operand.

    Examples
    --------
    >>> import numpy as np
    >>> from bce_bridge import core
    >>> loss, gradient = core.loss_and_grad(np.array([2.0, -1.0]), np.array([1.0, 0.0]), reduction="sum")
    >>> gradient.round(4)
    array([-0.1192,  0.2689])
    """
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["loss", "gradient"], out)


def curvature(logits, targets, weight=None, pos_weight=None, reduction="mean", *, label_smoothing=0.0):
    """Compute the second derivative of the loss with respect to each logit.

    The Hessian is diagonal, and this is its diagonal.

    Parameters
    ----------
    logits, targets, weight, pos_weight, reduction, label_smoothing
        As in `loss`.

    Returns
    -------
    ndarray or NumPy scalar
        Of the logits' shape and dtype. Under "mean" and "sum" it is the curvature of the scalar.

    Raises
    ------
    TypeError, ValueError
        As `loss`.

    Examples
    --------
    >>> import numpy as np
    >>> from bce_bridge import core
    >>> core.curvature(np.array([2.0, -1.0]), np.array([1.0, 0.0]), reduction="sum").round(4)
    array([0.105 , 0.1966])
    """
    return _evaluate(logits, targets, weight, pos_weight, reduction, label_smoothing, ["curvature"])[0]


_MAX_COUNT = 2**63 - 1
_MAX_FLOAT64 = (2**53 - 1) << 971 + 1074  # in units of 2^-1074
# A pickle's fields: the format, the sum of the finite losses in units of 2^-1074, and the numbers of elements.
_STATE_FORMAT = 1
_STATE = ("format", "sum", "count", "nan", "plus_infinity", "minus_infinity")


class Accumulator:
    """Exact sum of element losses that arrive in parts: a stream, a file larger than memory, the shards of many machines.

    `sum` and `mean` have the bits that one call of `loss` on all elements gives, because nothing is rounded before the end. It
    does not matter how the elements are divided among calls of `update` and among accumulators, or in which order these merge.

    Notes
    -----
    Accumulators are equal if their exact sums and their counts are. They can be copied and pickled. A pickle holds integers
    alone, one of which is its format; unpickling any other state raises ValueError. An accumulator takes 576 bytes, and threads
    may share one.

    Examples
    --------
    >>> import functools
    >>> import numpy as np
    >>> from bce_bridge.core import Accumulator, loss
    >>> logits, targets = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 1.0])
    >>> accumulator = Accumulator()
    >>> for start in range(3):
    ...     _ = accumulator.update(logits[start : start + 1], targets[start : start + 1])
    >>> bool(accumulator.mean() == loss(logits, targets))
    True

    Merge the accumulators of several workers:

    >>> workers = [Accumulator().update(logits[:1], targets[:1]), Accumulator().update(logits[1:], targets[1:])]
    >>> functools.reduce(Accumulator.merge, workers, Accumulator()) == accumulator
    True

    Read files larger than memory. Each map lets go of the pages that it has read::

        for start in range(0, n, size):
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
        """Add the element losses, in one pass and without storing them.

        The arrays are read where they lie, and other threads run meanwhile.

        Parameters
        ----------
        logits, targets, weight, pos_weight, label_smoothing
            As in `loss`.

        Returns
        -------
        Accumulator
            The accumulator itself.

        Raises
        ------
        TypeError, ValueError
            As `loss`. On an error nothing has been added.
        OverflowError
            If the count would pass 2^63 - 1.
        """
        part = _abi.partial_from()
        _run(_operands(logits, targets, weight, pos_weight), "sum", label_smoothing, partial=part)
        return self._add(part)

    def merge(self, other):
        """Add what another accumulator holds.

        Parameters
        ----------
        other : Accumulator

        Returns
        -------
        Accumulator
            The accumulator itself.

        Raises
        ------
        TypeError
            If other is not an Accumulator.
        OverflowError
            If the count would pass 2^63 - 1.
        """
        if not isinstance(other, Accumulator):
            raise TypeError(f"other must be an Accumulator, got {type(other).__name__}")
        return self._add(_abi.partial_from(other._fields()))

    def _add(self, partial):
        with self._lock:
            if self._partial.count > _MAX_COUNT - partial.count:
                raise OverflowError(f"count must be at most 2^63 - 1, got {self._partial.count} + {partial.count}")
            _abi.lib.bce_partial_merge(self._partial, partial)
        return self

    def _fields(self):
        with self._lock:
            return _abi.partial_fields(self._partial)

    def _round(self, reduction, dtype):
        dtype = np.dtype(dtype)
        if not _floating(dtype) or dtype.name not in _abi.DTYPES:
            raise TypeError(f"dtype must be float64, float32, float16 or bfloat16, got {dtype}")
        result = np.empty((), dtype.newbyteorder("="))
        with self._lock:
            _abi.round_partial(self._partial, reduction, dtype.name, result.ctypes.data)
        return result[()]

    def sum(self, dtype=np.float64):
        """Round the exact sum once.

        Parameters
        ----------
        dtype : dtype_like, default float64
            float64, float32, float16 or bfloat16.

        Returns
        -------
        NumPy scalar
            The correctly rounded sum; 0 if empty.

        Raises
        ------
        TypeError
            If dtype is any other.
        """
        return self._round("sum", dtype)

    def mean(self, dtype=np.float64):
        """Divide the exact sum by the count and round once.

        Parameters
        ----------
        dtype : dtype_like, default float64
            float64, float32, float16 or bfloat16.

        Returns
        -------
        NumPy scalar
            The correctly rounded mean; NaN if empty.

        Raises
        ------
        TypeError
            If dtype is any other.
        """
        return self._round("mean", dtype)

    @property
    def count(self):
        """Number of elements, as an int."""
        with self._lock:
            return self._partial.count

    def to_array(self):
        """Return the state as integers that can be added across machines.

        An all-reduce by sum, over up to 2^30 machines, gives each of them an array from which `from_array` makes the total.

        Returns
        -------
        ndarray
            int64, of shape (72,). Equal accumulators have equal arrays.

        Notes
        -----
        The first 68 numbers are digits of 32 bits, lowest first: the sum of the finite losses in units of 2^-1074. The last
        four are the numbers of elements, of NaN, of plus infinity and of minus infinity.
        """
        return np.array(self._fields(), np.int64)

    @classmethod
    def from_array(cls, array):
        """Make the accumulator of a `to_array`, or of an elementwise sum of several.

        Parameters
        ----------
        array : ndarray
            int64, of shape (72,).

        Returns
        -------
        Accumulator

        Raises
        ------
        TypeError
            If array is not a NumPy array of int64.
        ValueError
            If its shape is another, or if its numbers are not the state of an accumulator.

        Examples
        --------
        >>> from bce_bridge.core import Accumulator
        >>> a, b = Accumulator().update([2.0], [1.0]), Accumulator().update([-1.0], [0.0])
        >>> Accumulator.from_array(a.to_array() + b.to_array()) == a.merge(b)
        True
        """
        if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") != np.int64:
            got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"array must be a NumPy array of int64, got {got}")
        if array.shape != (_abi.PARTIAL_SIZE,):
            raise ValueError(f"array must have shape ({_abi.PARTIAL_SIZE},), got shape {array.shape}")
        fields = array.tolist()
        return cls._of(sum(limb << 32 * i for i, limb in enumerate(fields[:-4])), *fields[-4:])

    @classmethod
    def _of(cls, total, count, nan, plus_infinity, minus_infinity):
        """Make one from the sum of the finite losses in units of 2^-1074 and the numbers of elements.

        Raises ValueError if no losses have this sum and these numbers.
        """
        finite = count - nan - plus_infinity - minus_infinity
        if min(count, nan, plus_infinity, minus_infinity, finite) < 0 or count > _MAX_COUNT:
            raise ValueError(
                f"state must be that of an Accumulator, got {count} elements, {nan} of them NaN, {plus_infinity} plus infinity "
                f"and {minus_infinity} minus infinity"
            )
        if abs(total) > finite * _MAX_FLOAT64:
            raise ValueError(f"state must be that of an Accumulator, got a sum too large for {finite} finite numbers")
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
            wanted = f"a dict of the integers {', '.join(_STATE)} with format {_STATE_FORMAT}"
            raise ValueError(f"state must be that of an Accumulator, {wanted}, got {short_repr(state)}")
        self._partial = Accumulator._of(*(state[name] for name in _STATE[1:]))._partial
        self._lock = threading.Lock()

    def __eq__(self, other):
        return self._fields() == other._fields() if isinstance(other, Accumulator) else NotImplemented

    def __repr__(self):
        return f"<Accumulator of {self.count} losses: mean {float(self.mean())!r}, sum {float(self.sum())!r}>"


def set_num_threads(n):
    """Set how many threads one call may use. Results do not depend on it.

    A call starts its threads and ends them, at most one for every 131,072 elements.

    Parameters
    ----------
    n : int
        From 1 to 1,024.

    Raises
    ------
    ValueError
        For any other n.
    """
    if isinstance(n, (bool, np.bool_)) or not isinstance(n, numbers.Integral) or not 1 <= n <= _abi.MAX_THREADS:
        raise ValueError(f"n must be an integer from 1 to {_abi.MAX_THREADS}, got {n!r}")
    _abi.lib.bce_set_num_threads(int(n))


def get_num_threads():
    """Return the largest number of threads that one call uses.

    Returns
    -------
    int
        At first the environment variable BCE_BRIDGE_NUM_THREADS, or without it the number of processors.
    """
    return _abi.lib.bce_get_num_threads()


def build_info():
    """Describe the core: its version, its compiler, its instruction sets and its number of threads.

    Returns
    -------
    dict
        version, compiler : str
            Of the core, and what compiled it.
        isa : str
            The instruction set in use.
        isas_built, isas_supported : list of str
            Those of this build, and those of them that this machine has; the widest first.
        num_threads : int
            As from `get_num_threads`.

    Raises
    ------
    RuntimeError
        If the environment variable BCE_BRIDGE_ISA names an instruction set that is not available.
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
