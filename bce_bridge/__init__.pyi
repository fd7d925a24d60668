from bce_bridge import conformance, core, distributed, functional, modules, r
from bce_bridge.functional import binary_cross_entropy_with_logits
from bce_bridge.modules import BCEWithLogitsLoss
from bce_bridge.versions import show_versions

__all__ = [
    "BCEWithLogitsLoss",
    "__version__",
    "binary_cross_entropy_with_logits",
    "conformance",
    "core",
    "distributed",
    "functional",
    "modules",
    "r",
    "show_versions",
]

__version__: str
