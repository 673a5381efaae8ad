#!/bin/sh
# Shows what the CUDA compiler made of each kernel, without a card.
#   sass.sh [--check] [--arch sm_90a] [--kernel TEXT]
#
# Registers, shared and local memory, how many warps the registers leave room for; and of each
# innermost loop, and of the innermost that multiplies, the instructions by kind beside the bytes
# and products that they handle. The reading is done by sass.py. What breaks one of its rules is
# told, and is a failure; --check prints nothing else.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

tools_version=13.5.37
tools_sha256_cuobjdump=38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58
tools_sha256_nvdisasm=d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca
library=${PERSONAD_CUDA_LIBRARY:-$root/build/release/lib/libpersonad_cuda.so}
tools=$(cache_folder)/cuda-tools/$tools_version

# One program of NVIDIA's, by its package: fetched, checked, then renamed into place.
fetch_tool()
{
    part=$tools/.$1.part
    rm -rf "$part"
    mkdir -p "$part"
    "$PYTHON" -m pip download --no-deps --disable-pip-version-check -q --dest "$part" \
        "nvidia-cuda-$1==$tools_version" >&2 ||
        fail "nvidia-cuda-$1 could not be fetched; put $1 on the PATH, it comes with CUDA"
    wheel=$(find "$part" -name '*.whl' | head -n 1)
    sum=$(sha256sum "$wheel" | cut -d ' ' -f 1)
    [ "$sum" = "$2" ] || fail "$(basename "$wheel"): SHA-256 is $sum, $2 expected"
    unzip -qoj "$wheel" "*/bin/$1" -d "$part"
    chmod +x "$part/$1"
    mv "$part/$1" "$tools/$1"
    rm -rf "$part"
}

[ -f "$library" ] || fail "$library is not built: ./dev build --cuda makes it"
packages_need python3
for folder in /usr/local/cuda/bin /opt/cuda/bin; do
    PATH=$PATH:$folder
done
if ! command -v cuobjdump >/dev/null 2>&1 || ! command -v nvdisasm >/dev/null 2>&1; then
    if [ ! -x "$tools/cuobjdump" ] || [ ! -x "$tools/nvdisasm" ]; then
        [ "$(uname -m)" = x86_64 ] || fail "put cuobjdump and nvdisasm on the PATH"
        # shellcheck disable=SC2086 # a list
        packages_need $packages_model
        say "fetching cuobjdump and nvdisasm $tools_version"
        mkdir -p "$tools"
        fetch_tool cuobjdump "$tools_sha256_cuobjdump"
        fetch_tool nvdisasm "$tools_sha256_nvdisasm"
    fi
    PATH=$tools:$PATH
fi
export PATH
exec "$PYTHON" "$root/scripts/sass.py" "$library" "$@"
