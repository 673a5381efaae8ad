#!/bin/sh
# Builds the container image with docker, podman or buildah, whichever works here.
#   image.sh [--cuda] [TAG] [--base IMAGE]
# personad:cpu (with --cuda personad:cuda) and debian:12-slim unless told.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

kind=cpu
tag=
base=
while [ $# -gt 0 ]; do
    case $1 in
    --base)
        [ $# -ge 2 ] || fail "--base needs the name of an image"
        base=$2
        shift
        ;;
    --cuda) kind=cuda ;;
    -*) fail "image does not know '$1': it takes --cuda, a tag and --base IMAGE" ;;
    *) tag=$1 ;;
    esac
    shift
done

tag=${tag:-personad:$kind}
builder=
for candidate in docker podman buildah; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" info >/dev/null 2>&1; then
        builder=$candidate
        break
    fi
done
[ -n "$builder" ] || fail "neither docker, podman nor buildah works here: install one of them"

set -- --file "$root/docker/$kind.Dockerfile" --tag "$tag"
[ -z "$base" ] || set -- "$@" --build-arg "BASE=$base"
[ "$builder" = docker ] || set -- "$@" --format docker # the other format has no health check
say "building the image $tag with $builder"
"$builder" build "$@" "$root" >&2
printf '%s\n' "$tag"
