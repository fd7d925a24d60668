#!/bin/sh
# Make the virtual environment $1 and put into it what $2 names: "venv" (nothing yet), "crosscheck" (what the cross-check
# shows), "test" (what the tests need) or "docs" (what builds the site). PYTHON is the interpreter. If it has a torch, that one is used; else TORCH is
# installed, from TORCH_INDEX if that is given. rpy2 is installed if $1/system says that there is R.
set -eu
venv=$1
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
torch_floor=$(sed -n 's/^torch = \["torch>=\(.*\)"\]$/\1/p' pyproject.toml)

missing() {
    echo "$1 missing. Debian, Ubuntu: apt-get install $2" >&2
    complete=no
}

check_python() {
    complete=yes
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=none
    case $version in
    3.[1-9][0-9]) ;;
    *)
        echo "PYTHON must be Python 3.10 or newer, got $python ($version): make PYTHON=python3.12 ..." >&2
        exit 1
        ;;
    esac
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing "Python's module venv is" "python3-venv"
    echo '#include <stdlib.h>' | ${CC:-cc} -x c -fsyntax-only - 2>/dev/null || missing "A C compiler (GCC or clang) is" "gcc libc6-dev"
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] || missing "Python's headers are" "python3-dev"
    [ $complete = yes ] || exit 1
}

# Whether $1, a Python, has a torch that is new enough.
has_torch() {
    "$1" - "$torch_floor" 2>/dev/null <<'END'
import sys
from importlib.metadata import version
number = lambda text: tuple(map(int, text.split(".")[:2]))
sys.exit(number(version("torch")) < number(sys.argv[1]))
END
}

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt "$@"
}

install_torch() {
    echo "Installing $TORCH, as $python has no torch $torch_floor or newer."
    if [ -z "${TORCH_INDEX-}" ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
        echo "PyPI's torch for this machine is the CUDA build: about 3 GB to download, 6 GB on disk. The CPU build is 0.2 GB;" \
            "to have it, stop this and run: make crosscheck TORCH_INDEX=https://download.pytorch.org/whl/cpu"
    fi
    pip_install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
}

# Install the project with the extras $1. rpy2 (the extra r) is compiled against R, and the newest wants R 4.5.
install_extras() {
    old_r=
    case ,$1, in
    *,r,*) if Rscript -e 'quit(status = getRversion() >= "4.5")'; then old_r="--constraint constraints-old-r.txt"; fi ;;
    esac
    pip_install $old_r --no-build-isolation --editable ".[$1]"
}

case $2 in
venv)
    check_python
    site=
    # A virtual environment does not see what another one has.
    if has_torch "$python" && "$python" -c 'import sys; sys.exit(sys.prefix != sys.base_prefix)'; then
        site=--system-site-packages
        echo "Using the torch of $python."
    fi
    "$python" -m venv $site "$venv"
    ;;
crosscheck)
    has_torch "$venv/bin/python" || install_torch
    echo "Installing NumPy, cffi, mpmath and rich (some 30 MB), and compiling bce_bridge."
    pip_install setuptools cffi
    if ! grep -qx r "$venv/system"; then
        install_extras torch,crosscheck
    elif ! install_extras torch,crosscheck,r; then
        echo "Trying again without rpy2, so without R in Python's process." >&2
        install_extras torch,crosscheck
    fi
    ;;
test)
    echo "Installing what the tests need, PyKEEN, mypy, Playwright and scikit-learn among it (some 250 MB)."
    if "$venv/bin/python" -c 'import rpy2' 2>/dev/null; then install_extras test,r; else install_extras test-python; fi
    triton=$("$venv/bin/python" tools/matching_triton.py)
    [ -z "$triton" ] || pip_install "$triton"
    ;;
docs)
    echo "Installing what builds the site, Sphinx and PyKEEN among it (some 100 MB)."
    install_extras docs
    ;;
esac
