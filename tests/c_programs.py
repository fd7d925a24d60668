"""C programs that are linked with the core's sources."""

import subprocess
import sysconfig
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "c_src"
VERIFY = SOURCES / "verify"


def build(program, *arguments, libraries=()):
    """The path of a program, or with -shared of a library, compiled from the arguments and the core."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    libraries = [f"-l{name}" for name in (*libraries, "m")]
    subprocess.run(
        [*compiler, "-O2", "-pthread", *arguments, *sorted(SOURCES.glob("*.c")), "-o", program, *libraries], check=True
    )
    return program
