"""What is installed: for bug reports and for the command line's info."""

import platform
from importlib import metadata

PACKAGES = ("numpy", "torch", "rpy2", "cffi", "mpmath")


def versions():
    """A dict of names to versions, "not installed" where a package is missing. Starts R only if rpy2 is installed."""
    from bce_bridge import __version__, r

    found = {"bce_bridge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    for implementation in ("r-package", "r-torch"):
        try:
            found[implementation] = r.version(implementation)
        except r.NotAvailable as hint:
            found[implementation] = f"not installed: {hint}"
    return found


def show_versions():
    """Print versions(), one a line, and return them."""
    found = versions()
    for name, value in found.items():
        print(f"{name}: {value}")
    return found
