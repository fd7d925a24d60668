#!/bin/sh
# r_dll.sh DIRECTORY 'COMPILER OPTIONS'
#
# Build the R package's DLL for Windows in DIRECTORY with MinGW's compilers and this machine's R headers. It is linked with an
# import library of the names that it uses of R, taken from this machine's libR.so for want of R.dll, and is not run.
set -eu
directory=$1/r_dll
cxx=$(echo "$2" | sed 's/-gcc/-g++/')
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$directory"
cd "$directory"
rm -f ./*
$2 -c $(R CMD config --cppflags) -I"$root/c_src" "$root"/r_compat/src/bcebridge.c "$root"/c_src/bce*.c
$cxx -c $(R CMD config --cppflags) -I"$root/c_src" "$root"/r_compat/src/lantern.cpp
nm -D --defined-only "$(R RHOME)/lib/libR.so" | awk '{ print $3 }' | sort -u >exported
nm -u bcebridge.o lantern.o | awk '{ sub("^__imp_", "", $2); print $2 }' | sort -u >used
{
    echo "LIBRARY R.dll"
    echo "EXPORTS"
    comm -12 exported used
} >R.def
${2%%-gcc*}-dlltool -d R.def -l libR.dll.a
$cxx -shared ./*.o -L. -lR.dll -lm -o bcebridge.dll
echo "bcebridge.dll links with $(comm -12 exported used | wc -l) names of R.dll"
