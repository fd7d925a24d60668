"""Binary cross entropy with logits: one C core, the same bits in Python and in R.

    bce_bridge.BCEWithLogitsLoss, bce_bridge.binary_cross_entropy_with_logits    as in torch
    bce_bridge.torch                                                             what torch users call, and what it is made of
    bce_bridge.core                                                              on NumPy arrays
    bce_bridge.pykeen, bce_bridge.composer, bce_bridge.lucid                     as in those systems, to be imported by name
    bce_bridge.r                                                                 R through rpy2
    bce_bridge.conformance                                                       the cross-check

Importing this package imports neither torch nor rpy2: a name that needs one loads it when it is first used.
"""

import importlib

_LAZY = {
    "BCEWithLogitsLoss": "bce_bridge.torch",
    "binary_cross_entropy_with_logits": "bce_bridge.torch",
    "show_versions": "bce_bridge.versions",
}
_SUBMODULES = ["conformance", "core", "r", "torch"]

__all__ = [*_LAZY, *_SUBMODULES, "__version__"]


def __getattr__(name):
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"bce_bridge.{name}")
    elif name == "__version__":
        value = importlib.import_module("bce_bridge._abi").VERSION
    else:
        raise AttributeError(f"module 'bce_bridge' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
