"""The C core as Python sees it: arrays described by address, dtype, shape and strides in; status codes out as exceptions.

Knows neither NumPy nor torch, and imports only the compiled extension. core.py and the torch layer describe their arrays
to it and keep them alive during the call. The call releases the GIL.
"""

from typing import NamedTuple

from bce_bridge._core import ffi, lib

DTYPES = {
    name: getattr(lib, f"BCE_{name.upper()}")
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
MAX_THREADS = lib.BCE_MAX_THREADS
PARTIAL_LIMBS = lib.BCE_PARTIAL_LIMBS
PARTIAL_SIZE = ffi.sizeof("bce_partial") // ffi.sizeof("int64_t")
REDUCTIONS = {"none": lib.BCE_NONE, "mean": lib.BCE_MEAN, "sum": lib.BCE_SUM}
VERSION = ffi.string(lib.BCE_VERSION).decode()

_EXCEPTIONS = {
    lib.BCE_ERROR_ARGUMENT: ValueError,
    lib.BCE_ERROR_DTYPE: TypeError,
    lib.BCE_ERROR_SHAPE: ValueError,
    lib.BCE_ERROR_ISA: RuntimeError,
}


class Array(NamedTuple):
    """Somebody else's memory: the address, a name in DTYPES, the shape in elements and the strides in bytes."""

    address: int
    dtype: str
    shape: tuple
    strides: tuple


def reduction_code(reduction):
    try:
        return REDUCTIONS[reduction]
    except (KeyError, TypeError):
        raise ValueError(f"reduction is {reduction!r}, wants 'none', 'mean' or 'sum'") from None


def _fill(target, array, alive):
    target.data = ffi.cast("void *", array.address)
    target.dtype = DTYPES[array.dtype]
    target.ndim = len(array.shape)
    target.shape = shape = ffi.new("int64_t[]", array.shape)
    target.strides = strides = ffi.new("int64_t[]", array.strides)
    alive += (shape, strides)


def _pointer(array, alive):
    if array is None:
        return ffi.NULL
    pointer = ffi.new("bce_array *")
    _fill(pointer, array, alive)
    alive.append(pointer)
    return pointer


def call(function, *arguments):
    """Call a function of the core that takes a message last and returns a status; raise what that status stands for."""
    message = ffi.new("char[]", lib.BCE_MESSAGE_SIZE)
    status = function(*arguments, message)
    if status != lib.BCE_OK:
        raise _EXCEPTIONS[status](ffi.string(message).decode())


def evaluate(logits, targets, weight, pos_weight, label_smoothing, reduction, partial=None, **results):
    """Compute the wanted results in one pass: into the Arrays given by their names in bce_results, and added to partial.

    Raises ValueError or TypeError with the core's message, which names the argument, what it got and what it wants.
    """
    alive = []
    arguments = ffi.new("bce_arguments *")
    _fill(arguments.logits, logits, alive)
    _fill(arguments.targets, targets, alive)
    arguments.weight = _pointer(weight, alive)
    arguments.pos_weight = _pointer(pos_weight, alive)
    arguments.label_smoothing = label_smoothing
    arguments.reduction = reduction_code(reduction)
    wanted = ffi.new("bce_results *")
    for name, array in results.items():
        setattr(wanted, name, _pointer(array, alive))
    if partial is not None:
        wanted.partial = partial
    call(lib.bce_evaluate, arguments, wanted)


def partial_from(numbers=()):
    """A bce_partial of these int64 fields, PARTIAL_SIZE of them in the struct's order; the empty sum from none."""
    partial = ffi.new("bce_partial *")
    fields = ffi.cast("int64_t *", partial)
    for i, number in enumerate(numbers):
        fields[i] = number
    return partial


def partial_fields(partial):
    """The PARTIAL_SIZE fields of a bce_partial as a list of int."""
    return ffi.unpack(ffi.cast("int64_t *", partial), PARTIAL_SIZE)


def isa():
    """The instruction set in use. Raises RuntimeError if BCE_BRIDGE_ISA names one that is not to be had."""
    name = ffi.new("const char **")
    call(lib.bce_get_isa, name)
    return ffi.string(name[0]).decode()


def isas():
    """The instruction sets of this build, widest first, as a dict of names to whether this machine has them."""
    found = {}
    while (name := lib.bce_isa_name(len(found))) != ffi.NULL:
        found[ffi.string(name).decode()] = bool(lib.bce_isa_supported(len(found)))
    return found
