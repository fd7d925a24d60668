"""The matrix of supported versions: make matrix. Each cell has a virtual environment and a copy of the tree of its own, so that
it tests the core which it compiled. What it found goes to build/matrix/, from which tools/support.py writes docs/support.md.

A cell that varies Python, NumPy or cffi runs CORE alone, one that varies rpy2 all tests that embed R, and one that varies torch
all tests. nox looks for interpreters on the PATH and leaves out the cells that have none.
"""

import json
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = False
nox.options.stop_on_first_error = False

CORE = ["-m", "not r", *(f"tests/core/test_{name}.py" for name in ("accumulator", "core", "threads"))]
CORE += ["tests/conformance/test_vectors.py"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.14t"]
TORCHES = ["2.7.1", "2.9.1", "2.11.0", "2.13.0", "2.14.1"]
PROCESSES = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "build/matrix"
RECORD = """
import json, platform, sys
from importlib import metadata
installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
names = ("numpy", "cffi", "torch", "triton", "rpy2", "rpy2-rinterface")
found = {"python": platform.python_version() + sys.abiflags}
print(json.dumps(found | {name: installed[name] for name in names if name in installed}))
"""


def prepare(session, *requirements, extras=""):
    """Copy the tree, and install the requirements and the project."""
    tree = Path(session.create_tmp()) / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tree / file)
    session.chdir(tree)
    session.install("setuptools", "cffi", *requirements)
    session.install("--no-build-isolation", "--editable", f".{extras}", *requirements)


def constraints():
    """The constraints of the development set-up, as arguments for pip."""
    old_r = subprocess.run(["Rscript", "-e", 'quit(status = getRversion() >= "4.5")']).returncode == 0
    return [f"--constraint={ROOT / file}" for file in ("constraints.txt", *(["constraints-old-r.txt"] if old_r else []))]


def prepare_r(session):
    """Install the R package where bce_bridge.r looks for it, and what is no Python package; the marker of what can be run."""
    script, library = str(ROOT / "tools/setup-system.sh"), f"{session.virtualenv.location}/lib/R/library"
    parts = [session.run(script, library, stage, external=True, silent=True).split() for stage in ("crosscheck", "test")]
    missing = [part for part in ("mpfr", "chromium") if part not in parts[1]]
    # The Triton that a torch brings may be older than the kernels need.
    has_kernels = [session.bin_paths[0] + "/python", "-c", "import bce_bridge.torch.triton_kernel"]
    if subprocess.run(has_kernels, capture_output=True).returncode != 0:
        missing.append("triton")
    return " and ".join(f"not {part}" for part in missing)


def install_triton(session):
    """The one that the CUDA build of the installed torch asks for, if torch is a CPU build, which brings none."""
    triton = session.run("python", "tools/matching_triton.py", silent=True).strip()
    if triton:
        session.install(triton)


def run_tests(session, *arguments, processes=()):
    """Run pytest, and record what it found with all versions, whether it passed or not."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = session.name.replace("(", "-").replace(")", "").replace("'", "").replace("=", "-")
    found = json.loads(session.run("python", "-c", RECORD, silent=True, log=False))
    if shutil.which("R") is not None and "rpy2" in found:
        found["R"] = subprocess.run(["R", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    report = RESULTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"cell": session.name, "tests": " ".join(arguments), "versions": found}))
    session.run("python", "-m", "pytest", "-q", f"--junitxml={report}", *processes, *arguments)


@nox.session(python=PYTHONS)
def python(session):
    """The newest NumPy and cffi that pip finds for this Python."""
    prepare(session, "mpmath", "ml-dtypes", "pytest", "jsonschema")
    run_tests(session, *CORE)


@nox.session(python=["3.10", "3.11"])
def oldest(session):
    """The oldest NumPy and cffi that pyproject.toml admits."""
    prepare(
        session, "numpy==1.24.*", "cffi==1.17.*", "mpmath==1.3.0", "ml-dtypes==0.4.*", "pytest==8.0.*", "jsonschema==4.18.*"
    )
    run_tests(session, *CORE)


@nox.session
@nox.parametrize("rpy2", ["oldest", "newest"])
def rpy2(session, rpy2):
    """The oldest rpy2 that pyproject.toml admits, and the newest that works with this machine's R."""
    if shutil.which("R") is None:
        session.skip("R is missing")
    oldest = ["rpy2==3.6.5", "rpy2-rinterface==3.6.5", "rpy2-robjects==3.6.4"]
    prepare(session, *constraints(), "torch==2.13.0", *(oldest if rpy2 == "oldest" else ["rpy2"]), extras="[test,r]")
    install_triton(session)
    prepare_r(session)
    run_tests(session, "-m", "r", "tests", processes=PROCESSES)


@nox.session
@nox.parametrize("torch", TORCHES)
def torch(session, torch):
    """A torch with its own Triton, or with the one that its CUDA build asks for; every test that this machine can run."""
    if shutil.which("R") is None:
        session.skip("R is missing")
    prepare(session, *constraints(), f"torch=={torch}", extras="[test,r]")
    install_triton(session)
    run_tests(session, "-m", prepare_r(session), "tests", processes=PROCESSES)


@nox.session
def r(session):
    """The R package's own tests, with this machine's R."""
    if shutil.which("R") is None:
        session.skip("R is missing")
    prepare_r(session)
    library = f"{session.virtualenv.location}/lib/R/library"
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / "r.xml"
    report.unlink(missing_ok=True)
    version = subprocess.run(["R", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    (RESULTS / "r.json").write_text(json.dumps({"cell": "r", "tests": "r_compat/tests/testthat", "versions": {"R": version}}))
    code = """
        found <- as.data.frame(testthat::test_dir("r_compat/tests/testthat", package = "bcebridge",
            load_package = "installed", stop_on_failure = FALSE))
        writeLines(sprintf('<testsuite tests="%d" failures="%d" errors="%d" skipped="%d" timestamp="%s"/>', nrow(found),
            sum(found$failed > 0), sum(found$error), sum(found$skipped), Sys.Date()), commandArgs(TRUE))
        quit(status = any(found$failed > 0 | found$error))
    """
    session.run("Rscript", "-e", code, str(report), env={"NOT_CRAN": "true", "R_LIBS": library}, external=True)
