# Any, for an operand, stands for what NumPy takes for an array and for R objects of rpy2.
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "IMPLEMENTATIONS",
    "NotAvailable",
    "RError",
    "evaluate",
    "install",
    "library_path",
    "run",
    "uninstall",
    "version",
]

_Implementation: TypeAlias = Literal["r-package", "r-nmath", "r-tensors", "r-torch"]
_Scalar: TypeAlias = np.floating[Any]
_Array: TypeAlias = NDArray[np.floating[Any]]

IMPLEMENTATIONS: tuple[_Implementation, ...]

class NotAvailable(RuntimeError): ...

class RError(RuntimeError):
    message: str
    call: str | None
    def __init__(self, message: str, call: str | None = None) -> None: ...

@overload
def evaluate(
    implementation: _Implementation,
    logits: Any,
    targets: Any,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> tuple[_Scalar, _Array]: ...
@overload
def evaluate(
    implementation: _Implementation,
    logits: Any,
    targets: Any,
    weight: Any = None,
    pos_weight: Any = None,
    *,
    reduction: Literal["none"],
) -> tuple[_Array, _Array]: ...
@overload
def evaluate(
    implementation: _Implementation,
    logits: Any,
    targets: Any,
    weight: Any,
    pos_weight: Any,
    reduction: Literal["none"],
) -> tuple[_Array, _Array]: ...
def version(implementation: _Implementation) -> str: ...
def install(device: str | torch.device | None = None) -> None: ...
def uninstall() -> None: ...
def library_path() -> Path: ...
def run(source: str) -> dict[str, NDArray[np.float64]]: ...
