from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pykeen.losses as losses
from torch import Tensor

__all__ = ["BCEBridgeLoss", "BCEWithLogitsLoss", "register"]

class BCEBridgeLoss(losses.PointwiseLoss):
    synonyms: ClassVar[set[str] | None]
    hpo_default: ClassVar[Mapping[str, Any]]
    __docdata__: ClassVar[dict[str, str]]
    pos_weight: Tensor | None
    def __init__(self, reduction: Literal["mean", "sum"] = "mean", pos_weight: float | Tensor | None = None) -> None: ...
    def forward(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor: ...

BCEWithLogitsLoss = BCEBridgeLoss

def register() -> None: ...
