"""Cases to any program in any language, and what its answers are worth: bce-bridge conformance.

docs/conformance.md gives the protocol: a case a line on standard input, an answer a line on standard output, both JSON.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from mpmath import mpf
from rich import box
from rich.table import Table

from bce_bridge import _errors
from bce_bridge.conformance import compare
from bce_bridge.conformance.cases import DTYPES, QUANTITIES, case_of, read_vectors
from bce_bridge.conformance.exact import exact

# A case shows the mistake of these flags only where one of these quantities is answered.
SHOWN_BY = {"accumulation": {"mean", "sum"}, "mean-of-means": {"mean", "grad_mean"}, "empty": {"mean", "sum"}}
SENT = ("id", "dtype", "input", "target", "weight", "pos_weight", "parts")
STATUSES = ("passed", "failed", "unsupported", "unanswered")
OUTPUT_LIMIT = 64 << 20  # bytes of each stream: tens of times what all answers take


@dataclass
class Outcome:
    """What became of one case. status: one of STATUSES. reason: why it is unsupported or failed. quantities: those that were
    answered. worst: the largest error of its numbers in ULP."""

    case: dict
    status: str = "unanswered"
    reason: str = ""
    quantities: set = field(default_factory=set)
    worst: float | None = None

    def status_for(self, flag):
        """The status; unsupported for one that has passed without the quantities in which this flag's mistake would show."""
        shown = flag not in SHOWN_BY or self.quantities & SHOWN_BY[flag]
        return self.status if shown or self.status != "passed" else "unsupported"


@dataclass
class Result:
    """problems: what was wrong with the program or its output as a whole."""

    command: str
    ulp: float
    outcomes: list
    problems: list = field(default_factory=list)
    stderr: str = ""

    def count(self, status, flag=None):
        return sum(o.status_for(flag) == status for o in self.outcomes if flag is None or flag in o.case["flags"])

    @property
    def quantities(self):
        """How many cases answered each."""
        return Counter(name for outcome in self.outcomes for name in outcome.quantities)

    @property
    def never_answered(self):
        """The quantities that no case answered."""
        answered = self.quantities
        return [name for name in QUANTITIES if not answered[name]]

    def judged(self, flag):
        return self.count("failed", flag) + self.count("passed", flag)

    def failed_share(self, flag):
        return self.count("failed", flag) / max(self.judged(flag), 1)

    @property
    def conforms(self):
        return not self.problems and self.count("passed") > 0 and not self.count("failed") and not self.count("unanswered")

    @property
    def verdict(self):
        """One line, which names the flags of failed cases: that one first of which the fewest cases pass."""
        passed, failed, unsupported, unanswered = map(self.count, STATUSES)
        rest = f"{unsupported} unsupported, {unanswered} not answered, {len(self.problems)} problems with the program"
        at = f"at {self.ulp:g} ULP"
        if self.conforms:
            answered = ", ".join(name for name in QUANTITIES if name not in self.never_answered)
            limits = f" in {answered}, which is all it answered" if self.never_answered else ""
            return f"Conforms{limits}: {passed} cases passed {at}, {unsupported} unsupported."
        if not failed:
            return f"Does not conform: {passed} cases passed {at}, {rest}."
        named = sorted(filter(self.failed_share, read_vectors()["flags"]), key=self.failed_share, reverse=True)
        texts = [f"{flag} ({self.count('failed', flag)} of {self.judged(flag)})" for flag in named]
        if unflagged := sum(o.status == "failed" and not o.case["flags"] for o in self.outcomes):
            texts.append(f"no flag ({unflagged})")
        of = f"{failed} of {passed + failed} cases failed"
        return f"Does not conform: {of} {at}, {rest}. Failed: {', '.join(texts)}."


def select(flags=None, dtypes=None):
    """The entries of the vectors' "cases" with one of the flags and one of the dtypes. Raises ValueError for unknown names,
    and where no case is left."""
    vectors = read_vectors()
    for name, chosen, known in (("flag", flags, vectors["flags"]), ("dtype", dtypes, DTYPES)):
        for value in chosen or ():
            if value not in known:
                raise _errors.choice(name, known, value)
    cases = [
        case
        for case in vectors["cases"]
        if (not flags or set(flags) & set(case["flags"])) and (not dtypes or case["dtype"] in dtypes)
    ]
    if not cases:
        raise ValueError(f"flag and dtype must have a case in common, got {', '.join(flags)} and {', '.join(dtypes)}")
    return cases


def run(command, cases, ulp=4.0, timeout=60.0, progress=lambda text, done, total: None):
    """The Result of the program, given the cases (of select()) on its standard input.

    command is split as by a POSIX shell, but run without one. Raises ValueError for numbers out of range and OSError for a
    command that cannot be started.
    """
    if not 0 < ulp < float("inf"):
        raise ValueError(f"ulp must be a finite number above 0, got {ulp:g}")
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be a number of seconds above 0, got {timeout:g}")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"command must be a program and its arguments, got {command!r}: {error}") from None
    if not words:
        raise ValueError(f"command must be a program and its arguments, got {command!r}")
    result = Result(command, ulp, [Outcome(case) for case in cases])
    progress(words[0], 0, len(cases))
    lines = "".join(json.dumps({key: case[key] for key in SENT if key in case}) + "\n" for case in cases)
    stdout, result.stderr = _converse(words, lines.encode(), timeout, result.problems)
    answers = _read_answers(stdout, {case["id"] for case in cases}, result.problems)
    for i, outcome in enumerate(result.outcomes):
        progress(words[0], i, len(cases))
        if outcome.case["id"] in answers:
            _judge(outcome, answers[outcome.case["id"]], ulp)
    return result


def _converse(words, stdin, timeout, problems):
    """(standard output, standard error) of the program, read while it is written to, so that no pipe fills up."""
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise OSError(f"command {shlex.join(words)!r} does not start: {error}") from None
    outputs = {process.stdout: b"", process.stderr: b""}

    def read(stream, name):
        chunks, size = [], 0
        with stream:
            while chunk := stream.read1(1 << 16):
                chunks.append(chunk)
                size += len(chunk)
                if size > OUTPUT_LIMIT:
                    problems.append(f"stopped after {OUTPUT_LIMIT >> 20} MiB on {name}")
                    _stop(process)
                    break
        outputs[stream] = b"".join(chunks)

    def write():
        try:
            with process.stdin as stream:
                stream.write(stdin)
        except OSError:
            pass  # it reads no further, which its answers will show

    streams = ((process.stdout, "standard output"), (process.stderr, "standard error"))
    readers = [threading.Thread(target=read, args=stream, daemon=True) for stream in streams]
    threads = [*readers, threading.Thread(target=write, daemon=True)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    try:
        for thread in readers:
            thread.join(max(deadline - time.monotonic(), 0))
        status = process.wait(max(deadline - time.monotonic(), 0))
        late = any(thread.is_alive() for thread in readers)  # a child that it left behind holds the pipes
    except subprocess.TimeoutExpired:
        status, late = 0, True
    finally:
        _stop(process)
        process.wait()
    if late:
        problems.append(f"still running after {timeout:g} seconds, and stopped")
    for thread in threads:
        thread.join(5)
    if not problems and status > 0:
        problems.append(f"ended with status {status}")
    elif not problems and status < 0:
        problems.append(f"killed by signal {-status} ({signal.strsignal(-status)})")
    return tuple(outputs[stream].decode(errors="replace") for stream, _ in streams)


def _stop(process):
    """Kills the program with all it started; does nothing where they have ended."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass


def _read_answers(text, ids, problems):
    """id -> answer. What is no answer is described in problems."""
    answers = {}
    for i, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            answer = json.loads(line, object_pairs_hook=_object)
        except (json.JSONDecodeError, RecursionError):
            problems.append(f"line {i} must be JSON, got {_clipped(line)}")
            continue
        except ValueError as error:
            problems.append(f"line {i} {error}, got {_clipped(line)}")
            continue
        id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(id, str):
            problems.append(f'line {i} must be an object with an "id", got {_clipped(line)}')
        elif id not in ids:
            problems.append(f"line {i} must answer a case that was asked, got {_clipped(id)}")
        elif id in answers:
            problems.append(f"line {i} must answer another case, got {id} a second time")
        else:
            answers[id] = answer
    return answers


def _object(members):
    """A JSON object as a dict. Raises ValueError for a name that comes twice."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("must have each member once")
    return found


def _clipped(text):
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _judge(outcome, answer, ulp):
    members = answer.keys() - {"id"}
    if members == {"unsupported"} and isinstance(answer["unsupported"], str):
        outcome.status, outcome.reason = "unsupported", answer["unsupported"]
        return
    outcome.status = "failed"
    if "unsupported" in members:
        outcome.reason = f"unsupported must be a text and the only answer, got {_clipped(json.dumps(answer['unsupported']))}"
        return
    if not members:
        outcome.reason = f"an answer must have one of {', '.join(QUANTITIES)}"
        return
    for name in sorted(members):
        if name not in QUANTITIES:
            outcome.reason = f"a member must be one of {', '.join(QUANTITIES)} or unsupported, got {_clipped(name)}"
            return
    outcome.quantities = members
    wanted = exact(case_of(outcome.case))
    reasons = []
    for name in filter(members.__contains__, QUANTITIES):
        reason, error = _judge_quantity(name, answer[name], wanted, outcome.case["dtype"], ulp)
        outcome.worst = max(error, outcome.worst or 0.0)
        reasons += [reason] if reason else []
    if reasons:
        outcome.reason = "; ".join(reasons)
    else:
        outcome.status = "passed"


def _judge_quantity(name, numbers, exact_answers, dtype, ulp):
    """(the reason to fail, or "", the largest error in ULP).

    Where the terms of the formula cancel by nature, the error counts in ULP of their magnitudes.
    """
    numbers = numbers if isinstance(numbers, list) else [numbers]
    values, terms = exact_answers.values[name], exact_answers.terms[name]
    if len(numbers) != len(values):
        return f"{name} must have {len(values)} numbers, got {len(numbers)}", float("inf")
    worst, reason = 0.0, ""
    for i, (number, value, magnitude) in enumerate(zip(numbers, values, terms)):
        try:
            got = compare.rounded(mpf(_number(number)), dtype)
        except (ValueError, TypeError, OverflowError):
            return f"{name}[{i}] must be a number, got {_clipped(json.dumps(number))}", float("inf")
        error = compare.error_in_ulp(got, value, dtype, magnitude if compare.cancels(value, magnitude) else None)
        if error > max(worst, ulp):
            right, off = compare.rounded(value, dtype), f"{error:.{10 if error < 1 else 3}g}"
            reason = f"{name}[{i}] is {got!r}, right is {right!r}, off by {off} ULP"
        worst = max(worst, error)
    return reason, worst


def _number(value):
    """A JSON number, or a string: decimal, a C99 hex float, inf, or nan as C libraries write it."""
    if isinstance(value, bool):
        raise TypeError("true and false are no numbers")
    if isinstance(value, str) and re.fullmatch(r"[+-]?nan\(\w*\)", value):
        return float("nan")
    return float.fromhex(value) if isinstance(value, str) and "x" in value.lower() else float(value)


def by_flag(result):
    """A dict for each flag that the cases have, for those without and for all: how many there are, and of each status, and
    their worst error."""

    def row(name, outcomes):
        counts = Counter(outcome.status_for(name) for outcome in outcomes)
        worst = max((outcome.worst for outcome in outcomes if outcome.worst is not None), default=None)
        statuses = {status: counts[status] for status in STATUSES}
        return {"flag": name, "cases": len(outcomes), **statuses, "worst_ulp": worst}

    groups = {flag: [o for o in result.outcomes if flag in o.case["flags"]] for flag in read_vectors()["flags"]}
    groups |= {"no flag": [o for o in result.outcomes if not o.case["flags"]], "all": result.outcomes}
    return [row(name, outcomes) for name, outcomes in groups.items() if outcomes]


def table(result):
    """A rich table with a line for each flag."""
    found = Table(box=box.SIMPLE_HEAD, title=f"Conformance of {result.command}", title_justify="left")
    found.add_column("flag", no_wrap=True)
    for heading in ("cases", *STATUSES, "worst error, ULP"):
        found.add_column(heading, justify="right")
    for row in by_flag(result):
        *counts, worst = list(row.values())[1:]
        style = "red" if row["failed"] or row["unanswered"] else ""
        found.add_row(row["flag"], *map(str, counts), "-" if worst is None else f"{worst:.3g}", style=style)
    return found


def notes(result, most=10):
    """Lines to print under the table, the verdict last."""
    failed = [o for o in result.outcomes if o.status == "failed"]
    for outcome in failed[:most]:
        flags = f" ({', '.join(outcome.case['flags'])})" if outcome.case["flags"] else ""
        yield f"FAILED {outcome.case['id']}{flags}: {outcome.reason}"
    if len(failed) > most:
        yield f"... and {len(failed) - most} more failed cases; --json FILE has them all"
    if silent := [o.case["id"] for o in result.outcomes if o.status == "unanswered"]:
        yield f"NO ANSWER to {len(silent)} cases, the first {silent[0]}"
    for problem in result.problems[:most]:
        yield f"PROBLEM {problem}"
    if len(result.problems) > most:
        yield f"... and {len(result.problems) - most} more problems"
    if result.stderr and not result.conforms:
        yield "The end of its standard error:"
        yield from ("  " + _printable(line) for line in result.stderr.splitlines()[-20:])
    missing = result.never_answered
    if missing and len(missing) < len(QUANTITIES):
        yield f"Never answered: {', '.join(missing)}."
    yield result.verdict


def _printable(text):
    """The text with what is not to be printed written as in a Python string: it must not clear or colour a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def as_json(result):
    """Everything that the table and the notes were made from, of JSON types alone."""

    def number(value):
        return "inf" if value == float("inf") else value

    return {
        "format": "bce-conformance/1",
        "command": result.command,
        "ulp": result.ulp,
        "conforms": result.conforms,
        "verdict": result.verdict,
        "flags": [row | {"worst_ulp": number(row["worst_ulp"])} for row in by_flag(result)],
        "cases": [
            {
                "id": outcome.case["id"],
                "flags": outcome.case["flags"],
                "status": outcome.status,
                "reason": outcome.reason,
                "worst_ulp": number(outcome.worst),
            }
            for outcome in result.outcomes
        ],
        "quantities": dict(result.quantities),
        "problems": result.problems,
        "stderr": result.stderr,
    }
