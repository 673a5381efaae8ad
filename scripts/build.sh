#!/bin/sh
# Builds a preset, release unless told: build.sh [--cuda] [PRESET] [TARGET...]
#   --cuda     the CUDA backend too, fetching a compiler for it where there is none
# Without it the backend is built where nvcc is found, or where a card of NVIDIA's is seen.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

cuda=auto
if [ "${1:-}" = --cuda ]; then
    cuda=true
    shift
fi
preset=${1:-release}
[ $# -eq 0 ] || shift
case $preset in
release) packages_need "$packages_build" ;;
release-clang | debug | tsan | fuzz) packages_need "$packages_build" "$packages_clang" ;;
*) fail "there is no preset '$preset': choose release, release-clang, debug, tsan or fuzz" ;;
esac
if [ "$preset" = release ]; then
    cuda_prepare "$cuda"
elif [ "$cuda" = true ]; then
    fail "--cuda builds the preset release, not $preset"
fi
configure "$preset"
build "$preset" "$@"
