"""R from Python and Python from R, through rpy2.

    evaluate(implementation, logits, targets, ...)    the loss and its gradient as R computes them, NumPy in and out
    version(implementation)                           what it runs on, or NotAvailable with how to get it
    run(source)                                       R source, for the numbers it gives
    install(device), uninstall()                      this package's loss in the embedded R, under R torch's names
    library_path()                                    the R library that belongs to this Python environment

R starts at the first use, not with the import, which needs neither rpy2 nor R. It starts without prompts and leaves Python's
signal handlers alone. An R that runs already is used as it is. Everything here may be called from any thread.

Imports the core, and torch only if install() is given a device.
"""

from bce_bridge.r.callback import install, uninstall
from bce_bridge.r.implementations import IMPLEMENTATIONS, evaluate, version
from bce_bridge.r.session import NotAvailable, RError, library_path, run

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
