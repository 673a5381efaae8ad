#!/bin/sh
# Builds the CPU's kernels for ARM of 64 bits with a cross compiler and runs their tests under
# qemu-user: NEON alone, with FEAT_DotProd, with FEAT_I8MM. Compares what they compute with what
# this machine computes, bit for bit.
#   aarch64.sh [--long] [--results FILE]
#     --long     every test on every kind of processor (several minutes), not only what differs
#     --results  FILE gets one line a result: "aarch64 NAME passed|failed"
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

long=${PERSONAD_LONG:+true}
results=/dev/null
while [ $# -gt 0 ]; do
    case $1 in
    --long) long=true ;;
    --results)
        results=$2
        shift
        ;;
    *) fail "aarch64 does not know '$1': it takes --long and --results FILE" ;;
    esac
    shift
done

packages_need "$packages_build" "$packages_aarch64"
(configure release -DPERSONAD_TESTS=ON && build release kernel_bits)
(configure aarch64 && build aarch64)
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
arm=$root/build/aarch64
out=$arm/out
mkdir -p "$out"
cd "$root"
failed=0

# One result: its name, then the command, whose words are kept where it fails.
look()
{
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$out/log" 2>&1; then
        echo "aarch64 $name passed" >>"$results"
        say "$name: good ($(($(date +%s) - start)) s)"
    else
        echo "aarch64 $name failed" >>"$results"
        tail -n 30 "$out/log" >&2
        say "$name: FAILED"
        failed=1
    fi
}

# What a processor computes, after which it is compared with this machine. The sets are those that
# must be there: a processor without dotprod must not be taken for one that has it.
bits()
{
    qemu-aarch64 -cpu "$1" "$arm/kernel_bits" >"$out/bits-$1" &&
        "$PYTHON" "$root/scripts/kernel_bits.py" "$out/bits-host:scalar" "$out/bits-$1:$2" &&
        [ "$(cut -d ' ' -f 1 "$out/bits-$1" | sort -u | paste -sd ,)" = "$3" ]
}

"$root/build/release/tests/kernel_bits" >"$out/bits-host"
look bits-i8mm bits max scalar,neon,dotprod,i8mm dotprod,i8mm,neon,scalar
look bits-neon bits cortex-a72 scalar,neon neon,scalar
if [ -z "$long" ]; then
    for test in attention matmul rows sample; do
        look "$test-i8mm" qemu-aarch64 -cpu max "$arm/kernels_test_$test"
    done
    exit $failed
fi
look bits-dotprod bits cortex-a76 scalar,neon,dotprod dotprod,neon,scalar
for cpu in max cortex-a76 cortex-a72; do
    for path in "$arm"/kernels_test_*; do
        look "$(basename "$path")-$cpu" qemu-aarch64 -cpu "$cpu" "$path"
    done
done
exit $failed
