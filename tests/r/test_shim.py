"""bce_bridge.r: R from Python and Python from R. Oracles: the core, bit for bit; base R; recorded answers of R torch."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from embedded_r import in_own_process, r_text
from processes import run_python

from bce_bridge import _abi, core, r
from bce_bridge.conformance.cases import QUANTITIES, VECTORS, load_cases, load_recorded, read_recording
from bce_bridge.r import process, session

REDUCTIONS = ("none", "mean", "sum")

pytestmark = pytest.mark.r


def same_bits(a, b):
    """Equal in shape, dtype and bits, whatever NaN is which."""
    a, b = np.asarray(a), np.asarray(b)
    same = np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))
    return same and a.dtype == b.dtype


def doubles(*operands):
    return [None if a is None else np.asarray(a, np.float64) for a in operands]


def layouts(array):
    """The same numbers in C and Fortran order, strided, reversed, read-only, unaligned and of the other byte order."""
    padded = np.zeros([2 * n for n in array.shape])
    strided = padded[tuple(slice(None, None, 2) for _ in array.shape)]
    strided[...] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    reversed_ = array[::-1].copy()[::-1]
    return [np.ascontiguousarray(array), np.asfortranarray(array), strided, reversed_, frozen, unaligned, array.astype(">f8")]


@in_own_process
def test_r_package_gives_the_bits_of_the_core_on_every_case():
    """Catches a lost bit, a transposed array, a weight along the wrong dimension."""
    for case in load_cases():
        operands = doubles(case.logits, case.targets, case.weight, case.pos_weight)
        for reduction in REDUCTIONS:
            want, got = core.loss_and_grad(*operands, reduction), r.evaluate("r-package", *operands, reduction)
            assert all(map(same_bits, want, got)), (case.id, reduction)


@in_own_process
def test_memory_layout_does_not_matter():
    """Catches memory read in the wrong order or past a stride, in and out of R."""
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(3, 4, 5)), rng.random((3, 4, 5)), rng.random((4, 1))
    want = core.loss_and_grad(x, y, w, reduction="none")
    for implementation in ("r-package", "r-nmath"):
        reference = r.evaluate(implementation, x, y, w, reduction="none")
        assert implementation == "r-nmath" or all(map(same_bits, want, reference))
        for a, b, c in zip(layouts(x), reversed(layouts(y)), layouts(w)):
            assert all(map(same_bits, reference, r.evaluate(implementation, a, b, c, reduction="none")))


@in_own_process
def test_shapes_and_dtypes():
    """Catches 0-d and empty arrays that come back as something else, and a conversion to double that rounds or wraps."""
    for shape in ((), (1,), (0,), (0, 3), (2, 0), (2, 1, 3, 1, 2)):
        x, y = np.full(shape, 0.5), np.full(shape, 1.0)
        for reduction in REDUCTIONS:
            for implementation in ("r-package", "r-nmath"):
                loss, gradient = r.evaluate(implementation, x, y, reduction=reduction)
                assert np.shape(loss) == (shape if reduction == "none" else ()) and np.shape(gradient) == shape
                if x.size == 0 and reduction != "none":
                    assert np.isnan(loss) if reduction == "mean" else loss == 0
    for dtype in ("float16", "float32", "int8", "uint8", "int64", "uint64"):
        x = np.array([0, 1, 3, 100], dtype)
        got = r.evaluate("r-package", x, np.array([True, False, True, False]), np.array(2, dtype), reduction="none")
        assert all(map(same_bits, core.loss_and_grad(x.astype(float), [1.0, 0, 1, 0], 2.0, reduction="none"), got))


@in_own_process
def test_r_nmath():
    """Within some ULP of the core on hard labels, from end to end of the range; broadcasts and takes limits as it does."""
    x = np.concatenate([np.linspace(-745, 745, 2981), np.geomspace(1e-300, 1, 50), -np.geomspace(1e-300, 1, 50)])
    for y in (np.zeros_like(x), np.ones_like(x)):
        for got, want in zip(r.evaluate("r-nmath", x, y, reduction="none"), core.loss_and_grad(x, y, reduction="none")):
            assert np.max(np.abs(got - want) / np.spacing(np.abs(want))) <= 2
    x, y = np.array([[1.0, -2, 3], [0.5, 0, -1]]), np.array([[1.0, 0, 0.5], [0, 1, 1]])
    for w, p in ((2.0, [1.0, 2, 3]), ([[1.0], [3]], None), ([[0.0, 1, 2]], [[0.5, 1, 2], [3, 4, 5]]), ([2.0], [3])):
        for reduction in REDUCTIONS:
            pairs = zip(r.evaluate("r-nmath", x, y, w, p, reduction), core.loss_and_grad(x, y, w, p, reduction))
            assert all(np.allclose(got, want, rtol=1e-14, atol=0) for got, want in pairs)
    inf, nan = np.inf, np.nan
    x = [inf, -inf, inf, -inf, inf, nan, 1, 1, 1, nan]
    y = [1, 0, 0, 1, 0, 1, nan, 1, 1, 0]
    w = [1, 1, 1, 1, 0, 1, 1, nan, 1, 0]
    p = [1, 1, 1, 1, 1, 1, 1, 1, nan, 1]
    for got, want in zip(r.evaluate("r-nmath", x, y, w, p, "none"), core.loss_and_grad(x, y, w, p, "none")):
        np.testing.assert_array_equal(got, want)


def r_torch_is_there():
    """Whether R torch is installed; else the hint how to get it has been looked at."""
    try:
        assert r.version("r-torch").startswith("torch ")
    except r.NotAvailable as hint:
        assert "torch" in str(hint) and "install" in str(hint) and "\n" not in str(hint)
        return False
    return True


@in_own_process
def test_r_torch_beside_python_torch():
    """Where R torch is installed, its live answers are those recorded on the same of libtorch's code paths; else it says how to
    get it.

    Catches two libtorch libraries meeting in one process, and values that change on the way.
    """
    import torch

    assert torch.ones(1) == 1
    if not r_torch_is_there():
        return
    description, recorded = load_recorded()
    same_path = torch.backends.cpu.get_cpu_capability() == description["cpu_capability"]
    for case in load_cases(("float32", "float64")):
        answers = {}
        for reduction in REDUCTIONS:
            loss, gradient = r.evaluate("r-torch", case.logits, case.targets, case.weight, case.pos_weight, reduction)
            assert loss.dtype == gradient.dtype == case.dtype and gradient.shape == case.logits.shape
            answers |= {reduction: loss, f"grad_{reduction}": gradient}
        for quantity in QUANTITIES if same_path else ():
            np.testing.assert_array_equal(np.ravel(answers[quantity]), recorded[case.id][quantity], f"{case.id} {quantity}")
    assert r.evaluate("r-torch", np.float32([1.0]), np.float64([1.0]))[0].dtype == np.float64
    with pytest.raises(TypeError, match="logits must have dtype float32 or float64 for '.*', got float16"):
        r.evaluate("r-torch", np.float16([1.0]), [1.0])


@in_own_process
def test_the_r_package_on_r_torch_tensors_gives_the_bits_of_the_core():
    """Catches a result rounded twice, memory of a tensor read in R's order, and torch's own numbers."""
    if not r_torch_is_there():
        return
    assert r.version("r-tensors").startswith("bcebridge ") and ", torch " in r.version("r-tensors")
    for case in load_cases(("float32", "float64")):
        operands = case.logits, case.targets, case.weight, case.pos_weight
        for reduction in REDUCTIONS:
            want, got = core.loss_and_grad(*operands, reduction), r.evaluate("r-tensors", *operands, reduction)
            assert all(map(same_bits, want, got)), (case.id, reduction)


def test_the_recorder_writes_the_recording(tmp_path):
    """record.R answers the cases with the live R torch as it was recorded, value for value; or says what is missing.

    Catches a recording that does not say what it was made with, and commas between no answers."""
    recorder = Path(__file__).resolve().parents[2] / "r_compat/inst/conformance/record.R"

    def record(cases):
        command = ["Rscript", recorder, cases, tmp_path / "answers.json"]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TORCH_INSTALL": "0"})

    done = record(VECTORS)
    if done.returncode:
        assert "install" in done.stderr and ("torch" in done.stderr or "jsonlite" in done.stderr), done.stderr
        return
    description, answers = read_recording(tmp_path / "answers.json")
    recorded_description, recorded = load_recorded()
    assert description.keys() - {"format", "note"} == recorded_description.keys() - {"quantities"}
    assert answers.keys() == recorded.keys()
    (tmp_path / "none.json").write_text('{"format": "bce-cases/1", "cases": []}')
    assert record(tmp_path / "none.json").returncode == 0 and read_recording(tmp_path / "answers.json") == (description, {})
    live, of_recording = ([d["libtorch"], d["cpu_capability"]] for d in (description, recorded_description))
    assert live[0][0].isdigit()
    if live != of_recording:
        pytest.skip(f"the bits are those of libtorch {' on '.join(live)}, recorded were those of {' on '.join(of_recording)}")
    for id, quantities in recorded.items():
        for name, numbers in quantities.items():
            np.testing.assert_array_equal(answers[id][name], numbers, f"{id} {name}")


@pytest.mark.parametrize("capability", ["default", "avx2", None])
def test_the_recorder_knows_libtorchs_code_path(capability):
    """By libtorch's own rule, which Python's torch tells. Catches a recording that is compared where other bits are right."""
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY" or not capability}
    environment |= {"ATEN_CPU_CAPABILITY": capability} if capability else {}
    recorder = Path(__file__).resolve().parents[2] / "r_compat/inst/conformance/record.R"
    in_r = f"for (e in parse('{recorder}')) if (identical(e[[2]], quote(cpu_capability))) eval(e); cat(cpu_capability())"
    in_python = "from bce_bridge.conformance.implementations import Aten; print(Aten().cpu_capability, end='')"
    commands = ["Rscript", "-e", in_r], [sys.executable, "-c", in_python]
    r_says, python_says = (subprocess.check_output(command, text=True, env=environment) for command in commands)
    assert r_says == python_says


def test_operands_are_refused_as_by_the_core():
    """Refused before R is asked, with the core's own words."""
    bad = [
        (["a"], [1.0]),
        ([1 + 2j], [1.0]),
        ([None], [1.0]),
        ([1.0], None),
        ([True], [1.0]),
        (np.ma.masked_array([1.0], [True]), [1.0]),
        ([1.0, 2.0], [1.0]),
        ([1.0, 2.0], [1.0, 0.0], [1.0, 2.0, 3.0]),
        ([[1.0]], [[1.0]], None, [1.0, 2.0]),
        ([1.0], [1.0], None, None, "average"),
    ]
    for operands in bad:
        with pytest.raises((TypeError, ValueError)) as expected:
            core.loss_and_grad(*operands)
        for implementation in r.IMPLEMENTATIONS:
            with pytest.raises(expected.type) as got:
                r.evaluate(implementation, *operands)
            assert str(got.value) == str(expected.value)
    for function in (r.version, lambda name: r.evaluate(name, [1.0], [1.0])):
        with pytest.raises(ValueError, match="must be 'r-package', 'r-nmath', 'r-tensors' or 'r-torch', got 'rpackage'"):
            function("rpackage")


@in_own_process
def test_numpy_knows_no_na():
    """Catches a NaN that R takes for NA, as arrays taken over from R can hold."""
    na = np.array([0x7FF00000000007A2], np.uint64).view(np.float64)
    for implementation in ("r-package", "r-nmath"):
        loss, gradient = r.evaluate(implementation, [1.0], na)
        assert np.isnan(loss) and np.isnan(gradient).all()


@in_own_process
def test_versions_and_library():
    assert r.version("r-package").startswith("bcebridge 0.") and ", R " in r.version("r-package")
    assert r.version("r-nmath").startswith("R ")
    if r.library_path().is_dir():
        assert Path(r_text(".libPaths()")[0]).samefile(r.library_path())


UNAVAILABLE = """
from bce_bridge import r
try:
    r.evaluate({!r}, [1.0], [1.0])
except r.NotAvailable as error:
    print(error)
"""


def test_what_is_missing_is_said_in_one_line(tmp_path):
    """Catches an import error, R ending the process, and a hint that names no remedy."""
    elsewhere = dict.fromkeys(("R_LIBS", "R_LIBS_SITE", "R_LIBS_USER"), str(tmp_path))
    wants = [
        ("r-nmath", "import sys; sys.modules['rpy2'] = None", {}, "pip install 'bce-bridge[r]'"),
        ("r-nmath", "", {"PATH": str(tmp_path), "R_HOME": None}, "R_HOME"),
        ("r-nmath", "", {"R_HOME": str(tmp_path)}, str(tmp_path)),
        ("r-torch", "", {"R_HOME": str(tmp_path)}, str(tmp_path)),
        ("r-package", "import sys; sys.prefix = '/nowhere'", elsewhere, "R CMD INSTALL"),
    ]
    for implementation, before, environment, hint in wants:
        printed = run_python(before + UNAVAILABLE.format(implementation), **environment)
        assert hint in printed and printed.count("\n") == 1, printed


def test_a_checkout_in_the_working_directory_is_not_what_runs(tmp_path):
    """Catches R torch's own process importing the package from where the user stands instead of the installed one."""
    (tmp_path / "bce_bridge").mkdir()
    (tmp_path / "bce_bridge/__init__.py").write_text("raise ImportError('uncompiled')")
    there = f"import os, sys, bce_bridge.r; sys.path.remove(''); os.chdir({str(tmp_path)!r})\n"
    printed = run_python(there + UNAVAILABLE.format("r-torch"))
    assert printed.count("\n") <= 1 and "uncompiled" not in printed, printed


@in_own_process
def test_errors_of_r():
    """Catches an R error that is swallowed, or that loses the call it arose in."""
    with pytest.raises(r.RError) as caught:
        r.run("f <- function(x) stop('no ', x); list(a = f(1))")
    assert (caught.value.message, caught.value.call) == ("no 1", "f(1)")
    for source in ("1", "list(a = structure(1, class = 'integer64'))", "list(a = 1, b = factor('yes'))"):
        with pytest.raises(r.RError, match="named list"):
            r.run(source)
    with pytest.raises(r.RError, match="unexpected"):
        r.run("1 +")
    with pytest.raises(ValueError, match="source must have no NUL character, .*, got one at 13$"):
        r.run("list(a = 1)  \0 + 1")
    with pytest.raises(r.RError, match=r"must have the input's shape .*, got shape "):
        r.session.call("r-package", "mean", np.zeros(3), np.zeros(2), None, None)
    assert r.run("list(a = 1:2, b = TRUE + 0)")["a"].tolist() == [1.0, 2.0]


@in_own_process
def test_states_that_python_and_r_accept():
    """Catches an accumulator's state that one of them takes and the other refuses: sums at and beyond the largest."""
    rng, last = random.Random(5), _abi.PARTIAL_LIMBS - 1
    largest = (2**53 - 1) << 2045
    for finite in (0, 1, 2, 3, 1000, 2**40, 2**63 - 1, *(rng.getrandbits(63) for _ in range(20))):
        bound = finite * largest
        for total in (bound, bound + 1, bound - 1, bound + (1 << 2045), rng.randrange(bound + 2), rng.getrandbits(2100)):
            for signed in (total, -total):
                fields = [signed >> 32 * i & 0xFFFFFFFF for i in range(last)]
                fields = np.array([*fields, signed >> 32 * last, finite, 0, 0, 0], np.int64)
                try:
                    core.Accumulator.from_array(fields)
                    accepted = True
                except ValueError:
                    accepted = False
                octets = ",".join(map(str, fields.astype("<i8").tobytes()))
                accumulator = f"bcebridge::bce_accumulator(as.raw(c({octets})))"
                got = r.run(f"list(a = tryCatch({{{accumulator}; 1}}, bce_bridge_error = function(e) 0))")
                assert got["a"] == accepted == (abs(signed) <= bound), (finite, signed)


@in_own_process
def test_installed_functions_give_the_bits_of_the_core():
    """From R, by R torch's names: the numbers are Python's, and dims, dimnames and names are the input's."""
    r.install()
    got = r.run("""
        set.seed(1)
        x <- matrix(rnorm(12, sd = 20), 4, dimnames = list(NULL, c("a", "b", "c")))
        y <- matrix(runif(12), 4)
        w <- matrix(c(1, 2, 3, 4))
        p <- c(0.5, 1, 3)
        loss <- nn_bce_with_logits_loss(w, "su", p)
        total <- loss(x, y)
        loss$reduction <- NULL
        none <- bce_with_logits(x, y, w, p, "none", gradient = TRUE)
        stopifnot(identical(dimnames(none), dimnames(x)), identical(dimnames(attr(none, "gradient")), dimnames(x)))
        stopifnot(identical(names(bce_with_logits(c(u = 1L, v = 2L), c(TRUE, FALSE), reduction = "none")), c("u", "v")))
        stopifnot(identical(dim(bce_with_logits(array(0, c(2, 0, 3)), array(0, c(2, 0, 3)), reduction = "n")), c(2L, 0L, 3L)))
        stopifnot(identical(bce_with_logits(numeric(), numeric()), NaN))
        list(x = x, y = y, total = total, mean = loss(x, y), sum = nnf_binary_cross_entropy_with_logits(x, y, w, "sum", p),
             none = none, gradient = attr(none, "gradient"), default = nnf_binary_cross_entropy_with_logits(x, y))
    """)
    x, y = (got[name].reshape((4, 3), order="F") for name in "xy")
    w, p = [[1.0], [2], [3], [4]], [0.5, 1, 3]
    loss, gradient = core.loss_and_grad(x, y, w, p, "none")
    assert same_bits(got["none"], loss.ravel("F")) and same_bits(got["gradient"], gradient.ravel("F"))
    assert got["total"] == got["sum"] == core.loss(x, y, w, p, "sum")
    assert got["mean"] == core.loss(x, y, w, p) and got["default"] == core.loss(x, y)


@in_own_process
def test_numpy_and_pandas_objects_handed_to_r():
    """As rpy2 converts them, in every memory layout, and from R back into Python. Catches bits lost in a conversion, the
    transposed matrix, and a missing value or a category's code taken for a number."""
    import pandas as pd
    from rpy2 import robjects
    from rpy2.robjects import default_converter, numpy2ri, pandas2ri

    r.install()
    rng = np.random.default_rng(5)
    x, y = rng.normal(scale=20, size=(4, 3)), rng.random((4, 3))
    want, _ = core.loss_and_grad(x, y, pos_weight=[1, 2, 3], reduction="none")
    functions = robjects.globalenv
    for source in ("bce_with_logits", "bcebridge::bce_with_logits"):
        loss = robjects.r(f'function(x, y) {source}(as.matrix(x), as.matrix(y), NULL, 1:3, "none", gradient = TRUE)')
        for a, b in zip(layouts(x)[:5], reversed(layouts(y)[:5])):
            with (default_converter + numpy2ri.converter).context():
                got = loss(a, b)
            assert same_bits(want, np.asarray(got))
        with (default_converter + pandas2ri.converter + numpy2ri.converter).context():
            got = loss(pd.DataFrame(x), pd.DataFrame(y))
        assert same_bits(want, np.asarray(got))
        with (default_converter + pandas2ri.converter).context():
            functions["x"], functions["y"] = pd.Series(x[0]), pd.Series([True, False, True])
            functions["label"] = pd.Series([1, 0, None], dtype="Int64")
            functions["kind"] = pd.Series(["a", "b", "a"], dtype="category")
        assert same_bits(r.run(f"list(a = {source}(as.vector(x), as.vector(y)))")["a"], np.ravel(core.loss(x[0], [1, 0, 1])))
        wanted = "a numeric vector, matrix or array"
        for name, refused in (("label", "must have no NA, got NA at [3]"), ("kind", f"must be {wanted}, got class factor")):
            message = f"tryCatch({source}(c(1, 2, 3), {name}), bce_bridge_error = conditionMessage)"
            assert r_text(message)[0].startswith(f"target {refused}")


@in_own_process
def test_pandas_and_r_objects_as_operands():
    """Catches an R matrix read in C order, NA as -2147483648 and a factor as the codes of its levels."""
    import pandas as pd
    from rpy2 import robjects

    x, y = np.array([[1.0, -2, 3], [0.5, 0, -1]]), np.array([[1, 0, 1], [0, 1, 1]])
    of_r = [robjects.r(f"matrix(c({', '.join(map(str, a.ravel(order='F')))}), 2)") for a in (x, y)]
    for implementation in ("r-package", "r-nmath"):
        want = r.evaluate(implementation, x, y, pos_weight=[1, 2, 3], reduction="none")
        frames = pd.DataFrame(x), pd.DataFrame(y).astype(bool), None, pd.Series([1, 2, 3])
        for operands in (frames, (*of_r, None, robjects.IntVector([1, 2, 3]))):
            assert all(map(same_bits, want, r.evaluate(implementation, *operands, "none")))
    bad = [
        ("c(TRUE, NA)", "targets must have no NA, got NA at [2]"),
        ("c(1L, NA)", "targets must have no NA, got NA at [2]"),
        ("c(1, NA)", "targets must have no NA, got NA at [2]"),
        ("factor(c('a', 'b'))", "targets must be a numeric vector, matrix or array, got class factor"),
        ("structure(c(0, 0), class = 'integer64')", "targets must be a numeric vector, matrix or array, got class integer64"),
        ("list(1, 2)", "targets must be a numeric vector, matrix or array, got type list"),
    ]
    for source, message in bad:
        with pytest.raises(r.RError) as caught:
            r.evaluate("r-package", [1.0, 2.0], robjects.r(source))
        assert caught.value.message.startswith(message)


@in_own_process
def test_python_computes_on_a_device_of_torch():
    """Catches a device that is not used, CPU memory that is assumed, and a device's error that is lost on the way to R."""
    import torch

    x, y = np.array([1.0, -2, 30]), np.array([1.0, 0, 0.25])
    devices = ["cpu", torch.device("cpu", 0)]
    devices += ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    for device in devices:
        r.install(device)
        got = r.run("""
            loss <- bce_with_logits(c(1, -2, 30), c(1, 0, 0.25), 2, 1:3, "none", gradient = TRUE, label_smoothing = 0.1)
            list(loss = loss, gradient = attr(loss, "gradient"), mean = nn_bce_with_logits_loss()(c(1, -2, 30), c(1, 0, 0.25)))
        """)
        want = core.loss_and_grad(x, y, 2, [1, 2, 3], "none", label_smoothing=0.1)
        if str(device).startswith("cpu"):
            assert same_bits(got["loss"], want[0]) and same_bits(got["gradient"], want[1]) and got["mean"] == core.loss(x, y)
        assert np.allclose((got["loss"], got["gradient"]), want, rtol=1e-6)
    for source, message in CONDITIONS[:2]:
        assert r_text(f"tryCatch({source}, bce_bridge_error = conditionMessage)")[0].startswith(message)
    r.install("meta")  # whose tensors have no numbers
    message = r_text("tryCatch(bce_with_logits(1, 1), bce_bridge_error = conditionMessage)")[0]
    assert message.startswith("NotImplementedError: ") and "meta tensor" in message
    with pytest.raises(RuntimeError, match="device"):
        r.install("no-such-device")
    r.install()
    assert r.run("list(a = bce_with_logits(1, 1))")["a"] == core.loss(1.0, 1.0)


CONDITIONS = [
    ("bce_with_logits(c(1, 2, 3), c(1, 0))", "target must have the input's shape (3,), got shape (2,)"),
    (
        "bce_with_logits(c(1, 2), c(1, 0), pos_weight = 1:3)",
        "pos_weight must broadcast to the input's shape (2,), got shape (3,)",
    ),
    ("bce_with_logits(1, NA_real_)", "target must have no NA, got NA at [1]"),
    ("bce_with_logits(c(1, 2), c(NaN, NA))", "target must have no NA, got NA at [2]"),
    ("bce_with_logits(c(1, 2), c(1L, NA))", "target must have no NA, got NA at [2]"),
    ("bce_with_logits(c(1, 2), c(TRUE, NA))", "target must have no NA, got NA at [2]"),
    ("bce_with_logits(1, 1, weight = NA)", "weight must have no NA, got NA at [1]"),
    ("bce_with_logits(1, factor('yes'))", "target must be a numeric vector, matrix or array, got class factor"),
    ("bce_with_logits(1, Sys.Date())", "target must be a numeric vector, matrix or array, got class Date"),
    ("bce_with_logits(1, data.frame(1))", "target must be a numeric vector, matrix or array, got class data.frame"),
    ("bce_with_logits('1', 1)", "input must be a numeric vector, matrix or array, got type character"),
    ("bce_with_logits(1i, 1)", "input must be a numeric vector, matrix or array, got type complex"),
    ("bce_with_logits(list(1), 1)", "input must be a numeric vector, matrix or array, got type list"),
    ("bce_with_logits(as.raw(1), 1)", "input must be a numeric vector, matrix or array, got type raw"),
    ("bce_with_logits(NULL, 1)", "input must be a numeric vector, matrix or array, got NULL"),
    ("bce_with_logits(TRUE, 1)", "input must be numeric logits, got type logical"),
    ("bce_with_logits(1, 1, gradient = NA)", "gradient must be TRUE or FALSE, got NA"),
    ("bce_with_logits(1, 1, label_smoothing = 'a')", 'label_smoothing must be a number in [0, 1], got "a"'),
    ("bce_with_logits(1, 1, label_smoothing = 2)", "label_smoothing must be a number in [0, 1], got 2"),
    (
        "bce_with_logits(1, 1, label_smoothing = structure(0, class = 'integer64'))",
        "label_smoothing must be a number in [0, 1], got ",
    ),
    ("bce_with_logits(c(1, NA), c(1, 0), na.action = na.pass)", "na.action must be na.fail, got na.pass"),
    ("bce_with_logits(1, 1, na.action = 'na.pass')", 'na.action must be na.fail, got "na.pass"'),
    ("bce_with_logits(1, 1, na.action = na.omit)", "na.action must be na.fail, got another function"),
    (
        "nnf_binary_cross_entropy_with_logits(1, 1, reduction = 'average')",
        'reduction must be "mean", "sum" or "none", got "average"',
    ),
    ("nn_bce_with_logits_loss(reduction = 'average')(1, 1)", 'reduction must be "mean", "sum" or "none", got "average"'),
]


@in_own_process
def test_errors_of_python_are_conditions_in_r():
    """Catches an exception that R sees as NULL, NA taken for a number, and codes of factor levels taken for targets."""
    r.install()
    for source, message in CONDITIONS:
        handler = "function(e) c(conditionMessage(e), deparse(conditionCall(e)), class(e))"
        caught = r_text(f"tryCatch({source}, error = {handler})")
        assert caught[0].startswith(message), caught
        assert caught[2:] == ["bce_bridge_error", "error", "condition"] and caught[1][:4] == source[:4], caught


@in_own_process
def test_installed_functions_are_called_and_refuse_as_the_package():
    """Catches an argument that only one of them has, or another default, and a refusal that names no remedy."""
    r.install()
    for name in ("nn_bce_with_logits_loss", "nnf_binary_cross_entropy_with_logits", "bce_with_logits"):
        assert r_text(f"as.character(identical(formals({name}), formals(bcebridge::{name})))") == ["TRUE"], name
    accepted = "bce_with_logits(0, 1, na.action = 'na.fail') == bce_with_logits(0, 1)"
    assert r_text(f"na.fail <- 1; as.character({accepted})") == ["TRUE"]
    of_operands = ("got class", "got type", "got NULL", "got NA at")
    refused = [source for source, message in CONDITIONS if any(got in message for got in of_operands)]
    refused += [f"bce_with_logits(1, structure(0, class = {name}))" for name in ("'integer64'", "c('a', 'data.frame')")]
    for source in refused:
        of = [r_text(f"tryCatch({f}, bce_bridge_error = conditionMessage)") for f in (source, f"bcebridge::{source}")]
        assert of[0] == of[1], of


@in_own_process
def test_install_is_as_a_package_on_the_search_path():
    """The user's own definitions go first, clearing the workspace leaves the functions, and uninstall() takes them away."""
    r.install()
    r.install()
    assert r_text("search()")[1] == "bce_bridge" and r_text("search()").count("bce_bridge") == 1
    assert r_text("bce_with_logits <- 1; rm(list = ls()); class(bce_with_logits)") == ["function"]
    printed = r_text("capture.output(nn_bce_with_logits_loss())")
    assert printed == ['nn_bce_with_logits_loss, answered by Python: reduction = "mean"']
    r.uninstall()
    r.uninstall()
    assert "bce_bridge" not in r_text("search()")


@in_own_process
def test_a_second_thread_starts_r_and_four_use_it():
    """Catches R refusing another thread, two threads in R at once, and a handler for Ctrl-C that is lost."""
    signal.signal(signal.SIGINT, lambda *_: None)
    handler = signal.getsignal(signal.SIGINT)
    want = core.loss_and_grad([1.0, -2.0], [1.0, 0.0], reduction="none")
    wrong = []

    def work():
        for _ in range(100):
            if not all(map(same_bits, want, r.evaluate("r-package", [1.0, -2.0], [1.0, 0.0], reduction="none"))):
                wrong.append(threading.current_thread())

    for count in (1, 4):
        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    work()
    assert not wrong and signal.getsignal(signal.SIGINT) is handler


@in_own_process
def test_rpy2_in_a_second_thread_beside_it():
    """rpy2's own functions in a second thread, under its lock and with a converter of that thread, as its docs say; the
    function they call comes back to Python there."""
    from rpy2 import robjects
    from rpy2.rinterface_lib import openrlib
    from rpy2.robjects import default_converter, numpy2ri
    from rpy2.robjects.conversion import localconverter

    r.install()
    x, y = np.linspace(-3, 3, 7), np.linspace(0, 1, 7)
    answers = []

    def work():
        with openrlib.rlock, localconverter(default_converter + numpy2ri.converter):
            answers.append(np.asarray(robjects.globalenv["bce_with_logits"](x, y, reduction="none")))
        answers.append(r.evaluate("r-package", x, y, reduction="none")[0])

    robjects.r("bce_with_logits <- bce_with_logits")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(answers) == 2 and all(same_bits(core.loss(x, y, reduction="none"), answer) for answer in answers)


@in_own_process
def test_notebook_cells_in_r():
    """%%R cells of a notebook use the installed functions, with NumPy in and out, and show their errors."""
    folder = tempfile.TemporaryDirectory()
    os.environ["IPYTHONDIR"] = folder.name
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    run = lambda cell: shell.run_cell(cell, store_history=False)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython's and rpy2's own
        assert run("%load_ext rpy2.ipython").success
        assert run("import numpy as np\nfrom bce_bridge import core, r\nr.install()").success
        assert run("x, y = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[1.0, 0.0], [0.25, 1.0]])").success
        assert run("%%R -i x,y -o loss\nloss <- nn_bce_with_logits_loss(reduction = 'none')(x, y)").success
        assert run("assert np.array_equal(loss, core.loss(x, y, reduction='none'))").success
        failed = run("%%R\nbce_with_logits(c(1, 2), c(1, NA))")
    for text in ("target must have no NA, got NA at [2]", "bce_with_logits(c(1, 2), c(1, NA))"):
        assert text in str(failed.error_in_exec)


@in_own_process
def test_the_main_thread_keeps_its_signal_handlers():
    """Catches R, or rpy2 for it, taking over Ctrl-C or crashes."""

    def caught():
        status = Path("/proc/self/status")
        return status.exists() and [line for line in status.read_text().splitlines() if line.startswith("SigCgt")]

    signal.signal(signal.SIGINT, lambda *_: None)
    handler, before = signal.getsignal(signal.SIGINT), caught()
    r.version("r-nmath")
    assert signal.getsignal(signal.SIGINT) is handler and caught() == before


@in_own_process
def test_ctrl_c_in_r_is_a_keyboard_interrupt():
    """Catches an interrupt that R loses, that ends as an error of R's, or that is still pending at the next call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    r.install()
    loops = "repeat s <- sqrt(2)", "Sys.sleep(600)", "repeat bce_with_logits(x, x)", "repeat try(Sys.sleep(600))"
    for loop in loops:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            r.run(f"x <- rep(0.5, 1e6); {loop}")
        assert time.monotonic() - start < 60, loop
        assert r.run("list(a = 2)")["a"] == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@in_own_process
def test_an_r_that_runs_already_is_used():
    from rpy2 import rinterface

    rinterface.initr(interactive=True)
    r_text("x <- c(1, -2); ''")
    assert r.run("list(x = x)")["x"].tolist() == [1.0, -2.0] and r.evaluate("r-package", 0.0, 1.0)[1] == -0.5


def test_a_process_of_its_own_may_die():
    """Catches waiting for ever, an answer to another question, and a lost error."""
    assert process.call("run", "cat('noise\\n'); list(x = Sys.getpid())")[1] != os.getpid()
    with pytest.raises(r.RError, match="no 1"):
        process.call("run", "stop('no 1')")
    first = process._process._child
    with pytest.raises(r.RError, match="ended with status 3"):
        process.call("run", "quit(status = 3)")
    assert first.poll() == 3
    assert process.call("run", "list(x = 1)")[1].tolist() == [1.0]
    process._process.stop()


FORK = """
import os
import random
from bce_bridge.r import process
ask = lambda: int(process.call("run", "list(x = Sys.getpid())")[1][0])
of_parent = ask()
(told, tell), (wait, go) = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(go)
    os.write(tell, b"own" if ask() != of_parent else b"parent's")
    process._process.stop()
    os.read(wait, 1)
    os._exit(0)
print(os.read(told, 9).decode(), ask() == of_parent, process._process.stop())
os.close(go)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork here")
def test_a_fork_has_a_process_of_its_own():
    """Catches answers that go to the other of two processes, and pipes a fork holds open, so that its parent cannot end."""
    assert run_python(FORK) == "own True 0\n"


@in_own_process
def test_nothing_leaks():
    """10,000 calls in each direction. Catches an R or Python object kept with each call, and memory of neither."""
    x, y = np.linspace(-3, 3, 1000), np.zeros(1000)
    r.install()
    calls = "x <- seq(-3, 3, length.out = 1000); for (i in 1:2500) bce_with_logits(x, 0 * x, gradient = TRUE)"

    def work():
        for _ in range(2500):
            r.evaluate("r-package", x, y, reduction="none")
        return r.run(f"{calls}; list(cells = gc()[, 1])")["cells"]

    def resident():
        pages = Path("/proc/self/statm")
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if pages.exists() else 0

    before, size = work(), resident()
    for _ in range(4):
        after = work()
    assert resident() - size < 2e6, "what 250 of the 20,000 calls work on"
    assert (after - before < 100).all(), "R's cons cells and vector cells after a collection"


@in_own_process
def test_children_of_the_process_load_their_own_libraries():
    """Catches R's folders left in LD_LIBRARY_PATH, by which another Python's libpython may be loaded in a child."""
    for before in (None, "/somewhere"):
        os.environ.pop("LD_LIBRARY_PATH", None)
        if before is not None:
            os.environ["LD_LIBRARY_PATH"] = before
        session._started = None
        r.evaluate("r-package", [1.0], [1])
        assert os.environ.get("LD_LIBRARY_PATH") == before
