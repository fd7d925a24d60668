"""The embedded R: started once, called under one lock, with NumPy arrays and text in and out. Imports rpy2 when R is needed."""

import contextlib
import importlib.resources
import os
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np

_NO_R = "R was not found: install it with the system's package manager (r-base on Debian, r on Homebrew), or set R_HOME"
_NO_RPY2 = "rpy2 is not installed: pip install 'bce-bridge[r]'"


class NotAvailable(RuntimeError):
    """An implementation cannot run here. The text is one line on how to get it."""


class RError(RuntimeError):
    """An error in R.

    Attributes
    ----------
    message : str
        R's conditionMessage.
    call : str or None
        The R call that the error arose in, as text.
    """

    def __init__(self, message, call=None):
        super().__init__(message, call)
        self.message = message
        self.call = call

    def __str__(self):
        return self.message if self.call is None else f"{self.message} (in {self.call})"


def library_path():
    """Return the R library of this Python environment, as a Path.

    It is searched first if it exists, so install bcebridge there.
    """
    return Path(sys.prefix) / "lib" / "R" / "library"


def _import_rpy2():
    try:
        import rpy2.situation
    except ImportError:
        raise NotAvailable(_NO_RPY2) from None
    if os.name != "nt" and not os.environ.get("R_HOME") and shutil.which("R") is None:
        raise NotAvailable(_NO_R)
    home = rpy2.situation.get_r_home()
    if home is None:
        raise NotAvailable(_NO_R)
    if not Path(home, "library", "base").is_dir():  # without it R ends the process
        raise NotAvailable(f"R_HOME must be the folder of an R, got {home!r}: set it to what R RHOME prints, or leave it unset")
    try:
        from rpy2 import rinterface
        from rpy2.rinterface_lib import openrlib
    except Exception as error:
        reason = " ".join(str(error).split())
        raise NotAvailable(f"rpy2 does not load with the R in {home} ({reason}): reinstall rpy2, or set R_HOME") from None
    return rinterface, openrlib.rlock


_started = None


def start():
    """Start R if it does not run. Returns rpy2.rinterface, its lock, and the environment of this package's R functions.

    Raises NotAvailable. Hold the lock to call R, to make an R object and to drop the last reference to one.
    """
    global _started
    if _started is None:
        path = os.environ.get("LD_LIBRARY_PATH")
        try:
            rinterface, lock = _import_rpy2()
            with lock:
                if _started is None:
                    _started = rinterface, lock, _start(rinterface)
        finally:
            # rpy2 adds R's folders. They may hold the system's libpython, which child processes would then load.
            os.environ.pop("LD_LIBRARY_PATH", None)
            if path is not None:
                os.environ["LD_LIBRARY_PATH"] = path
    return _started


def _start(rinterface):
    interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # rpy2 warns in a second thread that R took SIGINT over, though it starts R with R's signal handlers off.
        warnings.simplefilter("ignore")
        try:
            rinterface.initr(interactive=False)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise NotAvailable(f"R did not start ({reason}): check that R_HOME is what R RHOME prints") from None
    if interrupt is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)  # rpy2 replaced it by Python's default
    base = rinterface.baseenv
    functions = base["new.env"](parent=base)
    for file in ("session.R", "implementations.R", "callback.R"):
        source = importlib.resources.files(__package__).joinpath(file).read_text("utf-8")
        base["eval"](rinterface.parse(source), functions)
    if library_path().is_dir():
        functions["use_library"](rinterface.StrSexpVector([str(library_path())]))
    return functions


def to_r(rinterface, value):
    """Make an R object of None, text, or a real array of any shape and strides. An R object is returned as it is.

    Arrays become doubles, with dim from two dimensions up. A NaN whose payload is R's NA becomes the usual NaN, since NumPy
    knows no NA.
    """
    if value is None:
        return rinterface.NULL
    if isinstance(value, rinterface.sexp.Sexp):
        return value
    if isinstance(value, str):
        return rinterface.StrSexpVector([value])
    nan = np.isnan(value)
    array = np.require(np.where(nan, np.nan, value) if nan.any() else value, np.float64, ["F", "A"])
    vector = rinterface.FloatSexpVector.from_memoryview(memoryview(array.ravel(order="F")))
    if array.ndim > 1:
        vector.do_slot_assign("dim", rinterface.IntSexpVector(array.shape))
    return vector


def _from_r(rinterface, vector):
    """A character vector as a list, doubles as a flat array: copies, since an array does not keep R's memory alive."""
    if isinstance(vector, rinterface.StrSexpVector):
        return list(vector)
    if len(vector) == 0:
        return np.empty(0)
    return np.array(vector, np.float64).ravel(order="F")


def without_r(value, name):
    """Return value, or if it is an R object a NumPy array of its numbers that owns its memory.

    Raises RError, which calls the object by this name, if it is not numbers, holds NA (NumPy would take it for a number) or has
    a class (a factor's numbers are the codes of its levels).
    """
    if not hasattr(value, "__sexp__"):
        return value
    numbers, shape = call("numbers", value, name)
    return numbers.reshape(shape.astype(int), order="F")


def call(name, *arguments):
    """Call the R function of this name in this package's .R files.

    Arguments are None, text, arrays or R objects (see to_r). R returns a list, of which each element comes back as a list of
    str or as a flat float64 array in R's element order. Raises RError, and NotAvailable if the R function signals it. In the
    main thread a signal handler that raises, as Ctrl-C's does, interrupts R and then raises here.
    """
    rinterface, lock, functions = start()
    with lock, interruptible():
        outcome, answers = _call(rinterface, functions, name, arguments)
    if outcome == "value":
        return answers
    if outcome == "interrupted":
        # R catches the signal itself while it waits, as in Sys.sleep(): raise it again.
        signal.raise_signal(signal.SIGINT)
    if outcome == "unavailable":
        raise NotAvailable(answers[0])
    raise RError(*answers)


def run(source):
    """Run R source whose value is a named list of numeric vectors.

    It runs in a new environment, whose parent is R's global one.

    Parameters
    ----------
    source : str

    Returns
    -------
    dict of str to ndarray
        float64 arrays by the list's names.

    Raises
    ------
    RError
        For an error in R.
    NotAvailable
        Without rpy2 or R.
    ValueError
        If source holds a NUL character.
    """
    if "\0" in source:
        raise ValueError(f"source must have no NUL character, where R would take it to end, got one at {source.index(chr(0))}")
    names, *columns = call("run", source)
    return dict(zip(names, columns, strict=True))


# Whether R is calling Python. There a signal handler may raise, since _answer catches it. Elsewhere R would get the exception.
in_callback = False


@contextlib.contextmanager
def interruptible():
    """Turn an exception of Python's SIGINT handler into an interruption of R, and raise it when R has returned.

    While R runs, the handler runs only where R looks for events. The exception is raised whatever R made of the interruption.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    raised = None

    def handle(number, frame):
        nonlocal raised
        try:
            handler(number, frame)
        except BaseException as error:
            raised = error
            _set_interrupted(1)
            if in_callback:
                raise

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except BaseException:
        if raised is None:
            raise
    finally:
        signal.signal(signal.SIGINT, handler)
    if raised is not None:
        _set_interrupted(0)
        raise raised.with_traceback(None)


def _set_interrupted(value):
    from rpy2.rinterface_lib import openrlib

    setattr(openrlib.rlib, "UserBreak" if os.name == "nt" else "R_interrupts_pending", value)


def _call(rinterface, functions, name, arguments):
    # R objects must be freed under the lock, that is, on return from here. An exception's traceback would keep them alive.
    try:
        answer = functions["answer"](to_r(rinterface, name), *(to_r(rinterface, value) for value in arguments))
    except rinterface.embedded.RRuntimeError as error:
        return "error", [str(error).strip()]
    outcome, *answers = answer
    (outcome,) = outcome
    if outcome == "value":
        return outcome, tuple(_from_r(rinterface, vector) for vector in answers)
    return outcome, [text for (text,) in answers]
