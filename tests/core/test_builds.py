"""The core built from source in other ways than setuptools builds it: its own tests in C, the same bits, no warnings, C++."""

import subprocess
import sys

import pytest
from c_programs import VERIFY, build


# The core's tests in C: broadcasting, layouts, limits, sums, ties, refusals, threads, forks, signals, shortage of memory and of
# threads. The other tests of this folder show that the binding passes these on.
def test_the_tests_in_c(tmp_path):
    wrapped = ["-DTEST_WRAPPED", "-Wl,--wrap=malloc,--wrap=pthread_create"] if sys.platform == "linux" else []
    program = build(tmp_path / "test_core", *wrapped, *VERIFY.glob("test_*.c"))
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


# Catches: bits that depend on the optimiser, on contraction or on the instruction set; warnings.
def test_the_same_bits_from_every_build(tmp_path):
    builds = ["cc -O2 -Werror", "cc -O0 -std=c11 -pedantic -Werror", "cc -O3 -march=native -ffp-contract=fast"]
    done = subprocess.run([VERIFY / "same_bits.sh", tmp_path, *builds], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= len(builds)


def test_header_is_cpp():
    subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", VERIFY / "test_header.cpp"], check=True)


# Catches a core whose sums and roundings the compiler was allowed to give up.
@pytest.mark.parametrize("option", ["-ffast-math", "-Ofast"])
def test_fast_math_is_refused(option):
    for source in sorted(VERIFY.parent.glob("bce*.c")):
        command = ["cc", option, "-fsyntax-only", str(source)]
        assert "must not be compiled with -ffast-math" in subprocess.run(command, capture_output=True, text=True).stderr, source
