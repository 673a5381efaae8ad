# shellcheck shell=sh disable=SC2154
# The stages of scripts/gpu.sh, which starts this once a stage: gpu_stages.sh NAME. It exports where
# everything is: root work bin bench library library_path model runner; and rehearsal where the
# library is the emulated one, which is slow: small models then. Ends with 0 when all held, 75 when
# this machine lacks what the stage is about (the last line says what), 77 without a card.
set -u

# shellcheck disable=SC2086 # the loader of a pack and its words, or nothing
run() { $runner "$@"; }

missing()
{
    echo "$1"
    exit 75
}

card_needed() { [ -z "$rehearsal" ] || missing "a rehearsal has no card"; }

stage_rates()
{
    card_needed
    run "$bin/gpu_rates"
}

stage_kernels()
{
    failed=0
    for name in sample backend_cuda forward; do
        # What fails on purpose inside the library is for the emulator: its heap is another here.
        case $name in
        backend_cuda) skip='running_out_of_memory*' ;;
        *) skip= ;;
        esac
        echo "$name, through the library:"
        PERSONAD_CARD_SKIP=$skip run "$bin/card_$name" || failed=1
    done
    single_kernels || failed=1
    return $failed
}

# The cases of the emulator's tests of kernels, compiled for the card. Each suite in a process of
# its own: what a fault leaves behind is no other's.
single_kernels()
{
    suites=$(run "$bin/card_kernels" --list) && [ -n "$suites" ] || return 1
    if [ -n "$rehearsal" ]; then
        echo "not rehearsed, since they are machine code for a card (./dev test runs their cases" \
            "on the emulator):" $suites # one line
        return
    fi
    failed_suites=
    for suite in $suites; do
        code=0
        run "$bin/card_kernels" "$suite" >"$work/suite" 2>&1 || code=$?
        if [ $code = 0 ]; then
            echo "- $suite: $(grep -c '^\[ *OK' "$work/suite") passed"
            sed -n 's/^left to /  left to /p' "$work/suite"
        else
            echo "- $suite: FAILED ($code)"
            grep -v -e '^\[ RUN' -e '^\[ *OK' "$work/suite" | tail -n 12
            failed_suites="$failed_suites $suite"
        fi
    done
    [ -z "$failed_suites" ] || echo "failed:$failed_suites"
    [ -z "$failed_suites" ]
}

stage_agreement()
{
    if [ -n "$rehearsal" ]; then
        run "$bin/gpu_check" agree --library "$library" noise:tiny:F16:1 noise:tiny:Q4_0:1
        return
    fi
    # shellcheck disable=SC2086 # nothing when there is no model
    run "$bin/gpu_check" agree --library "$library" $model noise:135m:BF16:30 noise:tiny:F16:2 \
        noise:tiny:Q8_0:2 noise:tiny:Q4_0:2 noise:8b:Q4_1:2 noise:8b:BF16:2
}

stage_invariance()
{
    if [ -n "$rehearsal" ]; then
        run "$bin/gpu_check" invariance --library "$library" --rows 9 --stride 4 \
            --text 40 noise:tiny:BF16:1
        return
    fi
    run "$bin/gpu_check" invariance --library "$library" --rows 2048 --stride 1 noise:tiny:BF16:2 &&
        run "$bin/gpu_check" invariance --library "$library" --rows 2048 --stride 1 \
            noise:135m:Q4_1:2 &&
        run "$bin/gpu_check" invariance --library "$library" --rows 2048 --stride 37 noise:8b:BF16:1
}

# Writes $work/providers, a table for --gpu-providers; gpu.sh puts it beside the report.
stage_providers()
{
    if [ -n "$rehearsal" ]; then
        run "$bin/gpu_check" providers --library "$library" --out "$work/providers" \
            --rows 9 --stride 8 --launches 1 --faster -1 noise:tiny:BF16:1 &&
            run "$bin/gpu_check" providers --library "$library" --out "$work/providers.more" \
                --rows 9 --stride 8 --launches 1 --faster -1 --fp8 yes noise:tiny:BF16:1
        return
    fi
    run "$bin/gpu_check" providers --library "$library" --out "$work/providers" --stride 1 \
        noise:8b:BF16:1 &&
        try_type FP8 --fp8 yes noise:8b:BF16:1 && try_type Q4_0 noise:8b:Q4_0:1 &&
        try_type Q8_0 noise:8b:Q8_0:1 && try_type Q4_1 noise:8b:Q4_1:1
}

# try_type TYPE WORDS...: its rules follow those of the table, which was whole before.
try_type()
{
    type=$1
    shift
    run "$bin/gpu_check" providers --library "$library" --out "$work/providers.more" \
        --stride 31 "$@" || return
    grep "^$type " "$work/providers.more" >>"$work/providers" || true
}

# sanitize TOOL PROGRAM WORDS...: what it finds is in the log as it comes, should time run out.
sanitize()
{
    card_needed
    tool=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
    [ -x "$tool" ] || missing "compute-sanitizer is not on this machine"
    [ -z "$runner" ] || missing "it cannot follow a program under the loader of the pack"
    name=$1
    shift
    {
        code=0
        "$tool" --tool "$name" --print-limit 20 --error-exitcode 9 "$@" 2>&1 || code=$?
        echo $code >"$work/code"
    } | grep --line-buffered -v -e '^\[ *RUN' -e '^\[ *OK' -e '^\[====' -e '^\[ *PASSED'
    return "$(cat "$work/code")"
}

# Buffers of exactly their size, and every kind of kernel: the tests of single kernels.
stage_memcheck() { sanitize memcheck "$bin/card_kernels"; }
stage_racecheck()
{
    sanitize racecheck "$bin/card_kernels" attn_in attention blocks sample matmul_fold wgmma
}
# Those tests write all memory before they use it; a model's steps do not.
stage_initcheck()
{
    sanitize initcheck "$bin/gpu_check" invariance --library "$library" --rows 48 --stride 23 \
        --text 80 noise:tiny:BF16:1 noise:tiny:Q4_1:1
}

# What the providers stage has written, if it has a rule.
table()
{
    providers=
    if grep -q -e wgmma -e cublaslt -e unpacked "$work/providers" 2>/dev/null; then
        providers=$work/providers
    fi
}

stage_speed()
{
    if [ -n "$rehearsal" ]; then
        run "$bench" --backend cuda --shape tiny --layers 1 --batch 1 --context 16 --shared 512 \
            --prefill 16 --seconds 0.001
        return
    fi
    copy=$(sed -n 's/^copy_gbs //p' "$work/rates.log")
    product=$(sed -n 's/^bf16_tflops //p' "$work/rates.log")
    table
    # shellcheck disable=SC2086 # nothing where a rate is not known
    run "$bench" --backend cuda --shape 8b --type BF16 --seconds 0.7 --operations \
        ${providers:+--gpu-providers $providers} ${copy:+--copy $copy} \
        ${product:+--matmul $product}
}

# The speed stage's kernels against the fastest there are, whatever their bits.
stage_variants()
{
    if [ -n "$rehearsal" ]; then
        run "$bench" --backend cuda --shape tiny --layers 1 --prefill 1 --seconds 0.01 \
            --variants
        return
    fi
    table
    # shellcheck disable=SC2086 # nothing where there is no table
    run "$bench" --backend cuda --shape 8b --layers 1 --type BF16 --variants \
        ${providers:+--gpu-providers $providers}
}

stage_peers()
{
    python=$(command -v python3) || missing "there is no python3 on this machine"
    export LD_LIBRARY_PATH="$library_path" # not the pack's libraries for what is not in the pack
    "$python" -c 'import torch' 2>/dev/null || missing "there is no PyTorch on this machine"
    "$python" "$root/scripts/gpu_peers.py" 2>&1
}

"stage_$1"
