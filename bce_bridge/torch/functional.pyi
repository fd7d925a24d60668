from typing import Literal, TypeAlias

from torch import Tensor, dtype

_Backend: TypeAlias = Literal["auto", "core", "triton", "aten"]

BACKENDS: tuple[_Backend, ...]

# reduction is text, as torch has it: whoever changes the import changes no more.
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    backend: _Backend = "auto",
) -> Tensor: ...
def kernel_for(
    backend: _Backend, input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None
) -> Literal["core", "triton", "aten", "operator"]: ...
def loss_dtype(input: Tensor, target: Tensor, device_type: str) -> dtype: ...
