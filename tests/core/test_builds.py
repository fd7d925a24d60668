"""The core built from source in other ways than setuptools builds it: the same bits, no warnings, C++."""

import subprocess
from pathlib import Path

import pytest

VERIFY = Path(__file__).resolve().parents[2] / "c_src/verify"


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
