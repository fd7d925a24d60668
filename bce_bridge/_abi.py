"""The C core as Python sees it. Arrays go in as address, dtype, shape and strides; status codes come out as exceptions.

Knows neither NumPy nor torch, and imports the compiled extension and the errors alone. core.py and the torch layer describe
their arrays to it and keep them alive during the call. The call releases the GIL.
"""

import functools
import threading
from typing import NamedTuple

from bce_bridge import _errors
from bce_bridge._core import ffi, lib

DTYPES = {
    name: getattr(lib, f"BCE_{name.upper()}")
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
MAX_THREADS = lib.BCE_MAX_THREADS
PARTIAL_LIMBS = lib.BCE_PARTIAL_LIMBS
PARTIAL_SIZE = ffi.sizeof("bce_partial") // ffi.sizeof("int64_t")
REDUCTIONS = {"none": lib.BCE_NONE, "mean": lib.BCE_MEAN, "sum": lib.BCE_SUM}
VERSION, COMPILER = (ffi.string(text).decode() for text in (lib.BCE_VERSION, lib.BCE_COMPILER))

_EXCEPTIONS = {
    lib.BCE_ERROR_ARGUMENT: ValueError,
    lib.BCE_ERROR_DTYPE: TypeError,
    lib.BCE_ERROR_SHAPE: ValueError,
    lib.BCE_ERROR_ISA: RuntimeError,
}
_VOID, _NUMBERS, _PARTIAL = map(ffi.typeof, ("void *", "int64_t[]", "bce_partial *"))
_ARRAY, _ARGUMENTS, _RESULTS, _MESSAGE = map(
    ffi.typeof, ("bce_array *", "bce_arguments *", "bce_results *", f"char[{lib.BCE_MESSAGE_SIZE}]")
)


class Array(NamedTuple):
    """Memory that the caller owns: the address, a name in DTYPES, the shape in elements and the strides in bytes."""

    address: int
    dtype: str
    shape: tuple
    strides: tuple


def reduction_code(reduction):
    try:
        return REDUCTIONS[reduction]
    except (KeyError, TypeError):
        raise _errors.choice("reduction", REDUCTIONS, reduction) from None


_ASK_PYTHON = ffi.addressof(lib, "bce_interrupted")
_interruption = threading.local()


def _keep_exception(_type, exception, _traceback):
    _interruption.exception = exception


@ffi.def_extern("bce_python_interrupted", error=1, onerror=_keep_exception)
def _interrupted(_nothing):
    """Called back by the core: on the way, Python runs pending signal handlers, which may raise."""
    return 0


def call(function, *arguments):
    """Call a function of the core that takes a message last and returns a status. Raises the status's exception."""
    message = ffi.new(_MESSAGE)
    status = function(*arguments, message)
    if status:
        _raise(status, message)


def _raise(status, message):
    if status == lib.BCE_INTERRUPTED:
        raise vars(_interruption).pop("exception")
    raise _EXCEPTIONS[status](ffi.string(message).decode())


def _fields(array):
    """A bce_array's fields, in a tuple that keeps alive what they point to, except the array's memory."""
    ndim = len(array.shape)
    numbers = ffi.new(_NUMBERS, (*array.shape, *array.strides))
    return ffi.cast(_VOID, array.address), DTYPES[array.dtype], ndim, numbers, numbers + ndim


class Call:
    """A call of bce_evaluate on Arrays, which can be repeated with the arrays at other addresses.

    Arguments and errors are evaluate()'s. Two threads must not make the same Call at once. A signal handler may end a long one.
    """

    def __init__(self, logits, targets, weight, pos_weight, label_smoothing, reduction, partial=None, count=0, **results):
        code = reduction_code(reduction)
        arrays = logits, targets, weight, pos_weight, *results.values()
        fields = [None if array is None else _fields(array) for array in arrays]
        pointers = [ffi.NULL if array is None else ffi.new(_ARRAY, array) for array in fields[2:]]
        self._arguments = ffi.new(_ARGUMENTS, (*fields[:2], *pointers[:2], label_smoothing, code, count, _ASK_PYTHON))
        self._results = ffi.new(_RESULTS, dict(zip(results, pointers[2:])))
        if partial is not None:
            self._results.partial = partial
        self._message = ffi.new(_MESSAGE)
        self._alive = fields, pointers, partial

    @functools.cached_property
    def _addresses(self):
        structs = self._arguments.logits, self._arguments.targets, *self._alive[1]
        places = [ffi.addressof(struct, "data") for struct in structs if struct]
        # Writing through a memoryview takes half the time of cffi.
        return [memoryview(ffi.buffer(place, ffi.sizeof("void *"))).cast("B").cast("N") for place in places]

    def __call__(self, *addresses):
        """Make the call. Addresses, if given, replace those of the operands and results that are not None, in order."""
        if addresses:
            for place, address in zip(self._addresses, addresses):
                place[0] = address
        status = lib.bce_evaluate(self._arguments, self._results, self._message)
        if status:
            _raise(status, self._message)


def evaluate(logits, targets, weight, pos_weight, label_smoothing, reduction, partial=None, count=0, **results):
    """Compute the results in one pass: into the Arrays, named as in bce_results, and added to partial.

    Raises ValueError or TypeError with the core's message, which names the argument, what it must be and what it got.
    """
    Call(logits, targets, weight, pos_weight, label_smoothing, reduction, partial, count, **results)()


def partial_from(numbers=()):
    """Make a bce_partial of its PARTIAL_SIZE int64 fields, in the struct's order. Without any it is the empty sum."""
    partial = ffi.new(_PARTIAL)
    fields = ffi.cast("int64_t *", partial)
    for i, number in enumerate(numbers):
        fields[i] = number
    return partial


def partial_fields(partial):
    """The PARTIAL_SIZE fields of a bce_partial as a list of int."""
    return ffi.unpack(ffi.cast("int64_t *", partial), PARTIAL_SIZE)


def round_partial(partial, reduction, dtype, address):
    """Round the sum or the mean once to the floating dtype of this name, and write it to the address."""
    lib.bce_partial_round(partial, REDUCTIONS[reduction], DTYPES[dtype], ffi.cast(_VOID, address))


def reduce_rows(numbers, rows, n, reduction, dtype, results, itemsize):
    """Write the exact sum or mean of each row, rounded once to the floating dtype of this name and itemsize, to results.

    numbers and results are addresses of contiguous memory. Each of the rows has n float64 numbers.
    """
    numbers, results = ffi.cast("double *", numbers), ffi.cast("char *", results)
    reduction, dtype = REDUCTIONS[reduction], DTYPES[dtype]
    for i in range(rows):
        partial = ffi.new(_PARTIAL)
        if n:
            lib.bce_partial_add(partial, numbers + i * n, n)
        lib.bce_partial_round(partial, reduction, dtype, results + i * itemsize)


def isa():
    """The instruction set in use. Raises RuntimeError if BCE_BRIDGE_ISA names one that is not available."""
    name = ffi.new("const char **")
    call(lib.bce_get_isa, name)
    return ffi.string(name[0]).decode()


def isas():
    """Map the instruction sets of this build, widest first, to whether this machine has them."""
    found = {}
    while (name := lib.bce_isa_name(len(found))) != ffi.NULL:
        found[ffi.string(name).decode()] = bool(lib.bce_isa_supported(len(found)))
    return found
