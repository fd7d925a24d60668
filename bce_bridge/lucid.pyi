# Any stands for lucid.Tensor, whose types are to be had on a Mac alone.
from typing import Any, Literal, TypeAlias

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
    def __init__(self, weight: Any = None, reduction: _Reduction = "mean", pos_weight: Any = None) -> None: ...
    def forward(self, x: Any = None, target: Any = None, *, input: Any = None) -> Any: ...
    def __call__(self, x: Any = None, target: Any = None, *, input: Any = None) -> Any: ...
    def extra_repr(self) -> str: ...
