"""What pyproject.toml cannot say: the version, which is the C core's, and cffi's extension module.

It is for the stable ABI, which free-threaded Pythons before 3.15 lack: there it is for the one Python that builds it.
"""

import re
import sysconfig
from pathlib import Path

from setuptools import setup

header = Path("c_src/bce.h").read_text(encoding="utf-8")

setup(
    version=re.search(r'^#define BCE_VERSION "(.+)"$', header, re.MULTILINE)[1],
    cffi_modules=["bce_bridge/_build.py:ffibuilder"],
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
