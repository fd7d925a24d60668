"""session.call in an R of its own: a child process, asked over pipes. It starts at the first call and ends with this one."""

import atexit
import os
import pickle
import subprocess
import sys
import threading

from bce_bridge.r import session
from bce_bridge.r.session import NotAvailable, RError

_lock = threading.Lock()
_child = None
_of_parent = None


def call(name, *arguments):
    """session.call(name, *arguments), answered by the child process; raises what it raises there."""
    global _child
    with _lock:
        if _child is None:
            _child = _start()
        try:
            pickle.dump((name, arguments), _child.stdin)
            _child.stdin.flush()
            outcome, answer = pickle.load(_child.stdout)
        except BaseException as error:
            # Its pipe would hold an answer to a question that nobody asks any more.
            status = _stop(kill=not isinstance(error, (EOFError, OSError)))
            if isinstance(error, (EOFError, OSError)):
                raise RError(f"the R process of its own ended with status {status}") from None
            raise
    if outcome == "error":
        raise answer
    return answer


def _start():
    if not sys.executable:
        raise NotAvailable("R torch runs in a Python process of its own: sys.executable, which would start it, is not set")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "TORCH_INSTALL": "0",  # R torch downloads nothing when it is loaded
    }
    return subprocess.Popen(
        # Less the folder that -c puts in front, where a checkout may hold this package uncompiled.
        [sys.executable, "-c", f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C interrupts this process
    )


@atexit.register
def _stop(kill=False):
    global _child
    child, _child = _child, None
    if child is None:
        return None
    if kill:
        child.kill()
    try:
        child.stdin.close()
    except OSError:
        pass
    child.stdout.close()
    return child.wait()


def _after_fork():
    """The child process is the parent's: a fork starts its own, and holds no end of the pipes whose closing ends that one."""
    global _lock, _child, _of_parent
    _lock = threading.Lock()  # a thread that a fork does not have may hold the other
    # Kept, since the file objects would write what is left in them when they are freed.
    _of_parent, _child = _child, None
    if _of_parent is not None:
        _of_parent.stdin.raw.close()
        _of_parent.stdout.raw.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def serve():
    """What the child process does: answer questions until there are no more."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What R reads and prints itself stays out of both.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    while True:
        try:
            name, arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            answer = "value", session.call(name, *arguments)
        except (NotAvailable, RError) as error:
            answer = "error", error
        pickle.dump(answer, answers)
        answers.flush()
