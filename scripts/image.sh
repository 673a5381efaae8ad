#!/bin/sh
# Builds the container image with docker, podman or buildah, whichever works here.
#   image.sh [TAG] [--base IMAGE]     personad:cpu and debian:12-slim unless told
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

tag=personad:cpu
base=
while [ $# -gt 0 ]; do
    case $1 in
    --base)
        [ $# -ge 2 ] || fail "--base needs the name of an image"
        base=$2
        shift
        ;;
    -*) fail "image does not know '$1': it takes a tag and --base IMAGE" ;;
    *) tag=$1 ;;
    esac
    shift
done

builder=
for candidate in docker podman buildah; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" info >/dev/null 2>&1; then
        builder=$candidate
        break
    fi
done
[ -n "$builder" ] || fail "neither docker, podman nor buildah works here: install one of them"

set -- --file "$root/docker/cpu.Dockerfile" --tag "$tag"
[ -z "$base" ] || set -- "$@" --build-arg "BASE=$base"
[ "$builder" = docker ] || set -- "$@" --format docker # the other format has no health check
say "building the image $tag with $builder"
"$builder" build "$@" "$root" >&2
printf '%s\n' "$tag"
