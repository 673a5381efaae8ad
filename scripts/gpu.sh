#!/bin/sh
# Proves and measures the CUDA backend on a machine with a card, and writes docs/gpu/DATE-CARD.md.
#
#   gpu.sh [--report FOLDER] [--seconds N]   all stages, at most N seconds together (530)
#   gpu.sh --pack FOLDER                     makes personad-gpu.tar.gz there: everything for a
#                                            machine with neither network nor compiler; unpack it
#                                            and run sh personad-gpu/scripts/gpu.sh
#   gpu.sh --rehearse                        all stages on emulated kernels and small models, so
#                                            that nothing but the card is new where there is one;
#                                            the report says nothing of any card
#
# Each stage has a time of its own and fails by itself; together they are no longer than the whole,
# and what matters most comes first. The report is written after each, so that one that is cut short
# tells what was seen, and says which stages were cut. Ends with 0, with 1 when a stage failed, with
# 3 when there is no card.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

programs="gpu_check card_kernels card_sample card_backend_cuda card_forward"
report_folder=$root/docs/gpu
seconds=530
pack=
rehearsal=
while [ $# -gt 0 ]; do
    if [ "$1" = --rehearse ]; then
        rehearsal=yes
        shift
        continue
    fi
    [ $# -gt 1 ] || fail "$1 takes a value: gpu [--pack FOLDER] [--report FOLDER] [--seconds N]"
    case $1 in
    --pack) pack=$2 ;;
    --report) report_folder=$2 ;;
    --seconds) seconds=$2 ;;
    *) fail "gpu does not know '$1': it takes --pack, --report, --seconds and --rehearse" ;;
    esac
    shift 2
done
case $seconds in
'' | *[!0-9]*) fail "--seconds $seconds: a number of seconds is wanted" ;;
esac

build_all()
{
    packages_need "$packages_build" "$packages_cuda" "libcmocka-dev"
    cuda_prepare true
    configure release -DPERSONAD_TESTS=ON
    # shellcheck disable=SC2086 # a list of programs
    build release personad-bench personad_cuda personad_cuda_emulated gpu_rates $programs
}

# ---- the pack -----------------------------------------------------------------------------------

# Libraries that a program needs, as the loader finds them here.
libraries_of()
{
    ldd "$@" | sed -n 's|.*=> \(/[^ ]*\) .*|\1|p; s|^[[:space:]]*\(/[^ ]*ld-linux[^ ]*\) .*|\1|p' |
        sort -u
}

make_pack()
{
    build_all
    mkdir -p "$pack"
    stage=$(mktemp -d "${TMPDIR:-/tmp}/personad-pack.XXXXXX")
    trap 'rm -rf "$stage"' EXIT
    tree=$stage/personad-gpu
    mkdir -p "$tree/bin" "$tree/lib" "$tree/lib/system" "$tree/scripts" "$tree/docs/gpu"
    for program in $programs gpu_rates; do
        cp "$root/build/release/tests/$program" "$tree/bin/"
    done
    cp "$root/build/release/bin/personad-bench" "$tree/bin/"
    cp "$root/build/release/lib/libpersonad_cuda.so" "$tree/lib/"
    cp "$root/build/release/emulated/libpersonad_cuda_emulated.so" "$tree/lib/"
    # Lines of the host's code; those of kernels stay.
    strip "$tree"/bin/* "$tree/lib/libpersonad_cuda_emulated.so"
    for library in $(libraries_of "$tree"/bin/* "$tree"/lib/*.so); do
        case $(basename "$library") in
        # The machine's own serve first; these are for one whose are older than what was built here.
        ld-linux* | libc.so* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libgcc_s*)
            cp -L "$library" "$tree/lib/system/" ;;
        *) cp -L "$library" "$tree/lib/" ;;
        esac
    done
    cp "$root/scripts/gpu.sh" "$root/scripts/gpu_stages.sh" "$root/scripts/gpu_peers.py" \
        "$root/scripts/lib.sh" "$tree/scripts/"
    git -C "$root" rev-parse HEAD >"$tree/commit" 2>/dev/null || echo unknown >"$tree/commit"
    tar -C "$stage" -czf "$pack/personad-gpu.tar.gz" personad-gpu
    # Two parts, where there is a limit on what travels at once: the archive goes with the second.
    model=$(model_path)
    if [ -f "$model" ]; then
        split -b $(($(stat -c %s "$model") * 66 / 100 + 1)) -d "$model" "$pack/personad-gpu-model."
    else
        say "the default model is not here (./dev model): the pack goes without it"
    fi
    say "packed: $(cd "$pack" && du -h personad-gpu* | tr '\t\n' ' ;')"
    say "there: tar xzf personad-gpu.tar.gz; put personad-gpu-model.* into personad-gpu/ if they"
    say "came along; sh personad-gpu/scripts/gpu.sh"
    printf '%s\n' "$pack/personad-gpu.tar.gz"
}

if [ -n "$pack" ]; then
    make_pack
    exit 0
fi

# ---- places -------------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/personad-gpu.XXXXXX")
runner=
library_path=${LD_LIBRARY_PATH:-} # for programs that are the machine's own
if [ -f "$root/commit" ]; then # a packed tree
    bin=$root/bin
    bench=$root/bin/personad-bench
    libraries=$root/lib
    commit=$(cat "$root/commit")
    # Not before the machine's own system libraries: lib/ has none of those.
    export LD_LIBRARY_PATH="$root/lib${library_path:+:$library_path}"
    status=0
    "$bin/gpu_check" >/dev/null 2>&1 || status=$?
    if [ $status != 2 ]; then # what it answers to no arguments: it does not start here
        drivers=/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu:/usr/lib64:/usr/lib/wsl/lib
        runner="$root/lib/system/ld-linux-x86-64.so.2 --library-path"
        runner="$runner $root/lib:$root/lib/system:$drivers"
        say "this system's C library is too old for what was built: using the one in the pack"
    fi
    model=$work/default.gguf
    if [ -f "$root/personad-gpu-model.00" ] && [ -f "$root/personad-gpu-model.01" ]; then
        cat "$root/personad-gpu-model.00" "$root/personad-gpu-model.01" >"$model"
    fi
else
    build_all
    bin=$root/build/release/tests
    bench=$root/build/release/bin/personad-bench
    libraries=$root/build/release/lib
    [ -z "$rehearsal" ] || libraries=$root/build/release/emulated
    commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
    model=$(model_path)
fi
# The rates stage measures with it; the loader knows its own places, and no others.
find_cublas()
{
    cublas=$(cublas_find)
    if [ -z "$cublas" ] && [ ! -f "$root/commit" ] && cuda_card_is_seen; then
        cublas=$(sh "$root/scripts/cuda.sh" cublas) || cublas=
    fi
    if [ -z "$cublas" ]; then
        say "there is no cuBLAS here: the rate of a product stays unknown"
    elif [ -n "$runner" ]; then
        runner="$runner:$cublas"
    else
        export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cublas"
    fi
}
[ -n "$rehearsal" ] || find_cublas
library=$libraries/libpersonad_cuda${rehearsal:+_emulated}.so
export PERSONAD_CUDA_LIBRARY="$library" PERSONAD_BACKEND_PATH="$library"
export root work bin bench library library_path model runner rehearsal
if [ -f "$model" ] && [ "$(sha256sum "$model" | cut -d ' ' -f 1)" != "$model_sha256" ]; then
    say "$model is not the default model: it is left out"
    model=
fi
[ -f "$model" ] || model=

# ---- the report ---------------------------------------------------------------------------------

stages="rates kernels agreement invariance providers speed"
stages="$stages memcheck racecheck initcheck variants peers"
begin=$(date +%s)
card=none
[ -z "$rehearsal" ] || card="Rehearsal without a card"
patience=1
if [ -n "$rehearsal" ]; then # emulated kernels are slow
    patience=10
    seconds=$((seconds * patience))
fi
result_code=0
interrupted=

# The most that each may take.
stage_seconds()
{
    case $1 in
    rates) echo 30 ;;
    kernels) echo 70 ;;
    agreement) echo 75 ;;
    invariance) echo 55 ;;
    providers) echo 75 ;;
    speed) echo 100 ;;
    memcheck) echo 30 ;;
    racecheck) echo 30 ;;
    initcheck) echo 20 ;;
    variants) echo 25 ;;
    peers) echo 20 ;;
    esac
}

stage_title()
{
    case $1 in
    rates) echo "The card's own rates" ;;
    kernels) echo "Kernels against the CPU backend and against double" ;;
    agreement) echo "Whole models against the CPU backend" ;;
    invariance) echo "Bits of a row among others, bits of a text in any cuts" ;;
    providers) echo "What may multiply beside mma.sync, and how fast it is" ;;
    memcheck | racecheck | initcheck) echo "compute-sanitizer, $1" ;;
    speed) echo "Speed, as shares of the card's own rates" ;;
    variants) echo "What it costs that a row has equal bits in every batch" ;;
    peers) echo "Peers on the same card" ;;
    esac
}

# Which stages time ended, and which had none left; nothing if all came to their end.
name_cut_stages()
{
    cut=
    unreached=
    for stage in $stages; do
        if [ ! -f "$work/$stage.result" ]; then
            unreached="$unreached $stage"
        elif grep -q 'out of time' "$work/$stage.result"; then
            cut="$cut $stage"
        fi
    done
    [ -z "$cut" ] || echo "Cut by their time:$cut."
    [ -z "$unreached" ] || echo "Did not run:$unreached."
    [ -z "$cut$unreached" ] || echo
}

write_report()
{
    name=$(printf '%s' "$card" | tr ' /' '--' | tr -cd 'A-Za-z0-9-')
    report=$report_folder/$(date +%Y-%m-%d)-$name.md
    mkdir -p "$report_folder"
    {
        echo "# $card, $(date +%Y-%m-%d)"
        echo
        echo "Commit $commit. Written by \`./dev gpu\`; every figure was read on this machine."
        [ -z "$rehearsal" ] ||
            echo "The kernels ran on the emulator, on small models: nothing here speaks of a card."
        [ -z "$interrupted" ] || echo "The run was cut short: $interrupted."
        echo
        [ ! -f "$work/facts" ] || cat "$work/facts"
        echo
        name_cut_stages
        echo "| stage | result | seconds |"
        echo "|---|---|---:|"
        for stage in $stages; do
            if [ -f "$work/$stage.result" ]; then
                echo "| $stage | $(cat "$work/$stage.result") |"
            else
                echo "| $stage | did not run: ${why_not:-not reached} | |"
            fi
        done
        if [ -f "$work/providers" ]; then
            echo
            echo "Its table, for \`--gpu-providers\`: $(basename "${report%.md}").providers"
        fi
        for stage in $stages; do
            [ -f "$work/$stage.log" ] || continue
            echo
            echo "## $(stage_title "$stage")"
            echo
            grep -v -e '^\[ RUN' -e '^$' "$work/$stage.log" | sed -n '1,120p' | spaced_tables
        done
    } >"$work/report"
    cp "$work/report" "$report"
    [ ! -f "$work/providers" ] || cp "$work/providers" "${report%.md}.providers"
}

# Markdown wants an empty line before a table and after.
spaced_tables()
{
    awk '{ table = /^\|/; if (NR > 1 && table != before) print ""; print; before = table }'
}

finish()
{
    write_report
    say "the report is in $report"
    rm -rf "$work"
    exit "$result_code"
}
trap 'interrupted="by a signal"; result_code=1; finish' INT TERM HUP

# stage NAME: runs it in a shell of its own that ends in time.
stage()
{
    left=$((begin + seconds - $(date +%s)))
    limit=$(($(stage_seconds "$1") * patience))
    [ "$left" -ge "$limit" ] || limit=$left
    if [ "$limit" -lt 3 ]; then
        return 0 # the report says that it was not reached
    fi
    say "$1: at most $limit s"
    started=$(date +%s)
    status=0
    timeout -k 5 "$limit" sh "$root/scripts/gpu_stages.sh" "$1" >"$work/$1.log" 2>&1 </dev/null ||
        status=$?
    took=$(($(date +%s) - started))
    case $status in
    0) echo "passed | $took" >"$work/$1.result" ;;
    75) echo "not here: $(tail -n 1 "$work/$1.log") | $took" >"$work/$1.result" ;;
    77) echo "no card | $took" >"$work/$1.result" ;;
    124 | 137) echo "**out of time** after $limit s | $took" >"$work/$1.result" ;;
    *) echo "**failed** ($status) | $took" >"$work/$1.result" ;;
    esac
    case $status in
    0 | 75 | 77) ;;
    *) result_code=1 ;;
    esac
    say "$1: $(cut -d '|' -f 1 "$work/$1.result")"
    [ "$card" = none ] || write_report
    return 0
}

{
    echo "- $(uname -srm), $(nproc) CPUs"
    sed -n 's/^model name.*: /- /p' /proc/cpuinfo | head -n 1
    if command -v nvidia-smi >/dev/null 2>&1; then
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem \
            --format=csv,noheader 2>&1 | sed 's/^/- /'
    fi
} >"$work/facts"

stage rates
[ -n "$rehearsal" ] || card=$(sed -n 's/^card //p' "$work/rates.log")
if [ -z "$card" ]; then
    why=$(sed -n 's/^# no card: //p' "$work/rates.log")
    case $why in
    *"driver version is insufficient"*)
        why="there is no NVIDIA driver on this machine, or one older than CUDA 13" ;;
    esac
    why=${why:-gpu_rates did not answer}
    why_not="no card ($why)"
    card=no-card
    result_code=3
    rm -f "$work/rates.result" "$work/rates.log"
    say "no card: $why. No stage ran."
    finish
fi
for name in $stages; do
    [ "$name" = rates ] || stage "$name"
done
finish
