#!/bin/sh
# Looks at the source without running it: format, the source's own rules, clang-tidy, scripts,
# spelling. Ends with 1 if any of them found something.
#   check.sh [--results FILE]     FILE gets one line a check: "check NAME passed|failed|skipped WHY"
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

results=/dev/null
if [ "${1:-}" = --results ]; then
    results=$2
fi

packages_need "$packages_build" "$packages_check"
cd "$root"
failed=0

# One check: its name, then the command.
look()
{
    name=$1
    shift
    start=$(date +%s)
    if "$@" >&2; then
        echo "check $name passed" >>"$results"
        say "$name: good ($(($(date +%s) - start)) s)"
    else
        echo "check $name failed" >>"$results"
        say "$name: FAILED"
        failed=1
    fi
}

# Every file that git tracks, or would, and whose name ends so; fixtures are nobody's source.
files()
{
    git ls-files -z --cached --others --exclude-standard -- "$@" \
        ':!tests/fixtures' ':!tests/fuzz/corpus' | sort -zu
}

check_format()
{
    files '*.c' '*.h' | xargs -0 -r clang-format --dry-run -Werror --style=file
}

check_scripts()
{
    files dev .ci/run '*.sh' | xargs -0 -r shellcheck -S warning -x -P SCRIPTDIR
}

check_spelling()
{
    files '*.c' '*.h' '*.py' '*.sh' '*.md' '*.proto' '*.cmake' '*.1' dev |
        xargs -0 -r codespell -q 3
}

look format check_format
look tidy "$PYTHON" tests/tidy/tidy.py
look scripts check_scripts
look spelling check_spelling
configure debug -DPERSONAD_TESTS=ON
build debug proto
look clang-tidy "$PYTHON" scripts/clang_tidy.py build/debug
exit "$failed"
