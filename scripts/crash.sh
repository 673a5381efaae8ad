#!/bin/sh
# Kills a daemon again and again under 32 writing clients: crash.sh [N] [SEED]
# tests/flow/test_crash.py says what must hold.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

kills=${1:-200}
seed=${2:-1}
case $kills$seed in
*[!0-9]*) fail "crash takes how many kills and a seed, both numbers" ;;
esac

packages_need "$packages_build" "$packages_clang" "$packages_test"
configure release -DPERSONAD_TESTS=ON
build release personad tiny_model
mkdir -p "$root/build/tiny"
"$root/build/release/tests/tiny_model" "$root/build/tiny" >&2
cd "$root"
PERSONAD_CRASH_KILLS=$kills PERSONAD_CRASH_SEED=$seed PERSONAD_TINY_DIR=$root/build/tiny \
    PERSONAD_BIN_DIR=$root/build/release/bin \
    exec "$PYTHON" -m pytest -q -s -p no:cacheprovider tests/flow/test_crash.py
