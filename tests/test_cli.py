"""The command line, run as a user runs it."""

import errno
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_cli

import bce_bridge
from bce_bridge import cli, core
from bce_bridge.conformance import crosscheck, datasets, implementations
from bce_bridge.conformance.cases import load_cases


@pytest.mark.r
def test_crosscheck(tmp_path):
    out = run_cli("crosscheck", "--json", str(tmp_path / "out.json")).stdout
    assert "0 failures" in out
    # README shows this table: of the rows that are the same on every machine, to the digit.
    readme = " ".join((Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8").split())
    for name in ("C core (NumPy)", "R torch (recorded)"):
        (line,) = (line for line in out.splitlines() if line.startswith(f"  {name}  "))
        assert " ".join(line.split()) in readme
    written = json.loads((tmp_path / "out.json").read_text())
    rows = {row["implementation"]: row for row in written["rows"]}
    assert set(rows) == {
        "C core (NumPy)",
        "torch front end",
        "libtorch (aten)",
        "PyKEEN front end",
        "PyKEEN",
        "Composer front end",
        "Composer",
        "R package bcebridge",
        "R nmath (plogis)",
        "R torch (live)",
        "R torch (recorded)",
    }
    # Not to be had from every registry, or not beside this torch: without it the row says how to get it.
    elsewhere = {"R torch (live)": "install.packages", "Composer": "make test-composer"}
    for kind in implementations.IMPLEMENTATIONS:
        row = rows[kind.name]
        assert kind.name in out and row["failures"] == []
        if row["not_installed"]:
            assert elsewhere[kind.name] in row["not_installed"]
        else:
            assert row["cases"] == sum(kind().can_answer(case) for case in load_cases())
    for name in ("PyKEEN front end", "Composer front end"):
        assert rows[name]["verdict"] == "conforms"
    assert rows["R package bcebridge"]["verdict"] == rows["R nmath (plogis)"]["verdict"] == "conforms"


@pytest.mark.r
def test_infert_gives_rs_own_deviance(tmp_path):
    run_cli("crosscheck", "--dataset", "infert", "--json", str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    sums = {row["implementation"]: row["sum"] for row in rows if "sum" in row}
    assert sums["C core (NumPy)"] == sums["R package bcebridge"] == sums["torch front end"]
    for name, value in sums.items():
        # Two sums of 248 terms in the same float64 numbers, by different formulae.
        assert value == pytest.approx(sums["R glm: deviance / 2"], rel=1e-14), name


def test_failures_are_printed_and_set_the_exit_code():
    code = (
        "import sys; from bce_bridge import cli; from bce_bridge.conformance import implementations as i\n"
        "true = i.Core.loss_and_grad\n"
        "i.Core.loss_and_grad = lambda *a: tuple(1.001 * result for result in true(*a))\n"
        "import bce_bridge.conformance.crosscheck as c\n"
        "c.crosscheck.__defaults__ = (c.crosscheck.__defaults__[0], (i.Core,), 'cpu'); sys.exit(cli.main(['crosscheck']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAILURE C core (NumPy): worked-float32-000 none[0] got 0x1." in done.stdout


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_own_data(tmp_path, suffix):
    rng = np.random.default_rng(0)
    columns = {"logit": rng.normal(0, 9, 50), "target": rng.integers(0, 2, 50), "weight": rng.uniform(size=50)}
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, **columns)
    else:
        lines = [",".join(columns)] + [",".join(repr(float(v)) for v in row) for row in zip(*columns.values())]
        path.write_text("\n".join(lines))
    run_cli("crosscheck", "--data", str(path), "--device", "cpu", "--json", str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    by_name = {row["implementation"]: row for row in rows}
    assert by_name["C core (NumPy)"]["sum"] == core.loss(*columns.values(), reduction="sum")
    assert by_name["C core (NumPy)"]["ulp"] < 2


# Catches: text, holes and unknown columns becoming numbers.
@pytest.mark.parametrize(
    "text, message",
    [
        ("logit,target\n1,0\nx,1\n", "row 3, column logit must be a number, got 'x'"),
        ("logit,target\n1\n", "row 2, column target must be a number, got None"),
        ("logit,target\n1,\n", "row 2, column target must be a number, got ''"),
        ("logit,target\n1,0,7\n", "row 2, column (no name)"),
        ("logit,label\n1,0\n", "must have the columns logit, target"),
        ("", "must have the columns logit, target"),
        ("logit,target,logit\n1,0,2\n", "must have each column once, got more of ['logit']"),
        ('logit,target\n1,"0\n', "unexpected end of data"),
        ("logit,target\n1,\xe9\n".encode("latin-1"), "can't decode byte 0xe9"),
    ],
)
def test_bad_data_is_refused(tmp_path, text, message):
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = run_cli("crosscheck", "--data", str(path), status=2).stderr
    assert message in error and str(path) in error and len(error.splitlines()) == 1


# Catches a traceback, and the exit code that means that an implementation failed.
def test_damaged_archives_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "whole.npz", logit=np.zeros(100), target=np.ones(100))
    np.savez_compressed(tmp_path / "packed.npz", logit=np.arange(1000.0), target=np.ones(1000))
    whole, packed = ((tmp_path / name).read_bytes() for name in ("whole.npz", "packed.npz"))
    array, header, huge = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(huge, "w") as archive:
        archive.writestr("logit.npy", header.getvalue())
    files = {
        "truncated": whole[: len(whole) // 2],
        "damaged": packed[:200] + bytes(40) + packed[240:],
        "empty": b"",
        "npy": array.getvalue(),
        "huge": huge.getvalue(),
        "text": b"logit,target",
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        assert cli.main(["crosscheck", "--data", str(path)]) == 2, name
        error = capsys.readouterr().err
        assert error.startswith(f"bce-bridge: {path} must be a readable .npz file: ") and len(error.splitlines()) == 1, error


# Catches half a file on a full disk, and a link that is removed because it leads to nothing yet.
def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    link.symlink_to(target)
    assert cli.main(["info", "--json", str(link)]) == 0
    assert link.is_symlink() and json.loads(target.read_text())
    before = target.read_text()

    def full(self, text, encoding):
        with open(self, "w", encoding=encoding) as file:
            file.write(text[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main(["info", "--json", str(link)]) == 2
    assert target.read_text() == before and sorted(tmp_path.iterdir()) == [link, target]


def test_bad_arguments_are_refused(tmp_path):
    assert "no-such-file" in run_cli("crosscheck", "--data", "no-such-file.csv", status=2).stderr
    assert "must be a .npz or .csv file, got .txt" in run_cli("crosscheck", "--data", str(tmp_path / "a.txt"), status=2).stderr
    assert "usage" in run_cli("bake", status=2).stderr


# Catches: the CPU taken in place of a device that is not there, and a traceback.
@pytest.mark.parametrize("command", [["bench"], ["crosscheck"], ["crosscheck", "--data", "data.csv"]])
def test_a_device_that_is_not_there(command, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main([*command, "--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert not out and re.fullmatch(r"bce-bridge: device must be 'cpu' where torch \S+ finds no CUDA device, got 'cuda'\n", err)


class Reached(Exception):
    """The function under test was called."""


# Catches: tensors left on the CPU, and libtorch's loss judged under the name of the kernel.
def test_the_device_reaches_the_tensors(monkeypatch):
    calls = []

    def function(*tensors, reduction, pos_weight, backend):
        calls.append(({tensor.device.type for tensor in (*tensors, pos_weight)}, backend))
        raise Reached

    monkeypatch.setattr(bce_bridge, "binary_cross_entropy_with_logits", function, raising=False)
    for kind in (implementations.Torch, implementations.Aten):
        for device in ("meta", "cpu"):
            with pytest.raises(Reached):
                kind(device).loss_and_grad(*np.ones((4, 3)), "mean")
    assert calls == [({"meta"}, "triton"), ({"cpu"}, "core"), ({"meta"}, "aten"), ({"cpu"}, "aten")]


# Catches: a --device that does not reach the implementations.
def test_the_device_reaches_the_implementations(monkeypatch):
    class Spy(implementations.Core):
        def open(self):
            raise implementations.NotInstalled(self.device)

    assert crosscheck.crosscheck(implementations=(Spy,), device="meta")[0].not_installed == "meta"
    monkeypatch.setattr(datasets, "IMPLEMENTATIONS", (Spy,))
    ones = np.ones(3)
    assert datasets.loss_sums(datasets.Dataset("ones", ones, ones), device="meta")[1]["hint"] == "meta"


# Catches: minutes of computing for a file that cannot be written, and an empty file beside an error.
@pytest.mark.parametrize("command", ["crosscheck", "info", "conformance --command true", "bench --quick"])
def test_what_cannot_be_done_is_refused_first(tmp_path, monkeypatch, capsys, command):
    missing, page = tmp_path / "missing/out.json", tmp_path / "page.html"
    assert cli.main([*command.split(), "--json", str(missing)]) == 2
    assert "missing/out.json" in capsys.readouterr().err
    monkeypatch.setattr(core, "build_info", lambda: (_ for _ in ()).throw(RuntimeError("BCE_BRIDGE_ISA is 'sse9'")))
    html = ["--html", str(page)] if command == "crosscheck" else []
    assert cli.main([*command.split(), *html, "--json", str(tmp_path / "out.json")]) == 2
    assert "BCE_BRIDGE_ISA is 'sse9'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_info(tmp_path):
    out = run_cli("info", "--json", str(tmp_path / "info.json")).stdout
    assert "numpy" in out
    assert json.loads((tmp_path / "info.json").read_text())["numpy"] == np.__version__
