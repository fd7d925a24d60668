"""Arguments of the kernels that are made once: numbers in the forms they take, and the fast path's table."""

import functools

import torch

from bce_bridge import _abi
from bce_bridge.torch.triton_kernel import pairs
from bce_bridge.torch.triton_kernel.float64 import bits_of


@functools.lru_cache(256)
def bits(x):
    return bits_of(x).value


@functools.lru_cache(256)
def pair(x):
    """x as two float32."""
    high = torch.tensor(x, dtype=torch.float32, device="cpu").item()
    return high, x - high


def cores_answers(x, y):
    """The C core's losses and gradients of two CPU tensors of one dtype and one dimension."""
    results = torch.empty_like(x), torch.empty_like(x)
    dtype = str(x.dtype).removeprefix("torch.")
    x, y, loss, gradient = (_abi.Array(a.data_ptr(), dtype, a.shape, [a.itemsize]) for a in (x, y, *results))
    _abi.evaluate(x, y, None, None, 0.0, "none", loss=loss, gradient=gradient)
    return results


@functools.cache
def tables(device):
    """pairs.py's table for pairs and for float32, by the C core: its float64 is right to 2^-51."""
    with torch.inference_mode(False), torch.no_grad():
        x = torch.arange(pairs.ENTRIES, dtype=torch.float64, device="cpu") / -pairs.STEPS
        numbers = cores_answers(x, torch.zeros_like(x))
        columns = []
        for number in numbers:
            high = number.float()
            columns += [high, (number - high.double()).float()]
        table = torch.stack(columns, 1)
        return table.to(device), table[:, ::2].contiguous().to(device)
