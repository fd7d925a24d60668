"""Whether the kernels are right on a device, by a dozen known elements."""

import functools
import math

import torch

from bce_bridge.torch.triton_kernel.launch import Launch
from bce_bridge.torch.triton_kernel.prepare import cores_answers


@functools.cache
def gives_the_cores_bits(device):
    """Whether on this device the kernels of both paths answer a dozen known elements with the C core's bits.

    Asked once: a Triton that rounds a constant, or a device that is not IEEE's, would be silently wrong in the last digits.
    """
    logits = [0.0, 0.5, -3.25, 20.0, -20.0, 88.5, -104.0, 700.0, -1e4, 3 * 2.0**-23, float.fromhex("0x1.d483ap-12"), -math.inf]
    targets = [0.0, 1.0, 0.3, 1.0, 0.0, 0.0, 1.0, 0.7, 0.0, 0.0, 1.0, 0.0]
    with torch.inference_mode(False), torch.no_grad():
        for dtype, fast in ((torch.float64, False), (torch.float32, True)):
            x, y = (torch.tensor(numbers, dtype=dtype, device="cpu") for numbers in (logits, targets))
            wanted = cores_answers(x, y)
            there = x.to(device), y.to(device), None, None
            results = [torch.empty_like(there[0]) for _ in wanted]
            launch = Launch(there, 0.0, *results)
            with torch.cuda.device_of(there[0]):
                if fast:
                    launch.fast(None, 1)
                else:
                    launch.float64(None)
            integers = torch.int64 if dtype == torch.float64 else torch.int32
            if not all(torch.equal(a.cpu().view(integers), b.view(integers)) for a, b in zip(results, wanted)):
                return False
    return True
