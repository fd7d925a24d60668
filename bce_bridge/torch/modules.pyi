import torch
from torch import Tensor

from bce_bridge.torch.functional import _Backend

class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    label_smoothing: float
    backend: _Backend
    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        backend: _Backend = "auto",
    ) -> None: ...
    def forward(self, input: Tensor, target: Tensor) -> Tensor: ...
