"""The C library as a packager installs it: the example builds alone and talks."""
import os
import shutil
import subprocess

import pytest

from cli import environment
from client import ROOT
from conftest import bin_folder


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    build = os.path.dirname(bin_folder())
    if not os.path.exists(os.path.join(build, "cmake_install.cmake")):
        pytest.skip(f"{build} is no build folder, so there is nothing to install")
    if not all(os.path.exists(os.path.join(build, f"libpersonad_client.{kind}"))
               for kind in ("a", "so")):
        pytest.skip(f"{build} holds no built libraries")
    folder = str(tmp_path_factory.mktemp("stage"))
    subprocess.run(["cmake", "--install", build], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "DESTDIR": folder})
    return folder


def found(stage, name):
    for folder, _, files in os.walk(stage):
        if name in files:
            return os.path.join(folder, name)
    raise AssertionError(f"{name} is not installed")


def sanitizer_of(stage):
    """What the library was built with, the program must be linked with."""
    symbols = subprocess.run(["nm", "-D", found(stage, "libpersonad_client.so")],
                             capture_output=True, text=True, check=True).stdout
    if "__tsan_" in symbols:
        return ["-fsanitize=thread"]
    return ["-fsanitize=address,undefined"] if "__asan_" in symbols else []


def compiler_of():
    cache = os.path.join(os.path.dirname(bin_folder()), "CMakeCache.txt")
    with open(cache, encoding="utf-8") as file:
        for line in file:
            if line.startswith("CMAKE_C_COMPILER:"):
                return line.split("=", 1)[1].strip()
    return shutil.which("cc")


def test_the_example_builds_alone_and_talks(stage, daemon, tmp_path):
    source = tmp_path / "tiny_chat.c"
    shutil.copy(os.path.join(ROOT, "clients/c/examples/tiny_chat.c"), source)
    packages = os.path.dirname(found(stage, "personad_client.pc"))
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "personad_client"], check=True, capture_output=True,
        text=True, env={**os.environ, "PKG_CONFIG_PATH": packages,
                        "PKG_CONFIG_SYSROOT_DIR": stage}).stdout.split()
    program = str(tmp_path / "tiny_chat")
    subprocess.run([compiler_of(), "-std=c11", "-Wall", "-Wextra", "-Werror", str(source), *flags,
                    *sanitizer_of(stage), "-o", program], check=True)
    libraries = os.path.dirname(found(stage, "libpersonad_client.so"))
    names = environment(PERSONAD_SOCKET=daemon.socket, LD_LIBRARY_PATH=libraries)
    made = subprocess.run([program, "keeper"], input=b"Hello\nAnd on?\n", capture_output=True,
                          env=names, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count(b"\n") >= 2
    refused = subprocess.run([program, "nobody"], input=b"", capture_output=True, env=names,
                             timeout=60, check=False)
    assert refused.returncode == 1 and b'"nobody"' in refused.stderr
    alone = subprocess.run([program], input=b"", capture_output=True, timeout=60, check=False,
                           env={**names, "PERSONAD_SOCKET": str(tmp_path / "nobody")})
    assert alone.returncode == 1 and b"no daemon answers" in alone.stderr


def test_programs_and_pages_are_installed(stage):
    for name in ("persona", "personad", "persona.1", "personad.8", "keeper.json",
                 "personad_client.h"):
        found(stage, name)
