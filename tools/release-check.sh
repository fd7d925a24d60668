#!/bin/sh
# Build what a release consists of from a clean clone of HEAD (what is not committed does not count), check it, and run the
# tests against what was built: a source distribution, a wheel built from it for this machine, and R's source package. They
# come to lie in dist/, with their SHA-256 sums, once everything has passed. Wants git, a C compiler, R and GNU MPFR, and the
# network. PYTEST_ADDOPTS may choose among the Python tests, for a trial.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH R_LIBS R_LIBS_USER
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

step() {
    echo "== $*"
}

fail() {
    echo "release-check: $*" >&2
    exit 1
}

# Run a command whose output matters only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "failed: $*"
    }
}

# The files in the archive $1, without its folder.
listed() {
    tar -tzf "$1" | sed -n 's|^[^/]*/\(.*[^/]\)$|\1|p' | LC_ALL=C sort
}

step "a clean clone of $(git -C "$root" describe --always)"
git clone --quiet "$root" "$work/clone"
cd "$work/clone"
version=$(sed -n 's/^#define BCE_VERSION "\(.*\)"$/\1/p' c_src/bce.h)
mkdir "$work/built"

step "the source distribution, and a wheel built from it in an environment of its own"
python=${PYTHON:-python3}
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet abi3audit build check-wheel-contents twine
quietly "$work/tools/bin/python" -m build "$work/clone" --outdir "$work/built"
sdist=$work/built/bce_bridge-$version.tar.gz
wheel=$(echo "$work"/built/bce_bridge-"$version"-cp310-abi3-*.whl)
[ -f "$sdist" ] && [ -f "$wheel" ] || fail "the build must be a source distribution and an abi3 wheel of $version, got $(ls "$work/built")"

step "their contents and metadata"
git ls-files | grep -vE '^(\.ci/|(.*/)?\.gitignore$)' | LC_ALL=C sort >"$work/want"
listed "$sdist" | grep -vE '^(PKG-INFO|setup\.cfg|bce_bridge\.egg-info/.*)$' >"$work/got"
diff "$work/want" "$work/got" || fail "the source distribution does not hold what the repository holds: see MANIFEST.in"
# The wheel holds the package as it is in the repository, where bce_bridge.vectors is vectors/, the compiled core, and its
# metadata with the licence.
metadata=bce_bridge-$version.dist-info
{
    git ls-files bce_bridge
    git ls-files vectors | sed 's|^|bce_bridge/|'
    echo bce_bridge/_core.abi3.so
    for file in METADATA RECORD WHEEL entry_points.txt licenses/LICENSE top_level.txt; do echo "$metadata/$file"; done
} | LC_ALL=C sort >"$work/want"
"$python" -m zipfile --list "$wheel" | sed '1d; s/ .*//' | LC_ALL=C sort >"$work/got"
diff "$work/want" "$work/got" || fail "the wheel does not hold what it should: see [tool.setuptools] in pyproject.toml"
"$work/tools/bin/twine" check --strict "$sdist" "$wheel"
"$work/tools/bin/check-wheel-contents" "$wheel"
quietly "$work/tools/bin/abi3audit" --strict --report "$wheel"

step "the R package, checked as CRAN checks it"
quietly tools/check-r.sh "$work/check-r"
r_package=$work/check-r/bcebridge_$version.tar.gz
[ -f "$r_package" ] || fail "R must build version $version, got $(ls "$work"/check-r/*.tar.gz)"

# From here on the clone is gone: the tests are those of the archives, and what they test is what was installed.
cp constraints*.txt "$work"
cd "$work"
rm -rf clone
step "the Python tests against the installed wheel"
"$python" -m venv "$work/venv"
tar -xzf "$sdist"
old_r=
if Rscript -e 'quit(status = getRversion() >= "4.5")'; then old_r="--constraint constraints-old-r.txt"; fi
"$work/venv/bin/pip" install --quiet --constraint constraints.txt $old_r "$TORCH" "$wheel[test]"
triton=$("$work/venv/bin/python" "bce_bridge-$version/tools/matching_triton.py")
[ -z "$triton" ] || "$work/venv/bin/pip" install --quiet "$triton"
library=$work/venv/lib/R/library
mkdir -p "$library"
quietly R CMD INSTALL --library="$library" "$r_package"
rm -rf "bce_bridge-$version/bce_bridge"
(
    cd "bce_bridge-$version"
    installed=$("$work/venv/bin/python" -c 'import bce_bridge, os; print(os.path.dirname(bce_bridge.__file__))')
    case $installed in
    "$work/venv/"*) ln -s "$installed" bce_bridge ;;  # some tests read the sources where the repository has them
    *) fail "the tests would import $installed, not what was installed" ;;
    esac
    "$work/venv/bin/python" -m pytest
)

step "the R package's tests against the installed package"
tar -xzf "$r_package"
# check-r.sh has put there what the tests need and the system lacks.
NOT_CRAN=true R_LIBS="$library:$work/check-r/library" Rscript -e \
    'testthat::test_dir("bcebridge/tests/testthat", package = "bcebridge", load_package = "installed", stop_on_failure = TRUE)'

rm -rf "$root/dist"
mkdir "$root/dist"
cp "$sdist" "$wheel" "$r_package" "$root/dist"
cd "$root/dist"
shasum -a 256 -- * >"$work/SHA256SUMS"
cp "$work/SHA256SUMS" .
step "dist/ holds the release"
cat SHA256SUMS
