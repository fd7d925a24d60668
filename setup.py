"""What pyproject.toml cannot say: the version, which is the C core's, and how cffi's extension module is built.

It is for the stable ABI, which free-threaded Pythons before 3.15 lack: there it is for the one Python that builds it.
"""

import re
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildExtension(build_ext):
    """On Windows MinGW's GCC: MSVC, the default there, lacks the attributes and pragmas that give every build the same bits."""

    def initialize_options(self):
        super().initialize_options()
        if sys.platform == "win32":
            self.compiler = "mingw32"

    def build_extension(self, extension):
        if self.compiler.compiler_type == "mingw32":
            extension.extra_compile_args.append("-O2")
            extension.extra_link_args.append("-static-libgcc")
        super().build_extension(extension)

    def get_libraries(self, extension):
        """For the stable ABI python3.dll, where the base class names the DLL of the one Python that builds."""
        if self.compiler.compiler_type == "mingw32" and extension.py_limited_api:
            return [*extension.libraries, "python3"]
        return super().get_libraries(extension)


header = Path("c_src/bce.h").read_text(encoding="utf-8")

setup(
    version=re.search(r'^#define BCE_VERSION "(.+)"$', header, re.MULTILINE)[1],
    cffi_modules=["bce_bridge/_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildExtension},
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
