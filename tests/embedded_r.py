"""Tests that embed R, each in a process of its own: R starts once in a process and never quite ends."""

import functools
import os
import subprocess
import sys
from pathlib import Path


def run_python(code, **environment):
    """The stdout of a child process that runs the code with every warning an error; fails with its stderr if it fails.

    environment: variables to set, or to remove where None.
    """
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    child = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, f"exit status {child.returncode}\n{child.stdout}{child.stderr}"
    return child.stdout


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
