#!/bin/sh
# Build the site in the folder $1, which is made anew, with the Python $2. Fails on any warning. Names what it leaves out for lack
# of npm or R.
set -eu
rm -rf "$1"
mkdir -p build/mermaid

mermaid=11.17.2
if [ ! -f build/mermaid/mermaid.min.js ]; then
    if command -v npm >/dev/null; then
        (cd build/mermaid && npm pack --silent mermaid@$mermaid >/dev/null &&
            tar -xzf mermaid-$mermaid.tgz --strip-components=2 package/dist/mermaid.min.js && rm mermaid-$mermaid.tgz)
    else
        echo "Left out: the picture in docs/architecture.md, which stays text. Debian, Ubuntu: apt-get install npm"
    fi
fi
command -v Rscript >/dev/null || echo "Left out: the reference of the R package. Debian, Ubuntu: apt-get install r-base-core"

"$2" -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/doctrees . "$1"
echo "$1/index.html"
