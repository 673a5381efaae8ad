#!/bin/sh
# Runs a benchmark: bench.sh NAME [...] starts scripts/bench-NAME.sh.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

name=${1:-}
case $name in
*[!a-z0-9-]*) fail "a benchmark has a plain name, not '$name'" ;;
esac
if [ -z "$name" ] || [ ! -f "$root/scripts/bench-$name.sh" ]; then
    say "usage: ./dev bench NAME [...], where NAME is one of:"
    for script in "$root"/scripts/bench-*.sh; do
        [ -f "$script" ] || continue
        about=$(sed -n '2s/^# *//p' "$script")
        name=${script##*/bench-}
        say "  ${name%.sh}: $about"
    done
    exit 2
fi
shift
exec sh "$root/scripts/bench-$name.sh" "$@"
