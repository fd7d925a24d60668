"""Threads of the core, which are started in a call and have ended when it returns: forks, callers at once, their number."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from processes import run_python

from bce_bridge import core

N = 2**19 + 5  # for three threads and more: 2^17 elements each


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = core.get_num_threads()
    yield
    core.set_num_threads(before)


def problem(seed, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 6, n).astype(np.float32), rng.random(n).astype(np.float32), rng.random(n).astype(np.float32)


def compute(operands):
    loss, gradient = core.loss_and_grad(*operands, reduction="none")
    total = core.Accumulator().update(*operands)
    return loss.tobytes(), gradient.tobytes(), core.loss(*operands).tobytes(), total.to_array().tobytes()


# NumPy's BLAS has threads of its own, of which Python 3.12 and later warn at a fork: one thread is none to start.
_ONE_BLAS_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


_FORK = """
import multiprocessing
import numpy as np
from bce_bridge import core

core.set_num_threads(4)
x, shared = np.random.default_rng(0).normal(0, 6, 2**19 + 5), core.Accumulator()

def compute(_=None):
    loss, gradient = core.loss_and_grad(x, x, reduction="none")
    return loss.tobytes() + gradient.tobytes(), shared.update(x, x).count, core.get_num_threads()

want, *_ = compute()
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.map_async(compute, range(2)).get(60) == [(want, 2 * x.size, 4), (want, 3 * x.size, 4)]
assert compute() == (want, 2 * x.size, 4)
"""


def test_fork_after_a_threaded_call():
    """Catches a lock of the binding that a fork leaves held: the child waits for ever. From Python 3.12 on also a thread that
    outlives its call: a fork warns of it, and a warning is an error."""
    run_python(_FORK, **_ONE_BLAS_THREAD)


# Catches scratch memory, a plan or a message that calls share.
@pytest.mark.parametrize("threads", [1, 3])
def test_many_callers_at_once(threads):
    core.set_num_threads(threads)
    problems = [problem(seed, n) for seed, n in enumerate([N, 1, 1000, 2**18 + 1, 0, 70_001, N - 1, 255])]
    want = [compute(operands) for operands in problems]
    wrong, start = [], threading.Barrier(len(problems))

    def work(k):
        start.wait()
        for i in range(4):
            at = (k + i) % len(problems)
            if compute(problems[at]) != want[at]:
                wrong.append(at)
            x = problems[at][0]
            try:
                core.loss(x, x[:-1] if len(x) else [1.0])
            except ValueError as error:
                if f"the logits' shape ({len(x)},)" not in str(error):
                    wrong.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(problems))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_number_of_threads():
    for n in (1, 2, 7, 1024, np.int64(3), np.uint8(5)):
        core.set_num_threads(n)
        assert core.get_num_threads() == n == core.build_info()["num_threads"] and type(core.get_num_threads()) is int
    for bad in (0, -1, 1025, 2**40, 1.0, 2.5, "2", None, True, np.True_, float("nan"), [2]):
        with pytest.raises(ValueError, match="^n must be an integer from 1 to 1024, got ."):
            core.set_num_threads(bad)
    assert core.get_num_threads() == 5


def test_more_threads_than_elements_are_worth():
    """Catches a share of a thread that is empty or lies past the end."""
    core.set_num_threads(1)
    operands = [problem(2, n) for n in (0, 1, 4096, 2**17 - 1, 2**17, 2**18 - 1, 2**18)]
    want = [compute(each) for each in operands]
    core.set_num_threads(1024)
    assert [compute(each) for each in operands] == want


_TRUNCATED = """
import os, sys
import numpy as np
from bce_bridge import core
core.set_num_threads(2)
x = np.memmap(sys.argv[1], np.float32, "r")
os.truncate(sys.argv[1], 2 * x.size)
core.loss(x[::-1], np.zeros(x.size, np.float32))
"""


# Catches a fault in a thread of the core, whose share is the file's lost half, that kills the process without a word.
def test_a_fault_in_a_thread_leaves_a_trace(tmp_path):
    path = tmp_path / "logits"
    np.zeros(2**20, np.float32).tofile(path)
    command = [sys.executable, "-X", "faulthandler", "-c", _TRUNCATED, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert child.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in child.stderr


# Catches a lock on imports that a fork during another thread's first call would leave held in the child.
def test_the_first_call_imports_nothing():
    run_python("""
import sys
from bce_bridge import core
before = set(sys.modules)
core.loss([1.0, -2.0], [1.0, 0.0])
assert set(sys.modules) == before, set(sys.modules) - before
""")


_INTERRUPTED = """
import os, signal, threading
import numpy as np
from bce_bridge import core
core.set_num_threads(%d)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
x = np.broadcast_to(np.float32(0.5), 1 << 44)  # hours of computing
before = core.loss(x[:1000], x[:1000])
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    core.loss(x, x)
except KeyboardInterrupt:
    assert core.loss(x[:1000], x[:1000]) == before
    print("interrupted")
"""


# Catches a call that cannot be stopped, which would still run when run_python stops waiting, and an interruption that stays.
@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_call_is_interrupted(threads):
    assert run_python(_INTERRUPTED % threads) == "interrupted\n"
