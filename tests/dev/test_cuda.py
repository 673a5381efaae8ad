"""The CUDA compiler is fetched where it is asked for, checked, and never half in place.

Goal: what stands under the compiler's folder is whole; where there is a compiler, or no use for
one, nothing is fetched.
Method: a pip of ours brings wheels whose sums the copied script knows, and wrong ones; the compiler
in them is a shell script.
"""
import hashlib
import re
import zipfile

import pytest

COMPILER = "#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n"


def place(world):
    return world.cache / "cuda-13.0" / "nvidia" / "cu13" / "bin" / "nvcc"


def wheels_of(world, spoil=()):
    """Wheels of all packages, their sums written into the copied script; `spoil` get other bytes
    afterwards."""
    script = world.root / "scripts" / "cuda.sh"
    text = script.read_text()
    shelf = world.root / "shelf"
    shelf.mkdir()
    for name, version, digest in re.findall(r"^(nvidia-\S+) (\S+) ([0-9a-f]{64})$", text, re.M):
        path = shelf / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"nvidia/cu13/include/{name}.h", name)
            archive.writestr("nvidia/cu13/nvvm/bin/cicc", "")
            if name == "nvidia-cuda-nvcc":
                archive.writestr("nvidia/cu13/bin/nvcc", COMPILER)
            if name == "nvidia-cublas":
                archive.writestr("nvidia/cu13/lib/libcublas.so.13", "")
        text = text.replace(digest, hashlib.sha256(path.read_bytes()).hexdigest())
        if name in spoil:
            path.write_bytes(path.read_bytes() + b"?")
    script.write_text(text)
    world.program("python", f"""
while [ "$1" != --dest ]; do shift; done
name=$(printf '%s' "$3" | sed 's/==.*//; s/-/_/g')
for wheel in "{shelf}/$name"-*; do cat "$wheel" >"$2/${{wheel##*/}}"; done
""")


@pytest.fixture
def bare(world):
    """A world of x86-64 with no compiler and no card."""
    world.program("uname", "echo x86_64")
    for tool in ("chmod",):
        world.link(tool)
    return world


def test_it_is_fetched_once_and_its_path_printed(bare):
    wheels_of(bare)
    result = bare.dev("cuda")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{place(bare)}\n"
    count = len(bare.calls("python"))
    assert count == 5 and "--no-deps" in bare.calls("python")[0]
    again = bare.dev("cuda")
    assert again.stdout == result.stdout and len(bare.calls("python")) == count
    assert not list((bare.cache / "downloads" / "cuda").glob("*.whl"))


@pytest.mark.parametrize("name", ["nvidia-cuda-nvcc", "nvidia-cuda-cccl"])
def test_a_wheel_with_other_bytes_is_refused_and_removed(bare, name):
    wheels_of(bare, spoil=[name])
    result = bare.dev("cuda")
    assert result.returncode == 1
    assert name in result.stderr and "SHA-256" in result.stderr
    assert not place(bare).exists()
    assert not list((bare.cache / "downloads" / "cuda").glob(f"{name.replace('-', '_')}-*"))


def test_a_compiler_on_the_path_is_taken(bare):
    bare.program("nvcc", "echo Cuda compilation tools, release 12.8, V12.8.93")
    result = bare.dev("cuda")
    assert result.stdout == f"{bare.bin / 'nvcc'}\n"
    assert bare.calls("python") == []


def test_an_older_compiler_is_passed_over(bare):
    bare.program("nvcc", "echo Cuda compilation tools, release 12.7, V12.7.1")
    assert bare.dev("cuda", "find").stdout == ""
    wheels_of(bare)
    assert bare.dev("cuda").stdout == f"{place(bare)}\n"


def test_find_only_looks(bare):
    result = bare.dev("cuda", "find")
    assert result.returncode == 0 and result.stdout == "" and result.stderr == ""
    assert bare.calls("python") == []


def test_build_cuda_fetches_and_names_the_compiler(bare):
    wheels_of(bare)
    result = bare.dev("build", "--cuda")
    assert result.returncode == 0, result.stderr
    configured = [call for call in bare.calls("cmake") if "--preset release" in call]
    assert f"-DPERSONAD_NVCC={place(bare)}" in configured[0]
    assert "-DPERSONAD_CUDA=ON" in configured[0]


def test_cublas_is_fetched_alone_and_only_when_asked_for(bare):
    wheels_of(bare)
    assert bare.dev("build", "--cuda").returncode == 0
    assert not [call for call in bare.calls("python") if "nvidia-cublas" in call]
    result = bare.dev("cuda", "cublas")
    folder = bare.cache / "cublas-13.0" / "nvidia" / "cu13" / "lib"
    assert result.stdout == f"{folder}\n", result.stderr
    assert (folder / "libcublas.so.13").exists()
    count = len(bare.calls("python"))
    assert "nvidia-cublas" in bare.calls("python")[-1] and count == 6
    assert bare.dev("cuda", "cublas").stdout == result.stdout
    assert len(bare.calls("python")) == count


def test_cublas_of_a_toolkit_is_taken(bare):
    place_of_it = bare.root / "toolkit"
    (place_of_it / "lib64").mkdir(parents=True)
    (place_of_it / "lib64" / "libcublas.so.12").write_text("")
    bare.variables["PERSONAD_CUDA_PLACES"] = str(place_of_it)
    assert bare.dev("cuda", "cublas").stdout == f"{place_of_it}/lib64\n"
    assert bare.calls("python") == []


def test_cublas_with_other_bytes_is_refused(bare):
    wheels_of(bare, spoil=["nvidia-cublas"])
    result = bare.dev("cuda", "cublas")
    assert result.returncode == 1 and "SHA-256" in result.stderr
    assert not (bare.cache / "cublas-13.0").exists()


def test_build_without_a_card_fetches_nothing(bare):
    assert bare.dev("build").returncode == 0
    assert bare.calls("python") == []


def test_build_with_a_card_fetches_or_goes_on_without(bare):
    bare.variables["PERSONAD_CUDA_CARD"] = "yes"
    bare.program("python", "exit 1")
    result = bare.dev("build")
    assert result.returncode == 0, result.stderr
    assert "building for the CPU only" in result.stderr
    wheels_of(bare)
    result = bare.dev("build")
    assert result.returncode == 0, result.stderr
    assert any(f"-DPERSONAD_NVCC={place(bare)}" in call for call in bare.calls("cmake"))
