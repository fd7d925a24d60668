#!/bin/sh
# Find R, GNU MPFR and Chromium, or install them with the system's package manager where that may be done without a password;
# then put the R package and what its tests need into the R library given as $1. Prints "r", "mpfr" and "chromium", each on a
# line, if it is there: without them everything else still works, and without bit64 and tibble all but their own tests. With
# "check" as $2, what R CMD check --as-cran needs, and no Chromium.
set -eu
library=$1
root=$(cd "$(dirname "$0")/.." && pwd)
r_packages="testthat bit64 tibble"
programs=
debian=
if [ "${2-}" = check ]; then
    r_packages="$r_packages knitr rmarkdown roxygen2"
    programs="pandoc checkbashisms"
    debian="pandoc devscripts"
fi

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

may_use_apt() {
    command -v apt-get >/dev/null && as_root true 2>/dev/null
}

apt_install() {
    echo "Installing what is missing of" "$@" >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >"$library/apt.log" 2>&1 ||
        cat "$library/apt.log" >&2
}

missing_r_packages() {
    R_LIBS="$library" Rscript -e 'for (p in commandArgs(TRUE)) if (!requireNamespace(p, quietly = TRUE)) cat(p, "")' $r_packages
}

has_all() {
    has_r && has_mpfr && [ -z "$(missing_r_packages)" ] || return 1
    for program in $programs; do command -v "$program" >/dev/null || return 1; done
}

mkdir -p "$library"
if ! has_all; then
    debian="r-base-dev libmpfr-dev$(printf ' r-cran-%s' $r_packages) $debian"
    if may_use_apt; then
        apt_install $debian
    elif command -v brew >/dev/null; then
        echo "Installing what is missing of R and MPFR with Homebrew" >&2
        brew install --quiet r mpfr $programs >&2
    fi
fi
# On its own: where there is no such package, apt-get would install nothing of the rest.
if [ "${2-}" != check ] && ! has_chromium && may_use_apt; then
    apt_install chromium
fi
if has_r; then
    R CMD INSTALL --library="$library" "$root/r_compat" >"$library/install.log" 2>&1 || {
        cat "$library/install.log" >&2
        exit 1
    }
    case " $(missing_r_packages)" in
    *" testthat "*) Rscript -e 'install.packages("testthat", lib = commandArgs(TRUE)[1])' "$library" >&2 ;;
    esac
    echo r
else
    echo "R is missing and cannot be installed without a password: install it (Debian, Ubuntu: apt-get install r-base-dev" \
        "r-cran-testthat; macOS: brew install r) and repeat the command. Going on without R." >&2
fi
if has_mpfr; then
    echo mpfr
else
    echo "GNU MPFR is missing: its tests will not run (Debian, Ubuntu: apt-get install libmpfr-dev; macOS: brew install mpfr)." >&2
fi
if [ "${2-}" != check ]; then
    if has_chromium; then
        echo chromium
    else
        echo "Chromium is missing: its tests will not run (Debian: apt-get install chromium; else a chromium or google-chrome" \
            "on the PATH)." >&2
    fi
fi
