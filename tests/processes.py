"""Python and the command line in a child process."""

import os
import subprocess
import sys


def run_python(code, **environment):
    """The stdout of a child process that runs the code with every warning an error; fails with its stderr if it fails.

    environment: variables to set, or to remove where None.
    """
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    child = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, f"exit status {child.returncode}\n{child.stdout}{child.stderr}"
    return child.stdout


def run_cli(*arguments, status=0, cwd=None):
    """The finished process of bce-bridge with these arguments; fails if it ends with another exit status."""
    command = [sys.executable, "-m", "bce_bridge.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done
