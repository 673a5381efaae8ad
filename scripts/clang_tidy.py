#!/usr/bin/python3
"""Runs clang-tidy over every C source of ours that a build knows, and remembers what passed.

CUDA sources are left out: it would refuse index arithmetic in 32 bits, which saves registers.

usage: clang_tidy.py BUILD_FOLDER [PATH...]     all sources, or those under the paths given

A file that passed is not looked at again until it changes: its key covers its text, the text of
every header of ours that it reaches, its compile command, .clang-tidy and clang-tidy's version.
"""
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time

OURS = ("daemon/", "kernels/", "clients/", "tests/")
SETTINGS = (".clang-tidy", "tests/.clang-tidy", "kernels/cpu/avx2/.clang-tidy",
            "kernels/cpu/avx512/.clang-tidy", "kernels/cpu/avx512bf16/.clang-tidy")
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.M)


class Project:
    def __init__(self, root, build):
        self.root = root
        self.build = build
        self.cache = os.path.join(root, "build", "clang-tidy")
        self.roots = [root, os.path.join(root, "daemon"), os.path.join(root, "tests"),
                      os.path.join(root, "clients/c/include"), os.path.join(build, "generated")]
        self.texts = {}
        version = subprocess.run(["clang-tidy", "--version"], check=True, capture_output=True)
        self.settings = version.stdout
        for path in SETTINGS:
            with open(os.path.join(root, path), "rb") as file:
                self.settings += file.read()

    def text(self, path):
        if path not in self.texts:
            with open(path, "rb") as file:
                self.texts[path] = file.read()
        return self.texts[path]

    def reached(self, path):
        """The file and every header of ours that it includes, directly or not."""
        found, open_ends = set(), [path]
        while open_ends:
            path = open_ends.pop()
            if path in found:
                continue
            found.add(path)
            for name in INCLUDE.findall(self.text(path)):
                for folder in [os.path.dirname(path)] + self.roots:
                    header = os.path.normpath(os.path.join(folder, name.decode()))
                    if os.path.isfile(header):
                        open_ends.append(header)
                        break
        return sorted(found)

    def key(self, entry):
        # The root's own name is left out, so that a copy of the tree may take the cache along.
        command = entry["command"].replace(self.root, "")
        digest = hashlib.sha256(self.settings + command.encode())
        for path in self.reached(entry["file"]):
            digest.update(os.path.relpath(path, self.root).encode() + b"\0" + self.text(path))
        return digest.hexdigest()

    def check(self, entry):
        """(path, seconds, what clang-tidy found)"""
        start = time.monotonic()
        result = subprocess.run(
            ["clang-tidy", "--quiet", "-p", self.build, entry["file"]],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if result.returncode == 0:
            open(os.path.join(self.cache, entry["key"]), "w").close()
        return entry["path"], time.monotonic() - start, result.returncode, result.stdout


def entries_of(project, wanted):
    with open(os.path.join(project.build, "compile_commands.json")) as file:
        entries = json.load(file)
    seen = set()
    for entry in entries:
        path = os.path.relpath(entry["file"], project.root)
        chosen = not wanted or any(path.startswith(prefix) for prefix in wanted)
        # A source compiled into two programs is looked at once.
        if path.endswith(".c") and path.startswith(OURS) and chosen and path not in seen:
            seen.add(path)
            yield dict(entry, path=path, key=project.key(entry))


def main(arguments):
    root = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    project = Project(root, os.path.abspath(arguments[1]))
    os.makedirs(project.cache, exist_ok=True)
    entries = list(entries_of(project, arguments[2:]))
    todo = [entry for entry in entries
            if not os.path.exists(os.path.join(project.cache, entry["key"]))]
    print(f"clang-tidy: {len(entries)} files, {len(todo)} to look at", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(project.check, entry) for entry in todo]
        for job in concurrent.futures.as_completed(jobs):
            path, seconds, status, output = job.result()
            if status != 0:
                failed += 1
                print(f"{path}: refused\n{output}", flush=True)
            elif sys.stdout.isatty() or seconds > 20:
                print(f"{path}: {seconds:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
