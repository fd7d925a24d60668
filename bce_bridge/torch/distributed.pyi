from typing import Literal

from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

def global_loss(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    group: ProcessGroup | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor: ...
def dtensor_loss(
    logits: DTensor,
    targets: DTensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: Literal["mean", "sum", "none"],
    label_smoothing: float,
) -> DTensor: ...
