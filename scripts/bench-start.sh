#!/bin/sh
# How long a daemon takes to start over a million stored nodes: start [NODES] [NODES_PER_SESSION]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

packages_need "$packages_build" "$packages_clang" "$packages_test"
configure release -DPERSONAD_TESTS=ON
build release personad tiny_model
mkdir -p "$root/build/tiny"
"$root/build/release/tests/tiny_model" "$root/build/tiny" >&2
exec "$PYTHON" "$root/scripts/bench_start.py" "$root/build/release/bin/personad" \
    "$root/build/tiny/tiny-Q4_1-bpe.gguf" "$@"
