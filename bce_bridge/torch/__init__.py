"""The loss for torch: torch.nn.functional's function and torch.nn's module. Everything that imports torch is in here.

    functional.py, modules.py    what users call
    autograd.py                  plain tensors in eager mode
    operators.py                 everything else: torch.compile, torch.func, torch.export, DTensor
    derivatives.py               formulae for the derivatives that the core does not have
    evaluate.py                  tensors to the core or to the Triton kernel
    distributed.py               the loss over processes, and of DTensors
    triton_kernel/               CUDA
    checks.py, _private.py       refusals; the private names of torch

distributed and triton_kernel are loaded where they are needed.
"""

from bce_bridge.torch.functional import binary_cross_entropy_with_logits
from bce_bridge.torch.modules import BCEWithLogitsLoss

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]
