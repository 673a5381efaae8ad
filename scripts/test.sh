#!/bin/sh
# All tests. Ends in one line "N passed, N failed, N skipped", and with 1 if anything failed.
#   test.sh [--quick|--long]     --quick: the release build only
#                                --long: also what takes longer than it shows on most days, such as
#                                the kernels under every configuration of the emulator
#
# What ran leaves its counts in build/test: lines "STAGE NAME passed|failed|skipped WHY" in
# results, and JUnit files of ctest and pytest. test_report.py adds them up.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

quick=false
case "${1:-}" in
'') ;;
--quick) quick=true ;;
--long) export PERSONAD_LONG=1 ;;
*) fail "test does not know '$1': it takes --quick, --long or nothing" ;;
esac

flow_test_seconds_max=300
began=$(date +%s)
out=$root/build/test
rm -rf "$out"
mkdir -p "$out"
results=$out/results
: >"$results"

export PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1 second_deadlock_stack=1}"

# One stage: its name, then the command. A stage that breaks counts as one failed test, unless the
# command counts its own.
stage()
{
    name=$1
    shift
    say "$name ..."
    start=$(date +%s)
    broken=false
    "$@" || broken=true
    seconds=$(($(date +%s) - start))
    if $broken; then
        say "$name: BROKEN after $seconds s"
        echo "$name itself failed" >>"$results"
        return 1
    fi
    say "$name: $seconds s"
}

# Says why something was not run, where a reader of the last line looks for it.
skip()
{
    say "$1 $2: skipped: $3"
    echo "$1 $2 skipped $3" >>"$results"
}

# ---- stages -------------------------------------------------------------------------------------

run_check()
{
    # Each look is a result of its own; only a check that could not look is broken.
    sh "$root/scripts/check.sh" --results "$results" || grep -q '^check .* failed' "$results"
}

run_build()
{
    preset=$1
    shift
    # In a subshell of its own, since a failing configure ends the script that asks for it.
    (configure "$preset" -DPERSONAD_TESTS=ON && build "$preset" "$@")
}

# With the CUDA backend where a compiler is; for two architectures where nothing was built before.
run_build_release()
{
    nvcc=$(cuda_find)
    if [ -z "$nvcc" ]; then
        run_build release
    elif [ -f "$root/build/release/CMakeCache.txt" ]; then
        (configure release -DPERSONAD_TESTS=ON "-DPERSONAD_NVCC=$nvcc" && build release)
    else
        (configure release -DPERSONAD_TESTS=ON "-DPERSONAD_NVCC=$nvcc" \
            "-DPERSONAD_CUDA_ARCHITECTURES=$cuda_architectures_test" && build release)
    fi
}

run_ctest()
{
    ctest --test-dir "$root/build/$1" --output-on-failure --no-tests=error \
        --parallel "$(core_count)" --output-junit "$out/ctest-$1.xml" >&2 ||
        [ -s "$out/ctest-$1.xml" ]
}

run_pytest()
{
    junit=$out/pytest-$1.xml
    shift
    (cd "$root" && "$PYTHON" -m pytest -q -rs -p no:cacheprovider --junitxml="$junit" "$@") >&2 ||
        [ -s "$junit" ]
}

run_flows()
{
    preset=$1
    shift
    PERSONAD_BIN_DIR=$root/build/$preset/bin PERSONAD_PRESET=$preset \
        run_pytest "flows-$preset" --timeout="$flow_test_seconds_max" "$@" tests/flow
}

# On the CUDA backend without a card: its kernels over the emulator, so a few flows only.
run_flows_cuda()
{
    PERSONAD_FLOW_BACKEND=cuda \
        PERSONAD_BACKEND_PATH=$root/build/release/emulated/libpersonad_cuda_emulated.so \
        PERSONAD_BIN_DIR=$root/build/release/bin PERSONAD_PRESET=release \
        run_pytest flows-cuda --timeout="$flow_test_seconds_max" tests/flow/test_conversation.py \
        --deselect tests/flow/test_conversation.py::test_a_persona_that_is_put_can_be_played
}

run_bits()
{
    for preset in release release-clang; do
        "$root/build/$preset/tests/kernel_bits" >"$out/bits-$preset" || return 1
    done
    if [ -s "$out/bits-release" ] && cmp "$out/bits-release" "$out/bits-release-clang" >&2; then
        echo "kernel-bits gcc-equals-clang passed" >>"$results"
    else
        diff "$out/bits-release" "$out/bits-release-clang" | head -n 20 >&2 || :
        echo "kernel-bits gcc-equals-clang failed" >>"$results"
    fi
}

# The kernels for ARM, on another architecture only: there the tests above run them. Each look is a
# result of its own.
run_aarch64()
{
    sh "$root/scripts/aarch64.sh" --results "$results" || grep -q '^aarch64 .* failed' "$results"
}

fetch_model()
{
    PERSONAD_MODEL=$(sh "$root/scripts/model.sh") || return 1
    export PERSONAD_MODEL
}

# Tiny random models of every weight type, for the flows.
make_tiny_models()
{
    export PERSONAD_TINY_DIR="$root/build/tiny"
    mkdir -p "$PERSONAD_TINY_DIR"
    "$root/build/release/tests/tiny_model" "$PERSONAD_TINY_DIR" >&2
}

# ---- the order ----------------------------------------------------------------------------------

say "packages ..."
packages_need "$packages_build" "$packages_model" "$packages_test"

stage check run_check || :
stage model fetch_model || :

released=false
stage build-release run_build_release && released=true
if $released; then
    stage ctest-release run_ctest release || :
    stage pytest-scripts run_pytest scripts tests/tidy tests/dev || :
    if [ "$(uname -m)" = aarch64 ]; then
        skip aarch64 all "this is such a machine: its kernels ran natively"
    else
        stage aarch64 run_aarch64 || :
    fi
    stage tiny-models make_tiny_models || :
    stage flows-release run_flows release || :
    stage flows-cuda run_flows_cuda || :
else
    skip ctest-release all "the release build failed"
    skip flows-release all "the release build failed"
fi

if $quick; then
    skip sanitizers all "--quick was asked for"
else
    if stage build-clang run_build release-clang kernel_bits && $released; then
        stage kernel-bits run_bits || :
    else
        skip kernel-bits all "a build failed"
    fi
    if stage build-debug run_build debug; then
        stage ctest-debug run_ctest debug || :
        stage flows-debug run_flows debug || :
    else
        skip ctest-debug all "the debug build failed"
        skip flows-debug all "the debug build failed"
    fi
    if stage build-tsan run_build tsan personad persona; then
        stage flows-tsan run_flows tsan -m tsan || :
    else
        skip flows-tsan all "the ThreadSanitizer build failed"
    fi
fi

say "everything: $(($(date +%s) - began)) s"
"$PYTHON" "$root/scripts/test_report.py" "$out"
