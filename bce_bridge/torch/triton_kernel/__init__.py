"""Loss and gradient of CUDA tensors in one pass, by Triton, with the C core's bits.

Imports torch, Triton and the core; ImportError if Triton is older than 3.4.

    launch.py     what evaluate.py calls
    known.py      whether the kernels are right on a device
    prepare.py    arguments made once, the fast path's table among them
    fast.py       large tensors of at most float32: all in pairs of float32 (pairs.py), and a list of what these cannot decide
    kernels.py    the float64 formulae (float64.py), for what is listed and for everything else
    sums.py       exact sums
    memory.py     loading and storing

Fused multiply-adds are written out and contraction is off: hence the core's bits.
"""

import triton

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 4):
    raise ImportError(f"bce_bridge.torch.triton_kernel requires Triton 3.4 or newer, got {triton.__version__}")

from bce_bridge.torch.triton_kernel.known import gives_the_cores_bits
from bce_bridge.torch.triton_kernel.launch import gradient, loss_and_gradient, partial_sums

__all__ = ["gives_the_cores_bits", "gradient", "loss_and_gradient", "partial_sums"]
