"""What keeps the repository's parts in step, and the package light."""

import re
import subprocess
import sys
from pathlib import Path

import bce_bridge
from bce_bridge.conformance import compare

ROOT = Path(__file__).resolve().parent.parent


def test_one_version():
    version = bce_bridge.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"Version: {version}\n" in (ROOT / "r_compat/DESCRIPTION").read_text()


def test_generated_polynomials_are_fresh():
    script = ROOT / "c_src/tools/polynomials.py"
    fresh = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert fresh == (ROOT / "c_src/bce_polynomials.inc").read_text()


def test_deviations_are_documented_by_name():
    documented = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/deviations.md").read_text(), re.MULTILINE))
    assert set(compare.KNOWN_DEVIATIONS) <= documented


def test_every_help_topic_is_on_the_r_package_s_site():
    """pkgdown refuses to build a site whose index lacks a topic."""
    listed = re.findall(r"^  - (\S+)$", (ROOT / "r_compat/_pkgdown.yml").read_text(), re.MULTILINE)
    articles = [path.stem for path in (ROOT / "r_compat/vignettes").glob("*.Rmd")]
    assert sorted(listed) == sorted(articles + [path.stem for path in (ROOT / "r_compat/man").glob("*.Rd")])


def test_importing_is_light():
    """Imports neither torch nor rpy2, and takes under 0.3 s."""
    code = (
        "import time; start = time.perf_counter(); import bce_bridge; took = time.perf_counter() - start\n"
        "import sys; assert not {'torch', 'rpy2', 'mpmath'} & set(sys.modules), sys.modules.keys()\n"
        "assert took < 0.3, took\n"
        "import bce_bridge.core, bce_bridge.r; assert not {'torch', 'rpy2', 'mpmath'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_had():
    for name in bce_bridge.__all__:
        assert getattr(bce_bridge, name) is not None
