"""examples/: that they run as they are printed, and that what they show is so."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


# Catches: an example that broke with the package, a loss that trains to something else, and memory beyond torch's.
def test_multilabel_digits():
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples/multilabel_digits.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == "loss macro F1 average precision seconds peak memory of a step".split()
    rows = {name: [float(number) for number in numbers] for name, *numbers, unit in map(str.split, lines) if unit == "KiB"}
    assert list(rows) == ["torch", "bce_bridge"] and len(lines) == 2
    (f1, precision, _, memory), (our_f1, our_precision, _, our_memory) = rows.values()
    # A linear model does far better than chance, which is the labels' share: 0.38 on average.
    assert f1 > 0.8 and precision > 0.8
    # One of 360 digits changes the F1 of a label with 35 positives, the rarest, by 1/70, and so the mean of six by 0.0024.
    assert our_f1 == pytest.approx(f1, abs=0.0025) and our_precision == pytest.approx(precision, abs=0.0025)
    assert our_memory < memory
