"""What pyproject.toml cannot say: the version, which is the C core's, and cffi's extension module, for the stable ABI."""

import re
from pathlib import Path

from setuptools import setup

header = Path("c_src/bce.h").read_text(encoding="utf-8")

setup(
    version=re.search(r'^#define BCE_VERSION "(.+)"$', header, re.MULTILINE)[1],
    cffi_modules=["bce_bridge/_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
