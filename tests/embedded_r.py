"""R for tests: embedded in a process for each test, since R starts once in a process and never quite ends, and Rscript."""

import functools
import os
import subprocess
from pathlib import Path

from processes import run_python


def in_own_process(test):
    """Decorator: the test's body runs in a child process."""

    @functools.wraps(test)
    def run():
        path = Path(test.__code__.co_filename)
        find = f"import sys; sys.path[:0] = {[str(path.parent), str(Path(__file__).parent)]!r}"
        run_python(f"{find}; import {path.stem} as module; module.{test.__name__}.__wrapped__()")

    return run


def r_text(source):
    """The character vector that R source gives in the global environment, as a list."""
    from rpy2 import rinterface

    return list(rinterface.baseenv["eval"](rinterface.parse(source), rinterface.globalenv))


def rscript(code, **environment):
    """The stdout of Rscript, which finds the R package; fails with its stderr if it fails."""
    from bce_bridge import r

    libraries = os.pathsep.join(filter(None, [str(r.library_path()), os.environ.get("R_LIBS")]))
    variables = os.environ | {"R_LIBS": libraries} | environment
    done = subprocess.run(["Rscript", "-e", code], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
