"""Tests that embed R, each in a process of its own: R starts once in a process and never quite ends."""

import functools
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
