"""bce-bridge conformance: right programs pass, wrong ones are caught by the flag that names the mistake, and broken ones do
neither hang nor pass."""

import functools
import json
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import conformance_programs
import pytest
from processes import run_cli

from bce_bridge import cli
from bce_bridge.conformance import runner

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests/conformance/conformance_programs.py"
DOCS = (ROOT / "docs/conformance.md").read_text()
WRONG = [kind for kind in conformance_programs.PROGRAMS if kind.flag]


@functools.cache
def exact_of_id(id):
    return runner_exact(next(runner.case_of(entry) for entry in runner.read_vectors()["cases"] if entry["id"] == id))


runner_exact = runner.exact


@pytest.fixture(autouse=True)
def exact_answers_are_computed_once(monkeypatch):
    monkeypatch.setattr(runner, "exact", lambda case: exact_of_id(case.id))


def conformance(tmp_path, command, *arguments):
    """(exit code, what --json wrote)."""
    path = tmp_path / "out.json"
    code = cli.main(["conformance", "--command", command, "--json", str(path), *arguments])
    return code, json.loads(path.read_text())


def program(kind):
    return shlex.join([sys.executable, str(PROGRAMS), kind.__name__])


# Catches: a runner or cases that fail what is right, at the default and at the package's own contract.
@pytest.mark.parametrize(
    "kind, arguments",
    [
        (conformance_programs.Right, []),
        (conformance_programs.BceBridge, ["--dtype", "float64"]),
        (
            conformance_programs.BceBridge,
            ["--dtype", "float16", "--dtype", "bfloat16", "--dtype", "float32", "--ulp", "0.5001"],
        ),
        (conformance_programs.BceBridge, ["--flag", "double-rounding", "--ulp", "0.5"]),
    ],
)
def test_right_programs_conform(tmp_path, kind, arguments):
    code, result = conformance(tmp_path, program(kind), *arguments)
    assert (code, result["conforms"]) == (0, True), result["verdict"]
    assert {case["status"] for case in result["cases"]} == {"passed"} and result["verdict"].startswith("Conforms: ")


# Catches: a mistake that passes, is named by another flag, or fails cases that have nothing to do with it.
@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_wrong_programs_are_caught_by_the_flag_that_names_the_mistake(tmp_path, kind):
    arguments = ["--flag", kind.flag, "--ulp", "0.5"] if kind.flag == "double-rounding" else []
    code, result = conformance(tmp_path, program(kind), *arguments)
    assert code == 1 and not result["problems"] and result["verdict"].startswith("Does not conform")
    named = re.findall(r"([a-z-]+) \(\d+ of \d+\)", result["verdict"])
    assert kind.flag in (named[:1] if kind.every else named)
    entries = {entry["id"]: entry for entry in runner.read_vectors()["cases"]}
    own = Counter(
        case["status"]
        for case in result["cases"]
        if kind.flag in case["flags"] and (kind.operand is None or entries[case["id"]][kind.operand])
    )
    assert own["failed"] > 0 and own.keys() - {"failed", "unsupported"} == (set() if kind.every else {"passed"})
    if kind is conformance_programs.PosWeightAxis:
        assert f"\n    {result['verdict']}\n" in DOCS
    # A rounding or two more than 4 ULP is no mistake's doing, but that of a formula with many roundings. log(1 + t) is off by
    # up to 1/(2t) ULP, which is 10 at a logit of -3.
    limit = 11 if kind is conformance_programs.LogOfOnePlus else 8
    for case in result["cases"]:
        if case["status"] == "failed" and not {kind.flag, *kind.also} & set(case["flags"]):
            assert kind is conformance_programs.NaiveLogSigmoid or case["worst_ulp"] < limit, case


def test_every_flag_has_a_wrong_program():
    assert {kind.flag for kind in WRONG if kind.every} == set(runner.read_vectors()["flags"])


ANSWER = """
import json, sys
def answer(case, **members):
    print(json.dumps({"id": case["id"], **members}), flush=True)
def right(case):
    answer(case, none=[], mean="nan", sum=0, grad_sum=[], grad_mean=[])
"""
LOOP = ANSWER + "for line in sys.stdin:\n    case = json.loads(line)\n    "


def python(code):
    return shlex.join([sys.executable, "-c", code])


def run(code, flag="empty", **arguments):
    return runner.run(python(code), runner.select([flag]), **arguments)


# Catches: an answer that is lost by its order, its lateness, or by lines and members that mean nothing.
@pytest.mark.parametrize(
    "code",
    [
        LOOP + "right(case)",
        LOOP + "print(); right(case); print('ready', file=sys.stderr)",
        ANSWER + "for line in reversed(sys.stdin.readlines()): right(json.loads(line))",
        LOOP + "answer(case, sum=0.0)",
        LOOP + "answer(case, mean='NaN')",
        LOOP + "answer(case, mean=float('nan'))",
        LOOP + "answer(case, sum=['0x0p+0'])",
        LOOP + "answer(case, mean='-nan(ind)')",
    ],
)
def test_ways_to_answer(code):
    result = run(code)
    assert result.conforms, result.verdict


# Catches: what is no answer passing as one, a traceback of the runner, and a report that does not say what happened.
@pytest.mark.parametrize(
    "code, message",
    [
        ("", "0 problems"),
        ("pass", "14 not answered"),
        (LOOP + "answer(case, unsupported='all')", "0 cases passed at 4 ULP, 14 unsupported"),
        (LOOP + "right(case)\nsys.exit(3)", "PROBLEM ended with status 3"),
        (LOOP + "sys.exit('no licence')", "  no licence"),
        (LOOP + "sys.exit('\\x1b[2Jcleared \\u202e')", "  \\x1b[2Jcleared \\u202e"),
        ("import os; os.kill(os.getpid(), 9)", "PROBLEM killed by signal 9 ("),
        (LOOP + "right(case); print('hello')", "PROBLEM line 2 must be JSON, got 'hello'"),
        (LOOP + "right(case); print('[' * 100000)", "PROBLEM line 2 must be JSON, got "),
        (LOOP + "right(case); print('[1]')", "line 2 must be an object with an \"id\", got '[1]'"),
        (LOOP + "right(case); print('{\"id\": 1}')", 'line 2 must be an object with an "id", got '),
        (LOOP + "right(case); right({'id': 'x' * 200})", "must answer a case that was asked, got 'xxx"),
        (LOOP + "right(case); right(case)", "a second time"),
        (LOOP + 'print(json.dumps(case)[:-1] + \', "sum": 0, "sum": 1}\')', "line 1 must have each member once, got "),
        (LOOP + "answer(case, unsupported=False)", "unsupported must be a text and the only answer, got 'false'"),
        (LOOP + "answer(case, unsupported='all', sum=1)", "unsupported must be a text and the only answer, got '\"all\"'"),
        (LOOP + "answer(case)", "an answer must have one of none, mean, sum"),
        (LOOP + "answer(case, loss=0)", "or unsupported, got 'loss'"),
        (LOOP + "answer(case, none=[0])", "none must have 0 numbers, got 1"),
        (LOOP + "answer(case, sum=[])", "sum must have 1 numbers, got 0"),
        (LOOP + "answer(case, sum=None)", "sum[0] must be a number, got 'null'"),
        (LOOP + "answer(case, sum=True)", "sum[0] must be a number, got 'true'"),
        (LOOP + "answer(case, sum='NA')", "sum[0] must be a number, got "),
        (LOOP + "answer(case, sum='0x')", "sum[0] must be a number, got "),
        (LOOP + "answer(case, sum=10**400)", "sum[0] must be a number, got "),
        (LOOP + "answer(case, sum={})", "sum[0] must be a number, got "),
        (LOOP + "answer(case, sum='nan')", "sum[0] is nan, right is 0.0, off by inf ULP"),
    ],
)
def test_broken_programs_do_not_pass(code, message):
    result = run(code)
    assert not result.conforms
    assert message in "\n".join(runner.notes(result))
    json.dumps(runner.as_json(result), allow_nan=False)


# Catches: a mistake reported as not made where nothing was answered that could show it.
def test_what_was_not_answered_is_not_judged():
    result = run(LOOP + "answer(case, none=[])")
    assert result.conforms and result.verdict.startswith("Conforms in none, which is all it answered: 14 cases passed")
    assert {row["flag"]: (row["passed"], row["unsupported"]) for row in runner.by_flag(result)}["empty"] == (0, 14)


# Catches: brackets, which the console would take for markup.
def test_commands_are_shown_as_they_are(capsys):
    command = python(LOOP + "right(case)") + " '[/bold]' '[red]' :smile:"
    assert cli.main(["conformance", "--flag", "empty", "--command", command]) == 0
    assert "'[/bold]' '[red]' :smile:" in capsys.readouterr().out.replace("\n", " ")


# Catches: a runner that waits for ever for what hangs, for a child that holds the pipes, or after its output was closed.
@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        LOOP + "right(case)\nimport time; time.sleep(60)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        LOOP + "right(case)\nimport subprocess; subprocess.Popen(['sleep', '60'])",
    ],
)
def test_a_program_that_hangs_is_stopped(code):
    start = time.monotonic()
    result = run(code, timeout=1.5)
    assert not result.conforms and result.problems == ["still running after 1.5 seconds, and stopped"]
    assert time.monotonic() - start < 20
    if "right" in code:
        assert result.count("passed") == len(result.outcomes)


# Catches: a deadlock of two full pipes, and memory filled by a program that never stops printing.
def test_full_pipes(monkeypatch):
    noise = "sys.stderr.write('x' * 3000000); sys.stdout.write(' ' * 3000000 + '\\n'); sys.stdout.flush()\n"
    answer = LOOP + "answer(case, unsupported=' ' * 10000)"
    result = runner.run(python("import sys\n" + noise + answer + "\n" + noise), runner.select(), timeout=60)
    assert not result.problems and result.count("unsupported") == len(result.outcomes)
    monkeypatch.setattr(runner, "OUTPUT_LIMIT", 1 << 20)
    for stream in ("stdout", "stderr"):
        result = run(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)")
        assert result.problems[0] == f"stopped after 1 MiB on standard {'output' if stream == 'stdout' else 'error'}"


# Catches: bad arguments that run something, and errors that do not name the argument.
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--flag", "tail"], "flag must be 'tail-cancellation', "),
        (["--flag", "tail"], " or 'accumulation', got 'tail'"),
        (["--dtype", "float8"], "dtype must be 'float16', 'bfloat16', 'float32' or 'float64', got 'float8'"),
        (["--flag", "double-rounding", "--dtype", "float64"], "must have a case in common, got double-rounding and float64"),
        (["--ulp", "0"], "ulp must be a finite number above 0, got 0"),
        (["--ulp", "nan"], "ulp must be a finite number above 0, got nan"),
        (["--timeout", "-1"], "timeout must be a number of seconds above 0, got -1"),
        (["--command", ""], "command must be a program and its arguments, got ''"),
        (["--command", "'"], 'command must be a program and its arguments, got "\'": No closing quotation'),
        (["--command", "./no-such-program"], "command './no-such-program' does not start"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert cli.main(["conformance", "--command", "false", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_as_a_user_runs_it(tmp_path):
    command = ["conformance", "--flag", "empty", "--command"]
    done = run_cli(*command, python(LOOP + "right(case)"), cwd=tmp_path)
    assert not done.stderr
    assert "Conforms: 14 cases passed at 4 ULP, 0 unsupported.\n" in done.stdout
    done = run_cli(*command, python("import sys; sys.exit('why')"), cwd=tmp_path, status=1)
    assert "why" in done.stdout and "PROBLEM ended with status 1" in done.stdout
    run_cli(*command, status=2)


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return text


# Catches: an example in the documentation that no longer compiles, or answers wrongly.
def test_the_example_in_c(tmp_path):
    (tmp_path / "answer.c").write_text(block("c"))
    build = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "answer.c", "-o", "answer", "-lm"]
    subprocess.run(build, cwd=tmp_path, check=True)
    code, result = conformance(tmp_path, str(tmp_path / "answer"))
    assert code == 0 and result["quantities"] == {"none": sum(case["status"] == "passed" for case in result["cases"])}


@pytest.mark.r
def test_the_example_in_r(tmp_path):
    if subprocess.run(["Rscript", "-e", 'quit(status = !requireNamespace("jsonlite", quietly = TRUE))']).returncode != 0:
        pytest.skip("the example needs R's package jsonlite")
    (tmp_path / "answer.R").write_text(block("r"))
    code, result = conformance(tmp_path, f"Rscript {tmp_path / 'answer.R'}")
    assert code == 0 and set(result["quantities"]) == {"none", "mean", "sum", "grad_sum"}


# Catches: a protocol that is documented otherwise than it is spoken.
def test_the_protocol_as_documented(tmp_path):
    sent, answer, unsupported = re.findall(r'^    (\{"id".*\})$', DOCS, re.MULTILINE)
    code = f"import sys; assert {sent + chr(10)!r} in sys.stdin.readlines(); print({answer!r})"
    result = run(code, "infinite-logit")
    assert not result.problems and result.count("passed") == 1
    assert run(f"print({unsupported!r})", "pos-weight-axis").count("unsupported") == 1
    documented = set(re.findall(r"^\| `(--[a-z]+) ", DOCS, re.MULTILINE))
    with pytest.raises(SystemExit):
        cli.main(["conformance", "--help"])
    assert documented == {"--flag", "--dtype", "--ulp", "--timeout", "--json"}
