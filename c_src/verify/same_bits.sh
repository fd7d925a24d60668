#!/bin/sh
# same_bits.sh DIRECTORY 'COMPILER OPTIONS'...
#
# Build dump_bits in DIRECTORY with each compiler and its options, run it, and print what it prints. Exit status 1 unless all
# hashes are equal. What aarch64-* compilers build runs under qemu-aarch64 where the machine is another, and what MinGW's build
# under Wine.
set -eu
directory=$1
shift
core=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$directory"
: >"$directory/hashes"
for build; do
    runner=
    case $build in
    aarch64-*) [ "$(uname -m)" = aarch64 ] || runner=qemu-aarch64 ;;
    *-mingw32-*) runner=wine ;;
    esac
    # Words of $build and $runner are the compiler, its options and a command.
    $build -Wall -Wextra "$core"/verify/dump_bits.c "$core"/bce*.c -o "$directory/dump_bits.exe" -lm -pthread
    $runner "$directory/dump_bits.exe" >"$directory/lines" || [ $? -eq 1 ]
    [ -s "$directory/lines" ] || { echo "no hash from: $build" >&2; exit 1; }
    while read -r isa hash; do
        hash=$(echo "$hash" | tr -d '\r')
        printf '%s  %-8s %s\n' "$hash" "$isa" "$build"
        echo "$hash" >>"$directory/hashes"
    done <"$directory/lines"
done
if [ "$(sort -u "$directory/hashes" | wc -l)" -ne 1 ]; then
    echo "the hashes differ: dump_bits --groups shows where" >&2
    exit 1
fi
