"""Print the Triton for the tests, as a requirement: the one that the CUDA build of the installed torch asks for.

The CPU build of torch brings no Triton. Prints nothing if Triton is installed, has no wheel for this machine, or torch is of a
release that is not listed.
"""

import importlib.util
import platform
from importlib.metadata import version

TRITON = {"2.7": "3.3.1", "2.9": "3.5.1", "2.11": "3.6.0", "2.13": "3.7.1", "2.14": "3.8.0"}

release = ".".join(version("torch").split(".")[:2])
if (
    importlib.util.find_spec("triton") is None
    and release in TRITON
    and (platform.system(), platform.machine()) == ("Linux", "x86_64")
):
    print(f"triton=={TRITON[release]}")
