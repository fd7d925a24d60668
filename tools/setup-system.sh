#!/bin/sh
# Find what is no Python package, or install it with the system's package manager where that may be done without a password.
# Prints the name of each part that is there, one a line; without the others everything else still works. R packages go into
# the R library given as $1. What is wanted is $2:
#   crosscheck  "r": R, and the R package of this repository
#   test        "mpfr" and "chromium"; and, if there is R, "testthat", with what else the R package's tests use
#   check       "r", and what R CMD check --as-cran needs
set -eu
library=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cran=
case $2 in
test) cran="testthat bit64 tibble reticulate" ;;
check) cran="testthat bit64 tibble knitr rmarkdown roxygen2 pkgdown" ;;
esac

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

has_r() {
    command -v R >/dev/null
}

has_mpfr() {
    echo '#include <mpfr.h>' | ${CC:-cc} -E - >/dev/null 2>&1
}

# Ubuntu's chromium-browser may be a program that only asks for a snap: it has no version.
has_chromium() {
    for program in chromium chromium-browser google-chrome; do
        if "$program" --version >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

missing_r_packages() {
    if has_r && [ -n "$cran" ]; then
        R_LIBS="$library" Rscript -e 'for (p in commandArgs(TRUE)) if (!requireNamespace(p, quietly = TRUE)) cat(p, "")' $cran
    fi
}

has_testthat() {
    has_r && case " $(missing_r_packages)" in *" testthat "*) false ;; esac
}

# Install the Debian packages $2 or, with Homebrew, the formulas $1. Fails where neither can be done.
install() {
    if command -v apt-get >/dev/null && as_root true 2>/dev/null; then
        echo "Installing $2 with apt-get" >&2
        as_root apt-get update -qq >&2
        # A machine that has just been started may be upgrading itself, and holds apt's lock.
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 $2 >&2
    elif command -v brew >/dev/null && [ -n "$1" ]; then
        echo "Installing $1 with Homebrew" >&2
        brew install $1 >&2
    else
        return 1
    fi
}

without() {
    echo "$1 missing and cannot be installed without a password. Debian, Ubuntu: apt-get install $2; macOS: $3. Going on without." >&2
}

install_r_package() {
    R CMD INSTALL --library="$library" "$root/r_compat" >"$library/install.log" 2>&1 || {
        cat "$library/install.log" >&2
        echo "The R package cannot be compiled (see above): going on without R. Debian, Ubuntu: apt-get install r-base-dev" >&2
        return 1
    }
}

mkdir -p "$library"
if [ "$2" != test ]; then
    has_r || install r r-base-dev || without "R is" r-base-dev "brew install r"
    if has_r && install_r_package; then echo r; fi
fi
if [ "$2" = check ]; then
    for program in pandoc checkbashisms qpdf; do
        command -v $program >/dev/null || install "pandoc checkbashisms qpdf" "pandoc devscripts qpdf" ||
            without "$program is" "pandoc devscripts qpdf" "brew install pandoc checkbashisms qpdf"
    done
fi
if [ -n "$(missing_r_packages)" ]; then
    install "" "$(printf 'r-cran-%s ' $cran)" || true
    # Without the others all but their own tests run.
    if ! has_testthat; then Rscript -e 'install.packages("testthat", lib = commandArgs(TRUE)[1])' "$library" >&2 || true; fi
fi
if [ "$2" = test ]; then
    has_r && { has_testthat || without "R's package testthat is" r-cran-testthat "install.packages(\"testthat\") in R"; }
    if has_testthat; then echo testthat; fi
    has_mpfr || install mpfr libmpfr-dev || without "GNU MPFR is" libmpfr-dev "brew install mpfr"
    if has_mpfr; then echo mpfr; fi
    has_chromium || install "" chromium || without "Chromium is" chromium "a chromium or google-chrome on the PATH"
    if has_chromium; then echo chromium; fi
fi
