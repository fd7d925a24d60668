#!/bin/sh
# Find R, or install it with the system's package manager where that may be done; then put the R package and what its
# tests need into the R library given as $1. Exit status 0 with R, 3 without: everything but R still works then.
set -eu
library=$1
root=$(cd "$(dirname "$0")/.." && pwd)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if ! command -v R >/dev/null; then
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        echo "R is missing: installing r-base-dev and r-cran-testthat" >&2
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends r-base-dev r-cran-testthat \
            >/dev/null
    elif command -v brew >/dev/null; then
        echo "R is missing: installing it with Homebrew" >&2
        brew install --quiet r
    else
        echo "R is missing and cannot be installed without a password: install it (Debian, Ubuntu: apt-get install" \
            "r-base-dev r-cran-testthat; macOS: brew install r) and repeat the command. Going on without R." >&2
        exit 3
    fi
fi

mkdir -p "$library"
R CMD INSTALL --library="$library" "$root/r_compat" >"$library/install.log" 2>&1 || {
    cat "$library/install.log" >&2
    exit 1
}
if ! R_LIBS="$library" Rscript -e 'quit(status = !requireNamespace("testthat", quietly = TRUE))'; then
    if command -v apt-get >/dev/null && as_root apt-get install -qq -y r-cran-testthat >/dev/null 2>&1; then
        :
    else
        Rscript -e 'install.packages("testthat", lib = commandArgs(TRUE)[1])' "$library"
    fi
fi
