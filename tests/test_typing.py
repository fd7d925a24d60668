"""The types of the installed package's public API: mypy --strict on typing/api.py, and stubs against what they describe."""

import re
import subprocess
import sys
from pathlib import Path

import bce_bridge

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(bce_bridge.__file__).parent


def run(*arguments):
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# Catches: a result of another type than users are told, an argument wrongly refused, and one wrongly accepted.
def test_the_public_api_under_mypy_strict():
    run("mypy", "--strict", "tests/typing/api.py")


# Catches: a name, an argument or a default that was changed in a module and not in its stub, or the other way round.
def test_stubs_are_in_step_with_the_modules(tmp_path):
    without_stubs = [path.with_suffix("") for path in PACKAGE.rglob("*.py") if not path.with_suffix(".pyi").exists()]
    modules = [".".join(path.relative_to(PACKAGE.parent).parts).removesuffix(".__init__") for path in without_stubs]
    allowed = tmp_path / "allowed"
    allowed.write_text("".join(f"{re.escape(module)}(\\..*)?\n" for module in modules))
    options = ["--allowlist", allowed, "--ignore-unused-allowlist", "--mypy-config-file", ROOT / "tests/typing/stubtest.ini"]
    run("mypy.stubtest", *options, "bce_bridge")


# Catches: a public module whose functions mypy takes for untyped ones.
def test_every_public_module_has_a_stub():
    for name in ("__init__", "composer", "core", "lucid", "pykeen", "r/__init__"):
        assert (PACKAGE / f"{name}.pyi").exists(), name
    for name in ("torch/__init__", "torch/distributed", "torch/functional", "torch/modules"):
        assert (PACKAGE / f"{name}.pyi").exists(), name
    assert (PACKAGE / "py.typed").exists()
