from bce_bridge import conformance, core, r, torch
from bce_bridge.torch import BCEWithLogitsLoss, binary_cross_entropy_with_logits
from bce_bridge.versions import show_versions

__all__ = [
    "BCEWithLogitsLoss",
    "__version__",
    "binary_cross_entropy_with_logits",
    "conformance",
    "core",
    "r",
    "show_versions",
    "torch",
]

__version__: str
