"""session.call in a separate R: a child process, asked over pipes. It ends with this process."""

import atexit
import os
import pickle
import subprocess
import sys
import threading

from bce_bridge.r import session
from bce_bridge.r.session import NotAvailable, RError


class RProcess:
    """A child process that answers one request at a time. It is started when it is first asked."""

    def __init__(self):
        self._lock = threading.Lock()
        self._child = None

    def call(self, name, *arguments):
        """session.call(name, *arguments) in the child process. Raises what it raises there."""
        with self._lock:
            if self._child is None:
                self._child = _start()
            try:
                pickle.dump((name, arguments), self._child.stdin)
                self._child.stdin.flush()
                outcome, answer = pickle.load(self._child.stdout)
            except BaseException as error:
                # An unread reply would pair with the next request, so kill the process.
                status = self.stop(kill=not isinstance(error, (EOFError, OSError)))
                if isinstance(error, (EOFError, OSError)):
                    raise RError(f"the R process of its own ended with status {status}") from None
                raise
        if outcome == "error":
            raise answer
        return answer

    def stop(self, kill=False):
        """End the child process, if there is one. Returns its status."""
        child, self._child = self._child, None
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

    def after_fork(self):
        """In a fork: leave the child process to the parent. The fork starts its own.

        A fork must also close its ends of the pipes, because the child ends when all of them are closed.
        """
        self._lock = threading.Lock()  # the old one may be held by a thread that the fork lacks
        # Keep the file objects: freeing them would flush what is left in their buffers.
        self._of_parent, self._child = self._child, None
        if self._of_parent is not None:
            self._of_parent.stdin.raw.close()
            self._of_parent.stdout.raw.close()


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


_process = RProcess()
call = _process.call
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)


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
