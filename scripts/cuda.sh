#!/bin/sh
# Prints the path of the CUDA compiler; installs one where there is none.
#   cuda.sh [find]     find: only look; prints nothing when there is none
#   cuda.sh cublas     prints the folder of cuBLAS instead, installed likewise: no build needs it,
#                      ./dev gpu measures with it what a card's products reach
#
# Looked for on the PATH, in the usual places, and where this script put it. What it installs are
# the packages that NVIDIA publishes on PyPI: fetched with pip, checked against the sums below,
# taken out beside their final place and only then renamed, so that what stands under the final name
# is whole whatever was interrupted. A wheel that arrived stays until all of them are in place.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

# Name, version and the SHA-256 of its wheel for x86-64. CUDA 13 needs a driver of 580 or later.
# The packages for CUDA 12 lack the compiler itself, so that older drivers need NVIDIA's installer.
packages_of_nvcc()
{
    cat <<'END'
nvidia-cuda-nvcc 13.0.88 56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-cuda-crt 13.0.88 2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-nvvm 13.0.88 c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-runtime 13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cccl 13.0.85 e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
END
}

packages_of_cublas()
{
    cat <<'END'
nvidia-cublas 13.0.2.14 0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c
END
}

what=${1:-install}
case $what in
find | install) part=nvcc ;;
cublas) part=cublas ;;
*) fail "cuda does not know '$what': it takes find, cublas, or nothing" ;;
esac

look() { if [ $part = nvcc ]; then cuda_find; else cublas_find; fi; }

found=$(look)
if [ -n "$found" ] || [ "$what" = find ]; then
    [ -z "$found" ] || printf '%s\n' "$found"
    exit 0
fi

[ "$(uname -m)" = x86_64 ] ||
    fail "there is no $part, and none for $(uname -m) to fetch: install NVIDIA's toolkit"
packages_need "$packages_model"
if [ $part = nvcc ]; then
    folder=$(cuda_folder)
    say "fetching the CUDA compiler, about 105 MB; it takes 280 MB in $folder"
else
    folder=$(cublas_folder)
    say "fetching cuBLAS, about 420 MB; it takes 600 MB in $folder"
fi
downloads=$(cache_folder)/downloads/cuda
mkdir -p "$downloads" "$(dirname "$folder")"
# One at a time: whoever waited finds the work done.
exec 9>"$downloads/lock"
flock 9
found=$(look)
if [ -n "$found" ]; then
    printf '%s\n' "$found"
    exit 0
fi

# The wheel of a package that is the one it should be, or nothing.
wheel_of()
{
    file=$(printf '%s' "$1" | tr - _)
    for wheel in "$downloads/$file-$2"-*.whl; do
        if [ -f "$wheel" ] && [ "$(sha256sum "$wheel" | cut -d ' ' -f 1)" = "$3" ]; then
            printf '%s\n' "$wheel"
            return
        fi
    done
}

rm -rf "$folder.part"
mkdir "$folder.part"
"packages_of_$part" >"$downloads/packages"
while read -r name version sum; do
    wheel=$(wheel_of "$name" "$version" "$sum")
    if [ -z "$wheel" ]; then
        "$PYTHON" -m pip download -q --no-deps --disable-pip-version-check --only-binary :all: \
            --dest "$downloads" "$name==$version" >&2 </dev/null ||
            fail "$name $version could not be fetched. Is there a network?"
        wheel=$(wheel_of "$name" "$version" "$sum")
    fi
    if [ -z "$wheel" ]; then
        rm -f "$downloads/$(printf '%s' "$name" | tr - _)-$version"-*.whl
        fail "$name $version is not what it should be (SHA-256 $sum), and was removed"
    fi
    unzip -qq -o "$wheel" -d "$folder.part" </dev/null || fail "$wheel could not be unpacked"
done <"$downloads/packages"
chmod -R a+rX,u+w "$folder.part"
if [ $part = nvcc ]; then
    chmod a+x "$folder.part"/nvidia/cu13/bin/* "$folder.part"/nvidia/cu13/nvvm/bin/*
    "$folder.part/nvidia/cu13/bin/nvcc" --version >/dev/null ||
        fail "the compiler that was fetched does not run here"
fi
rm -rf "$folder"
mv "$folder.part" "$folder"
while read -r name version sum; do
    rm -f "$downloads/$(printf '%s' "$name" | tr - _)-$version"-*.whl
done <"$downloads/packages"
say "in place: $(look)"
look
