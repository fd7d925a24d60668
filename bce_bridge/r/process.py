"""session.call in a separate R: a child process, asked over pipes. It starts at the first call and ends with this process."""

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
    """session.call(name, *arguments) in the child process. Raises what it raises there."""
    global _child
    with _lock:
        if _child is None:
            _child = _start()
        try:
            pickle.dump((name, arguments), _child.stdin)
            _child.stdin.flush()
            outcome, answer = pickle.load(_child.stdout)
        except BaseException as error:
            # An unread reply would pair with the next request, so kill the process.
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
        # -c puts the current folder in front. Remove it: a checkout there may hold this package uncompiled.
        [sys.executable, "-c", f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C interrupts this process, not the child
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
    """The child process belongs to the parent: a fork starts its own.

    A fork must also close its ends of the pipes, because the child ends when all of them are closed.
    """
    global _lock, _child, _of_parent
    _lock = threading.Lock()  # the old one may be held by a thread that the fork lacks
    # Keep the file objects: freeing them would flush what is left in their buffers.
    _of_parent, _child = _child, None
    if _of_parent is not None:
        _of_parent.stdin.raw.close()
        _of_parent.stdout.raw.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def serve():
    """What the child process does: answer requests until the pipe closes."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # R's own input and output must not reach these pipes.
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
