# A scalar is NumPy's; a bfloat16 of ml_dtypes, which NumPy's types do not know, is called a floating here too.
from typing import Any, Literal, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import Self

__all__ = ["Accumulator", "build_info", "curvature", "get_num_threads", "loss", "loss_and_grad", "set_num_threads"]

_Scalar: TypeAlias = np.floating[Any]
_Array: TypeAlias = NDArray[np.floating[Any]]
_Scalars: TypeAlias = Literal["mean", "sum"]
_Reduction: TypeAlias = Literal["mean", "sum", "none"]

class _BuildInfo(TypedDict):
    version: str
    compiler: str
    isa: str
    isas_built: list[str]
    isas_supported: list[str]
    num_threads: int

@overload
def loss(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: _Scalars = "mean",
    *,
    label_smoothing: float = 0.0,
) -> _Scalar: ...
@overload
def loss(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: float = 0.0,
) -> _Array: ...
@overload
def loss(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None,
    pos_weight: ArrayLike | None,
    reduction: Literal["none"],
    *,
    label_smoothing: float = 0.0,
) -> _Array: ...
@overload
def loss_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: _Scalars = "mean",
    *,
    label_smoothing: float = 0.0,
    out: _Array | None = None,
) -> tuple[_Scalar, _Array]: ...
@overload
def loss_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: float = 0.0,
    out: _Array | None = None,
) -> tuple[_Array, _Array]: ...
@overload
def loss_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None,
    pos_weight: ArrayLike | None,
    reduction: Literal["none"],
    *,
    label_smoothing: float = 0.0,
    out: _Array | None = None,
) -> tuple[_Array, _Array]: ...
def curvature(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: _Reduction = "mean",
    *,
    label_smoothing: float = 0.0,
) -> _Array: ...
def checked_operands(
    logits: ArrayLike,
    targets: ArrayLike,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: _Reduction = "mean",
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]: ...

class Accumulator:
    def __init__(self) -> None: ...
    def update(
        self,
        logits: ArrayLike,
        targets: ArrayLike,
        weight: ArrayLike | None = None,
        pos_weight: ArrayLike | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> Self: ...
    def merge(self, other: Accumulator) -> Self: ...
    def sum(self, dtype: DTypeLike = ...) -> _Scalar: ...
    def mean(self, dtype: DTypeLike = ...) -> _Scalar: ...
    @property
    def count(self) -> int: ...
    def to_array(self) -> NDArray[np.int64]: ...
    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> Self: ...
    def __getstate__(self) -> dict[str, int]: ...
    def __setstate__(self, state: dict[str, int]) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__: None  # type: ignore[assignment]

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def build_info() -> _BuildInfo: ...
