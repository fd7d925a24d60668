"""bce-bridge bench: that it measures what it says, that ratios are those of the medians, and that the docs show its file."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_cli

from bce_bridge import _abi, cli, core
from bce_bridge.benchmark import measure, problems, report, results
from bce_bridge.benchmark.memory import peak_memory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What a small run prints, and the paths of what it writes."""
    folder = tmp_path_factory.mktemp("bench")
    paths = {kind: folder / f"out.{kind}" for kind in ("json", "csv", "png")}
    arguments = f"--sizes 64,4Ki --types {','.join(problems.TYPES)} --threads 1,2 --rounds 2 --no-compile --device cpu"
    done = run_cli(
        "bench", *arguments.split(), "--json", str(paths["json"]), "--csv", str(paths["csv"]), "--plot", str(paths["png"])
    )
    return done.stdout, paths


# Catches: a setting, a contender or an instruction set that is not measured.
def test_everything_is_measured(written):
    rows = json.loads(written[1]["json"].read_text())["rows"]
    kernel = [row for row in rows if row["section"] == "kernel"]
    names = {problems.OURS, problems.GIVEN, problems.EAGER, problems.NUMPY, problems.LIMIT}
    for n in (64, 4096):
        for kind in (("float32", "none"), ("float32", "pos_weight"), ("bfloat16", "none"), ("float64", "none")):
            for quantity in problems.QUANTITIES:
                for threads in (1, 2):
                    key = (n, *kind, quantity, threads)
                    fields = ("n", "dtype", "given", "quantity", "threads")
                    found = {row["contender"] for row in kernel if tuple(row[field] for field in fields) == key}
                    assert found == names - ({problems.NUMPY} if threads == 2 or "bfloat16" in kind else set()), key
    situations = {(row["n"], row["dtype"], row["given"], row["contender"]) for row in rows if row["section"] == "situation"}
    both = (problems.OURS, problems.EAGER)
    assert situations == {*itertools.product((64, 4096), ("float32", "bfloat16"), problems.SITUATIONS, both)}
    isas = {row["contender"] for row in rows if row["section"] == "instruction set"}
    assert isas == {name for name, supported in _abi.isas().items() if supported}
    steps = {(row["n"], row["threads"], row["contender"]) for row in rows if row["section"] == "training step"}
    assert steps == {(n, threads, name) for n in (64, 4096) for threads in (1, 2) for name in (problems.OURS, problems.EAGER)}
    kinds = {(row["section"] == "training step", row["memory"] is None) for row in rows}
    assert kinds == {(True, False), (False, True)}
    torchs = [row["memory"] for row in rows if row["contender"] == problems.EAGER and row["n"] == 4096 and row["memory"]]
    assert torchs == [pytest.approx(3, abs=0.01)] * 2  # the loss of each element and two temporary ones, or the gradient
    assert all(0 < row["ns_least"] <= row["ns"] <= row["ns_largest"] and row["rounds"] == 2 for row in rows)


# Catches: a ratio upside down, to another setting's base, or to a slower way of the same contender.
def test_ratios_are_those_of_the_medians(written):
    content = json.loads(written[1]["json"].read_text())
    isa = content["environment"]["instruction set"]
    base = dict.fromkeys(("kernel", "training step", "situation"), problems.OURS) | {"instruction set": isa, "R": "bcebridge"}
    setting = results.Row._fields[:6]
    for row in content["rows"]:
        same = [other for other in content["rows"] if all(other[field] == row[field] for field in setting)]
        ours = min(other["ns"] for other in same if other["contender"] == base[row["section"]])
        assert row["ratio"] == pytest.approx(row["ns"] / ours, abs=1e-4)


def test_csv_and_json_say_the_same(written):
    stdout, paths = written
    assert results.read(paths["csv"]) == results.read(paths["json"])
    lines = paths["csv"].read_text().splitlines()
    records = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    content = json.loads(paths["json"].read_text())
    assert [float(record["ratio"]) for record in records] == [row["ratio"] for row in content["rows"]]
    for name in ("date", "processor", "cores", "instruction set", "torch", "numpy"):
        assert content["environment"][name]
        assert f"# {name}: {content['environment'][name]}" in lines
    assert "bce_bridge memory" in stdout and "training step" in stdout
    again = run_cli("bench", "--from", str(paths["csv"])).stdout
    assert again.strip() == stdout.strip()


def test_plot_is_a_picture(written):
    from matplotlib.image import imread

    picture = imread(written[1]["png"])
    assert picture.shape[0] > 300 and picture.shape[1] > 600
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50  # the lines' colours, and not one of them alone


def _results(*times):
    """Results of float32 loss + gradient with pos_weight from (section, n, threads, contender, way, ns[, memory])."""
    rows = [
        results.Row(section, "loss + gradient", "float32", "pos_weight", n, threads, name, way, ns, ns, ns, 5, 1, *memory)
        for section, n, threads, name, way, ns, *memory in times
    ]
    return results.Results({"cores": "2", "instruction set": "avx512"}, rows)


# Catches: a goal judged the wrong way round, by the slower way, or on a machine or thread count that it is not about.
def test_goals():
    mi = 1 << 20
    found = _results(
        ("kernel", mi, 1, problems.OURS, "", 2.0),
        ("kernel", mi, 1, problems.EAGER, "", 6.0),
        ("kernel", mi, 1, problems.COMPILE, "forward + backward", 3.0),
        ("kernel", mi, 1, problems.COMPILE, "grad_and_value", 2.2),
        ("kernel", 64 * mi, 2, problems.OURS, "", 1.4),
        ("kernel", 64 * mi, 2, problems.GIVEN, "", 1.0),
        ("kernel", 64 * mi, 2, problems.LIMIT, "", 0.5),
        ("instruction set", mi, 1, "avx512", "", 1.5),
        ("instruction set", mi, 1, "avx2", "", 4.5),
    )
    judged = {(goal.contender, goal.n): (value, met) for goal, value, met in results.judge(found)}
    assert judged == {
        (problems.EAGER, mi): (3.0, True),
        (problems.COMPILE, mi): (pytest.approx(1.1), False),
        (problems.EAGER, 16 * mi): (None, None),
        (problems.COMPILE, 16 * mi): (None, None),
        (problems.LIMIT, 64 * mi): (2.0, True),
        ("avx2", mi): (3.0, False),
    }
    text = report.markdown(found)
    assert "| torch eager / ours, 1 Mi, one thread | at least 3 | 3 | met |" in text
    assert "| torch.compile / ours, 1 Mi, one thread | at least 1.2 | 1.1 | missed |" in text
    elsewhere = found._replace(environment={"cores": "2", "instruction set": "neon"})
    assert all(met is None for _, _, met in results.judge(elsewhere))
    elsewhere = found._replace(environment={**found.environment, "cores": "4"})
    assert {goal.n: met for goal, _, met in results.judge(elsewhere)}[64 * mi] is None
    steps = _results(
        ("training step", 1000, 1, problems.OURS, "module", 20.0, 1.002),
        ("training step", 1000, 1, problems.EAGER, "module", 30.0, 3.002),
        ("training step", mi, 1, problems.OURS, "module", 3.0, 2.0),
        ("training step", mi, 1, problems.EAGER, "module", 9.0, 3.0),
    )
    assert [(value, met) for _, value, met in results.judge(steps)] == [(1.5, True), (2.0, False)]
    # Memory is the same on every machine; times on a device are not what the goals are about.
    elsewhere = steps._replace(environment={**steps.environment, "device": "some GPU"})
    assert [met for _, _, met in results.judge(elsewhere)] == [None, False]


# Catches: a contender that is fast for computing something else.
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("kind", problems.TYPES)
@pytest.mark.parametrize("quantity", problems.QUANTITIES)
def test_contenders_agree(kind, quantity):
    compiler = kind == "float32+pos_weight" and problems.compiler_problem() is None
    options = problems.Options(sizes=(257,), types=(kind,), compiler=compiler)
    (setting,) = (setting for setting in problems.kernel_settings(options) if setting.quantity == quantity)
    x, y, _ = problems.operands(setting.dtype, 257)
    p = problems.POS_WEIGHT if "+" in kind else None
    wanted = core.loss_and_grad(x.double().numpy(), y.double().numpy(), pos_weight=p)
    # float32 and bfloat16 of torch cancel in the tails: absolute errors of some roundings of 1, or of 1 / n.
    tolerance = {"float64": 1e-15, "float32": 1e-6, "bfloat16": 0.02}[setting.dtype]
    names = set()
    contenders = [*problems.kernel_contenders(setting, options)]
    if quantity == problems.LOSS_AND_GRADIENT:
        (step,) = problems.step_settings(options)
        contenders += (c._replace(name=f"{c.name}, step") for c in problems.step_contenders(step, options))
    for contender in contenders:
        if contender.name != problems.LIMIT:
            found = contender.call()
            found = found if quantity == problems.LOSS_AND_GRADIENT else (found,)
            numbers = [torch.as_tensor(part).double().numpy() for part in found]
            assert np.allclose(numbers[0], wanted[0], rtol=tolerance, atol=tolerance), contender
            assert len(numbers) == 1 or np.allclose(numbers[1], wanted[1], rtol=tolerance, atol=tolerance / 257), contender
            names.add((contender.name, contender.way))
    assert len(names) == len({name for name, _ in names}) + (compiler and quantity == problems.LOSS_AND_GRADIENT)


# The same of the users' situations, whose arguments the core takes as they are.
@pytest.mark.filterwarnings("ignore")
def test_contenders_of_situations_agree():
    options = problems.Options(sizes=(512,), types=("float32",), compiler=problems.compiler_problem() is None)
    for setting in problems.situation_settings(options):
        x, y, _ = problems.operands("float32", 512)
        random = torch.rand(512, generator=torch.Generator().manual_seed(1))
        x, y, random = (tensor.view(2, 256) for tensor in (x, y, random))
        arguments = problems.SITUATIONS[setting.given](x, y, random)
        arguments = {name.replace("target", "targets"): np.asarray(value) for name, value in arguments.items()}
        smoothing = float(arguments.pop("label_smoothing", 0.0))
        loss, gradient = core.loss_and_grad(x.double().numpy(), **arguments, label_smoothing=smoothing)
        for contender in problems.situation_contenders(setting, options):
            found = contender.call()
            assert np.allclose(found[0], loss, rtol=1e-6) and np.allclose(found[1], gradient, rtol=1e-5, atol=1e-8), contender


# Catches: blocks counted twice, not freed, or counted although they were there before.
def test_peak_memory():
    before = [torch.ones(5000)]

    def call():
        first = torch.ones(1000)
        second = first + first
        del first
        before.clear()
        third = torch.ones(250)
        return second, third

    assert peak_memory(call) == 2 * 4000


# Catches: what runs on the CPU timed as a device's, a kernel that is not named, and operands left on the CPU.
def test_contenders_on_a_device():
    options = problems.Options(sizes=(64,), types=("float32+pos_weight",), compiler=False, device="meta")
    assert not [*problems.isa_settings(options)]
    for section in (problems.SECTIONS["kernel"], problems.SECTIONS["training step"]):
        for setting in section.settings(options):
            found = [*section.contenders(setting, options)]
            assert found[0][:2] == (problems.OURS, "triton")
            assert {contender.name for contender in found[1:]} <= {problems.EAGER, problems.LIMIT}
            for contender in found[1:]:
                parts = contender.call()
                assert all(part.device.type == "meta" for part in (parts if isinstance(parts, tuple) else (parts,)))


# Catches: the time of a launch taken for that of the work.
def test_a_device_is_waited_for(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: events.append("clock") or 0.0)
    contender = problems.Contender("", "", lambda: events.append("call"))
    measure._time(contender, 2, "cuda")
    assert events == ["wait", "clock", "call", "call", "wait", "clock"]


# Catches: a rerun of the rest of a program on another instruction set or fewer threads than before.
def test_state_is_restored():
    before = _abi.isa(), core.get_num_threads(), torch.get_num_threads()
    measure.run(problems.Options(sizes=(64,), types=("float32",), threads=(1,), compiler=False), rounds=1)
    assert (_abi.isa(), core.get_num_threads(), torch.get_num_threads()) == before


def test_sizes():
    assert [report.size(text) for text in ("1000", "16Ki", "64Mi")] == [1000, 1 << 14, 1 << 26]
    for n in problems.SIZES:
        assert report.size(report.size_text(n).replace(" ", "")) == n


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--sizes 1.5Mi", "size must be a whole number above 0, perhaps with Ki, Mi or Gi, got '1.5Mi'"),
        ("--sizes 0", "size must be a whole number above 0, perhaps with Ki, Mi or Gi, got '0'"),
        ("--types int8", "type must be a floating type, or one with +pos_weight, got 'int8'"),
        ("--types float32+weight", "type must be a floating type, or one with +pos_weight, got 'float32+weight'"),
        ("--threads none", "threads must be a whole number above 0, or all, got 'none'"),
        ("--rounds 0", "rounds must be at least 1, got 0"),
        ("--csv no-such-folder/out.csv", "no-such-folder/out.csv"),
        ("--markdown README.md", "--markdown must stand with --from"),
        ("--from docs/benchmark.csv --markdown README.md", "README.md must have the lines <!-- begin: bce-bridge bench --from"),
        ("--from README.md", "README.md must be what bce-bridge bench --csv wrote, got "),
        ("--from no-such-file.csv", "no-such-file.csv"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["bench", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


# Catches: tables in the docs that are not those of the committed file. Mended by the command that the marker names.
def test_docs_show_the_committed_results():
    text = (ROOT / "docs/performance.md").read_text()
    begin, end = report.MARKERS[0].format(source="docs/benchmark.csv", target="docs/performance.md"), report.MARKERS[1]
    shown = text.partition(begin)[2].partition(end)[0]
    assert shown.strip() == report.markdown(results.read(ROOT / "docs/benchmark.csv"))
    assert (ROOT / "docs/benchmark.png").exists()
