"""Names the extension module that pyproject.toml cannot: cffi's out-of-line API mode, for the stable ABI."""

from setuptools import setup

setup(
    cffi_modules=["bce_bridge/_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
