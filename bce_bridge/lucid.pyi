# Any stands for lucid.Tensor: Lucid need not be installed.
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from typing_extensions import Self

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]

_Reduction: TypeAlias = Literal["mean", "sum", "none"]

def binary_cross_entropy_with_logits(
    x: Any = None,
    target: Any = None,
    weight: Any = None,
    reduction: _Reduction = "mean",
    pos_weight: Any = None,
    *,
    input: Any = None,
) -> Any: ...

class BCEWithLogitsLoss:
    weight: Any
    reduction: _Reduction
    pos_weight: Any
    training: bool
    def __init__(self, weight: Any = None, reduction: _Reduction = "mean", pos_weight: Any = None) -> None: ...
    def forward(self, x: Any = None, target: Any = None, *, input: Any = None) -> Any: ...
    def __call__(self, x: Any = None, target: Any = None, *, input: Any = None) -> Any: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def parameters(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...
    def extra_repr(self) -> str: ...
