#!/bin/sh
# python_dll.sh DIRECTORY COMPILER PYTHON
#
# Build Python's extension module for Windows in DIRECTORY as setup.py does there, with a MinGW compiler and PYTHON's headers.
# It is linked with an import library of the names that it uses of Python, for want of python3.dll, and is not run. It may ask
# for Windows's own DLLs and for python3.dll, which every Python has: for none of one Python's, and for none of the compiler's.
set -eu
directory=$1/python_dll
compiler=$2
python=$3
root=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$directory"
mkdir -p "$directory/lib"
cp -r "$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')" "$directory/include"
cat >"$directory/include/pyconfig.h" <<'EOF'
/* What the limited API needs of Windows's. */
#define MS_WINDOWS
#define MS_WIN64
#define Py_ENABLE_SHARED
#define HAVE_DECLSPEC_DLL
#define HAVE_SSIZE_T 1
#define HAVE_STDDEF_H 1
#define HAVE_WCHAR_H 1
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_WCHAR_T 2
EOF

# With the import library of the names in the objects, which a first build leaves behind where it fails to link.
build() {
    (cd "$root" && CC=$compiler "$python" setup.py --quiet build_ext --compiler=mingw32 --include-dirs="$directory/include" \
        --library-dirs="$directory/lib" --build-temp="$directory/objects" --build-lib="$directory/built") >"$directory/log" 2>&1
}
names() {
    find "$directory/objects" -name '*.o' -exec "${compiler%gcc*}nm" -u {} + |
        awk '$2 ~ /^(__imp_)?_?Py/ { sub("^__imp_", "", $2); print $2 }' | sort -u
}
build || [ -n "$(names)" ] || { cat "$directory/log" >&2; exit 1; }
{
    echo "LIBRARY python3.dll"
    echo "EXPORTS"
    names
} >"$directory/python3.def"
"${compiler%gcc*}dlltool" -d "$directory/python3.def" -l "$directory/lib/libpython3.dll.a"
build || { cat "$directory/log" >&2; exit 1; }
module=$directory/_core.pyd
mv "$directory"/built/bce_bridge/_core.* "$module"
dlls=$("${compiler%gcc*}objdump" -p "$module" | awk '/DLL Name:/ { print tolower($3) }' | sort | tr '\n' ' ')
case $dlls in
"kernel32.dll "*"python3.dll ") ;;
*) echo "_core.pyd asks for $dlls" >&2; exit 1 ;;
esac
echo "_core.pyd links with $(names | wc -l) names of python3.dll, and asks for $dlls"
