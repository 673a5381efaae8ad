#!/bin/sh
# Plays the seeded simulations for more seeds: sim.sh [SEEDS [FIRST]]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

count=${1:-1000}
first=${2:-1}
packages_need "$packages_build"
configure release -DPERSONAD_TESTS=ON
build release sim_test_schedule sim_test_tree sim_test_damage
cd "$root"
"$root/build/release/tests/sim_test_schedule" "$first" "$count"
"$root/build/release/tests/sim_test_tree" "$first" "$count"
# Each seed is 40 damages.
"$root/build/release/tests/sim_test_damage" "$first" $((count / 40 + 1))
