from bce_bridge.torch.functional import binary_cross_entropy_with_logits
from bce_bridge.torch.modules import BCEWithLogitsLoss

__all__ = ["BCEWithLogitsLoss", "binary_cross_entropy_with_logits"]
