#!/bin/sh
# Builds the container image with docker, podman or buildah, whichever works here; where none does,
# buildah is installed.
#   image.sh [--cuda] [TAG] [--base IMAGE|FILE.tar]
# personad:cpu (with --cuda personad:cuda) and debian:12-slim unless told. A FILE.tar is a whole
# file system, for machines that reach no registry: `./dev clean-room base` prints the path of one.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

kind=cpu
tag=
base=
while [ $# -gt 0 ]; do
    case $1 in
    --base)
        [ $# -ge 2 ] || fail "--base needs the name of an image, or a FILE.tar"
        base=$2
        shift
        ;;
    --cuda) kind=cuda ;;
    -*) fail "image does not know '$1': it takes --cuda, a tag and --base IMAGE or FILE.tar" ;;
    *) tag=$1 ;;
    esac
    shift
done

case $base in
*.tar) [ -f "$base" ] || fail "--base $base: there is no such file" ;;
esac

# No isolation but another root: that needs neither a runtime nor rights that a container may lack.
# And the storage that works on every file system, where the usual one does not.
buildah_works()
{
    command -v buildah >/dev/null 2>&1 || return 1
    export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
    buildah info >/dev/null 2>&1 && return 0
    export STORAGE_DRIVER=vfs
    buildah info >/dev/null 2>&1
}

choose_builder()
{
    for builder in docker podman; do
        if command -v $builder >/dev/null 2>&1 && $builder info >/dev/null 2>&1; then
            return
        fi
    done
    builder=buildah
    buildah_works && return
    packages_need buildah
    buildah_works || fail "neither docker, podman nor buildah works here: install one of them"
}

# Makes an image of a file system; prints its name.
import_base()
{
    name=localhost/personad-base:latest
    if [ "$builder" = buildah ]; then
        container=$(buildah from scratch)
        buildah add -q "$container" "$1" / >&2
        buildah commit -q --rm "$container" "$name" >&2
    else
        "$builder" import "$1" "$name" >&2
    fi || fail "$1 could not be made an image"
    printf '%s\n' "$name"
}

choose_builder
tag=${tag:-personad:$kind}
case $base in
*.tar)
    say "importing $base"
    base=$(import_base "$base")
    ;;
esac
set -- --file "$root/docker/$kind.Dockerfile" --tag "$tag"
[ -z "$base" ] || set -- "$@" --build-arg "BASE=$base"
[ "$builder" = docker ] || set -- "$@" --format docker # the other format has no health check
say "building the image $tag with $builder"
"$builder" build "$@" "$root" >&2 || fail "the image $tag could not be built"
printf '%s\n' "$tag"
