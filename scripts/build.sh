#!/bin/sh
# Builds a preset, release unless told: build.sh [PRESET] [TARGET...]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

preset=${1:-release}
[ $# -eq 0 ] || shift
case $preset in
release) packages_need "$packages_build" ;;
release-clang | debug | tsan | fuzz) packages_need "$packages_build" "$packages_clang" ;;
*) fail "there is no preset '$preset': choose release, release-clang, debug, tsan or fuzz" ;;
esac
configure "$preset"
build "$preset" "$@"
