#!/bin/sh
# Build the R package and check it as CRAN does, in the directory $1, which is made anew. Fails unless the status is OK,
# DESCRIPTION, NAMESPACE and man/ are what roxygen2 makes of the sources, the compiled code exports its R_init alone, and
# pkgdown renders the reference, into $1/site, with every topic in its index.
set -eu
# R checks some things in UTF-8, and warns of a machine in another locale that has none.
[ "$(locale charmap 2>/dev/null)" = UTF-8 ] || export LC_ALL=C.UTF-8
root=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$1"
mkdir -p "$1"
cd "$1"
library=$PWD/library
"$root/tools/setup-system.sh" "$library" check | grep -q '^r$'
export R_LIBS="$library"

cp -R "$root/r_compat" "$root/c_src" .
(
    cd r_compat
    Rscript bootstrap.R
    # Another version of roxygen2 writes another DESCRIPTION.
    if Rscript -e 'quit(status = packageVersion("roxygen2") != read.dcf("DESCRIPTION", "RoxygenNote"))'; then
        Rscript -e 'roxygen2::roxygenise()' >../roxygen.log 2>&1 || { cat ../roxygen.log >&2; exit 1; }
    else
        echo "DESCRIPTION, NAMESPACE and man/ are not compared: roxygen2 is not of the version in RoxygenNote" >&2
    fi
)
for generated in DESCRIPTION NAMESPACE man; do
    diff -r "$root/r_compat/$generated" "r_compat/$generated" || {
        echo "r_compat/$generated is stale: run roxygen2::roxygenise() in r_compat, with the package installed" >&2
        exit 1
    }
done

R CMD build r_compat
# CRAN's own databases and the time are asked for over the network; torch is an optional companion.
_R_CHECK_CRAN_INCOMING_=false _R_CHECK_SYSTEM_CLOCK_=0 _R_CHECK_PACKAGE_DEPENDS_IGNORE_MISSING_ENHANCES_=true \
    R CMD check --as-cran --no-manual bcebridge_*.tar.gz
grep -qx 'Status: OK' bcebridge.Rcheck/00check.log
if [ "$(uname -s)" = Linux ]; then
    # The weak ones are templates of the C++ library, which every library that uses them exports.
    nm -D --defined-only bcebridge.Rcheck/bcebridge/libs/bcebridge.so | grep -v ' [VWu] ' >symbols
    [ "$(sed 's/.* //' symbols)" = R_init_bcebridge ] || {
        echo "bcebridge.so exports more than R_init_bcebridge:" >&2
        cat symbols >&2
        exit 1
    }
fi

R CMD INSTALL --library="$library" bcebridge_*.tar.gz >install.log 2>&1 || { cat install.log >&2; exit 1; }
Rscript - r_compat "$PWD/site" >site.log 2>&1 <<'EOF' || { cat site.log >&2; exit 1; }
    paths <- commandArgs(TRUE)
    package <- pkgdown::as_pkgdown(paths[[1]], override = list(destination = paths[[2]]))
    # Without the home page, for which newer versions of pkgdown ask CRAN.
    pkgdown::init_site(package)
    pkgdown::build_reference(package, examples = FALSE, preview = FALSE)
EOF
