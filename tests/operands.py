"""Random operands for tests of the core and of what must have its bits: of any dtype, size and place in memory."""

import contextlib

import numpy as np

from bce_bridge import _abi, core

FLOATING = ("float64", "float32", "float16", "bfloat16")
WEIGHTS = ("none", "scalar", "row", "column", "full")


def storage(dtype):
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


class Operand:
    """Numbers of a dtype in NumPy memory: bfloat16, which NumPy lacks, as the upper halves of float32."""

    def __init__(self, array, dtype):
        self.array, self.dtype = np.asarray(array), dtype

    @classmethod
    def of(cls, numbers, dtype):
        numbers = np.asarray(numbers)
        with np.errstate(over="ignore", invalid="ignore"):
            if dtype == "bfloat16":
                return cls(np.asarray(numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16), dtype)
            return cls(numbers.astype(dtype), dtype)

    def __getitem__(self, index):
        return Operand(self.array[index], self.dtype)

    def describe(self):
        return _abi.Array(self.array.ctypes.data, self.dtype, self.array.shape, self.array.strides)

    def bits(self):
        """The bytes in C order, every NaN the same."""
        if self.dtype == "bfloat16":
            return np.where(self.array & 0x7FFF > 0x7F80, 0x7FC0, self.array).astype(np.uint16).tobytes()
        return np.where(np.isnan(self.array), np.nan, self.array).astype(self.dtype).tobytes()


def move(rng, operand):
    """The same numbers elsewhere in memory: at an offset, with steps between them, backwards, at an odd address."""
    array = operand.array
    steps = [int(rng.choice([-3, -1, 1, 1, 2])) for _ in array.shape]
    room = np.zeros([n * abs(step) + 5 for n, step in zip(array.shape, steps)], array.dtype)
    if rng.random() < 0.3:
        room = np.ndarray(room.shape, room.dtype, bytearray(room.nbytes + 1), offset=1)
    offset = rng.integers(0, 5)
    within = room[(*(slice(offset, offset + n * abs(step), abs(step)) for n, step in zip(array.shape, steps)), ...)]
    within = within[(*(slice(None, None, -1 if step < 0 else 1) for step in steps), ...)]
    within[...] = array
    return Operand(within, operand.dtype)


def hostile(rng, shape):
    """Logits of every size, among them what overflows, underflows and is no number."""
    x = rng.normal(0, 4, shape)
    kinds = rng.random(shape)
    x = np.where(kinds < 0.2, x * 30, np.where(kinds < 0.3, rng.uniform(-800, 800, shape), x))
    x = np.where(kinds > 0.9, np.ldexp(x, rng.integers(-1060, 0, shape)), x)
    return np.where(kinds > 0.98, rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 5e-324, 1e308, -1e308], shape), x)


def weights(rng, kind, shape):
    narrow = {"none": None, "scalar": (), "row": shape[-1:], "column": (*shape[:-1], 1), "full": shape}[kind]
    if narrow is None:
        return None
    w = np.where(rng.random(narrow) < 0.1, 0.0, rng.exponential(2, narrow))
    return np.where(rng.random(narrow) < 0.05, -w, w)


def problem(rng, dtype, shape, weight=None, pos_weight=None):
    """logits of the dtype and targets, weight and pos_weight of any, as Operands or None, and label smoothing."""
    y = np.where(rng.random(shape) < 0.7, rng.integers(0, 2, shape), rng.random(shape))
    others = [y, *(weights(rng, kind or rng.choice(WEIGHTS), shape) for kind in (weight, pos_weight))]
    integers = [name for name in _abi.DTYPES if name not in FLOATING]
    dtypes = [dtype if rng.random() < 0.5 else rng.choice(FLOATING if rng.random() < 0.7 else integers) for _ in others]
    others = [None if a is None else Operand.of(np.abs(a) if d == "uint8" else a, d) for a, d in zip(others, map(str, dtypes))]
    return [Operand.of(hostile(rng, shape), dtype), *others], float(rng.choice([0, 0, 0.1]))


@contextlib.contextmanager
def chosen(isa=None, threads=None):
    """The instruction set and the number of threads in use meanwhile."""
    before = core.build_info()
    try:
        _abi.call(_abi.lib.bce_set_isa, (isa or before["isa"]).encode())
        core.set_num_threads(threads or before["num_threads"])
        yield
    finally:
        _abi.call(_abi.lib.bce_set_isa, before["isa"].encode())
        core.set_num_threads(before["num_threads"])
