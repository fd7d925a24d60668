"""Whether the tests notice a wrong line in the C core: change one at a time, and run them. Run by `make mutants`.

    mutants.py [NUMBER [SEED]]    judge so many mutants, drawn by the seed; writes docs/mutants.txt

A mutant is killed if a check of c_src/verify/test_*.c fails, crashes or takes too long; if not, if that happens with the
sanitizers of `make sanitize`; if not, if one of the Python tests in SUITES fails, with the mutant in a copy of the tree.
Mutants that do not compile, and those whose machine code is the core's own, are passed over. So are those that
tools/equivalent_mutants.txt lists, which no test can tell from the core, each with its reason: they are counted only.

Not mutated are bce_constants.h and bce_polynomials.inc, which tests/docs/test_repository.py compares with the program that
writes them, and the vectors of bce_simd.h, each of which the others check.
"""

import collections
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTATED = ("bce.c", "bce_accurate.c", "bce_isa.c", "bce_partial.c", "bce_threads.c")
INCLUDED = ("bce_convert.inc", "bce_gather.inc", "bce_kernel.inc", "bce_quick.inc", "bce_math.h")  # by all vector sets
VECTOR_SETS = ("bce_scalar.c", "bce_avx2.c", "bce_avx512.c", "bce_neon.c")
SUITES = [f"tests/core/test_{name}.py" for name in ("core", "quick", "accuracy", "accumulator", "threads")]
WORKERS = 2
OPTIONS = ["-O1", "-fPIC", "-w", "-DTEST_WRAPPED"]
WRAP = ["-Wl,--wrap=malloc,--wrap=pthread_create"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIMITS = {"C": 60, "sanitizers": 300, "Python": 600}  # seconds: some ten times what the core itself takes, or more
KILLERS = tuple(LIMITS)
COUNTED = (*KILLERS, "equivalent", "survived")
VERDICTS = (*COUNTED, "same code", "does not compile")

OPERATORS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+", "*": "/",
    "/": "*", "%": "/", "<<": ">>", ">>": "<<", "&": "|", "|": "&", "+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=",
    "true": "false", "false": "true",
}  # fmt: skip
OPERATOR = re.compile(r"(?<= )(" + "|".join(map(re.escape, sorted(OPERATORS, key=len, reverse=True))) + r")(?=[ ;,)])")
NUMBER = re.compile(r"(?<![\w.])(?:0x[\da-f.]+p[+-]?\d+|\d+\.\d+|\d+)(?![\w.])")
CONDITION = re.compile(r"\b(?:if|while) (\(.*\))(?= [{\w]|$)")
SIGN = re.compile(r"(?<=[ (])[-!](?=[\w(])")
STATEMENT = re.compile(r"^ +(?:[\w*][\w\[\]().>+-]* (?:[-+*/%|&]|<<|>>)?= .*|\w+\(.*\)|continue|break);(?= *\\?$)")
HIDDEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)

Mutant = collections.namedtuple("Mutant", "file line was became")


def other_numbers(text):
    """A number that is doubled and halved, or one more and less."""
    if "p" in text:
        mantissa, exponent = text.split("p")
        return [f"{mantissa}p{int(exponent) + step}" for step in (1, -1)]
    if "." in text:
        return [f"{float(text) * factor}" for factor in (2.0, 0.5)] if float(text) else ["1.0"]
    return [str(int(text) + step) for step in (1, -1) if int(text) + step >= 0]


def mutants_of(file):
    """All mutants of a file, line by line."""
    text = (ROOT / "c_src" / file).read_text()
    hidden = HIDDEN.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), text)
    for number, (line, visible) in enumerate(zip(text.split("\n"), hidden.split("\n")), 1):
        if visible.startswith("#") and not visible.startswith("#define"):
            continue
        changes = [(match.span(), new) for match in NUMBER.finditer(visible) for new in other_numbers(match[0])]
        changes += [(match.span(), OPERATORS[match[0]]) for match in OPERATOR.finditer(visible)]
        changes += [(match.span(1), f"(!{match[1]})") for match in CONDITION.finditer(visible)]
        changes += [(match.span(), "") for match in SIGN.finditer(visible)]
        changes += [(match.span(), " " * (len(line) - len(line.lstrip())) + ";") for match in STATEMENT.finditer(visible)]
        for (begin, end), new in changes:
            yield Mutant(file, number, line, line[:begin] + new + line[end:])


def run(command, folder, limit):
    """Whether the command, with all that it starts, ends in time with exit status 0."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            return process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False


class Copy:
    """A copy of the tree to build mutants in."""

    def __init__(self, folder):
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("c_src", "bce_bridge", "tests", "vectors"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        runpy.run_path(str(ROOT / "bce_bridge/_build.py"))["ffibuilder"].emit_c_code(str(folder / "binding.c"))
        include = ["-Ic_src", "-I" + sysconfig.get_path("include")]
        self.tests = [f"c_src/verify/{path.name}" for path in sorted((folder / "c_src/verify").glob("test_*.c"))]
        self.core = [f"c_src/{path.name}" for path in sorted((folder / "c_src").glob("bce*.c"))]
        for source in (*self.tests, *self.core, "binding.c"):
            subprocess.run(["cc", *OPTIONS, *include, "-c", source, "-o", source + ".o"], cwd=folder, check=True)
        self.module = f"bce_bridge/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        self.originals = {source: (folder / (source + ".o")).read_bytes() for source in self.core}

    def killer(self):
        """The tests that fail with the sources and objects as they are, or None."""
        objects = [source + ".o" for source in self.core]
        builds = (
            [*(source + ".o" for source in self.tests), *objects, *WRAP, "-o", "test_core"],
            ["-g", *OPTIONS, *SANITIZE, *self.tests, *self.core, *WRAP, "-o", "sanitized"],
            ["-shared", "binding.c.o", *objects, "-o", self.module],
        )
        pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not r", *SUITES]
        for killer, build, tests in zip(KILLERS, builds, (["./test_core"], ["./sanitized"], pytest)):
            subprocess.run(["cc", *build, "-lm", "-pthread"], cwd=self.folder, check=True)
            if not run(tests, self.folder, LIMITS[killer]):
                return killer
        return None

    def judge(self, mutant):
        """What kills it, or another of VERDICTS."""
        path = self.folder / "c_src" / mutant.file
        original = path.read_text()
        lines = original.split("\n")
        lines[mutant.line - 1] = mutant.became
        path.write_text("\n".join(lines))
        sources = [f"c_src/{name}" for name in (VECTOR_SETS if mutant.file in INCLUDED else (mutant.file,))]
        try:
            for source in sources:
                if not run(["cc", *OPTIONS, "-c", source, "-o", source + ".o"], self.folder, 300):
                    return "does not compile"
            if all((self.folder / (source + ".o")).read_bytes() == self.originals[source] for source in sources):
                return "same code"
            return self.killer() or "survived"
        finally:
            path.write_text(original)
            for source in sources:
                (self.folder / (source + ".o")).write_bytes(self.originals[source])


def shown(mutant, line=""):
    return f"{mutant.file}{line and f':{line}'}: {mutant.was.strip()} -> {mutant.became.strip()}"


def equivalents():
    """The texts of those in tools/equivalent_mutants.txt: its indented lines. "-> ..." stands for whatever the line becomes."""
    lines = (ROOT / "tools/equivalent_mutants.txt").read_text().split("\n")
    return {line.strip() for line in lines if line.startswith("    ")}


def all_mutants():
    return [mutant for file in (*MUTATED, *INCLUDED) for mutant in mutants_of(file)]


def names(mutants):
    """What these may be called in the list."""
    return {shown(mutant._replace(became=became)) for mutant in mutants for became in (mutant.became, "...")}


def report(judged, seed):
    counts = collections.Counter((mutant.file, verdict) for mutant, verdict in judged.items())
    total = {verdict: sum(judged[m] == verdict for m in judged) for verdict in VERDICTS}
    killed = sum(total[verdict] for verdict in KILLERS)
    yield "Mutants of the C core: one line changed at a time, and the first tests that fail. Written by make mutants."
    yield f"{killed} of {killed + total['survived']} killed, besides {total['equivalent']} equivalent ones. Seed {seed}."
    yield ""
    yield f"{'':16}" + "".join(f"{verdict:>18}" for verdict in VERDICTS)
    for file in (*MUTATED, *INCLUDED):
        yield f"{file:16}" + "".join(f"{counts[file, verdict]:18}" for verdict in VERDICTS)
    yield f"{'all':16}" + "".join(f"{total[verdict]:18}" for verdict in VERDICTS)
    survivors = sorted(mutant for mutant, verdict in judged.items() if verdict == "survived")
    yield from ["", "Survived:"] * bool(survivors)
    yield from (shown(mutant, mutant.line) for mutant in survivors)


def main(number=100, seed=1):
    drawn, known = all_mutants(), equivalents()
    random.Random(int(seed)).shuffle(drawn)
    copies = [Copy(ROOT / f"build/mutants/{worker}") for worker in range(WORKERS)]
    if killer := copies[0].killer():
        raise SystemExit(f"the core itself is killed: {killer}")
    judged, left = {}, iter(drawn)

    def work(copy):
        while sum(verdict in COUNTED for verdict in list(judged.values())) < int(number):
            if (mutant := next(left, None)) is None:
                break
            judged[mutant] = copy.judge(mutant) if known.isdisjoint(names([mutant])) else "equivalent"
            print(f"{judged[mutant]:16} {shown(mutant, mutant.line)}", flush=True)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, copies))
    (ROOT / "docs/mutants.txt").write_text("\n".join(report(judged, seed)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
