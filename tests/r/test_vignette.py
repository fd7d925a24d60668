"""The R package's vignette shows R beside Python. Catches a chunk in one language that no longer prints what the other does."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from embedded_r import rscript

VIGNETTE = Path(__file__).resolve().parents[2] / "r_compat/vignettes/bcebridge.Rmd"
PAIR = re.compile(r"^```\{r (\w+)\}\n(.*?)^```$.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.r


def printed_by_r(sources):
    script = "\n".join(f"{source}\ncat('end\\n')" for source in sources)
    return rscript(script).split("end\n")[:-1]


def printed_by_python(sources):
    printed, names = [], {}
    for source in sources:
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            exec(source, names)
        printed.append(stdout.getvalue())
    return printed


def test_r_and_python_print_the_same_lines():
    names, in_r, in_python = zip(*PAIR.findall(VIGNETTE.read_text("utf-8")), strict=True)
    assert names == ("number", "derivatives", "matrix", "parts", "state")
    want = printed_by_r(in_r)
    assert all("0x" in lines for lines in want) and printed_by_python(in_python) == want
