#!/bin/sh
# Runs a libFuzzer target: fuzz.sh NAME [SECONDS]
# Seeds come from tests/fuzz/corpus/NAME; what is found new stays under build/.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

names=$(cd "$root/tests/fuzz" && find . -name 'fuzz_*.c' | sed 's|^./fuzz_||; s|\.c$||' | sort |
    tr '\n' ' ')
name=${1:-}
seconds=${2:-60}
[ -n "$name" ] || fail "which target? There are: $names"
[ -f "$root/tests/fuzz/fuzz_$name.c" ] || fail "there is no fuzz target '$name', but: $names"

packages_need "$packages_build" "$packages_clang"
configure fuzz
build fuzz "fuzz_$name"

found=$root/build/fuzz/found/$name
mkdir -p "$found" "$root/build/fuzz/crashes"
cd "$root"
exec "$root/build/fuzz/tests/fuzz_$name" -max_total_time="$seconds" \
    -artifact_prefix="$root/build/fuzz/crashes/$name-" -print_final_stats=1 \
    "$found" "$root/tests/fuzz/corpus/$name"
