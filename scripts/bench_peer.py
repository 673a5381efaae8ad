#!/usr/bin/env python3
"""Measures personad and llama.cpp on the same model file, in alternating runs.

Started by scripts/bench-peer.sh. Prints medians and ratios, the machine and the commit. Ends with 1
when a floor is missed: one stream at least at llama.cpp's rate, 16 streams at least 3 times one,
and a persona's prompt computed once for 64 sessions.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

START_SECONDS_MAX = 120
STREAM_COUNT = 16
SESSION_COUNT = 64

# A character with a prompt of some hundred tokens.
CARD = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        "name": "Measure",
        "description": "Measure keeps the weights and scales of a harbour town. " * 24,
        "first_mes": "Put it on the scale.",
    },
}


class Daemon:
    """A daemon on a private socket, stopped at the end."""

    def __init__(self, options, *arguments):
        self.options = options
        self.folder = tempfile.TemporaryDirectory(prefix="personad-bench-")
        self.socket = os.path.join(self.folder.name, "socket")
        self.log = os.path.join(self.folder.name, "log")
        command = [options.programs / "personad", "--model", options.model]
        command += ["--socket", self.socket, "--data", os.path.join(self.folder.name, "data")]
        command += ["--personas", self.personas(), "--threads", str(options.threads)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def personas(self):
        """A folder with the plain persona and one that has a prompt."""
        folder = pathlib.Path(self.folder.name) / "personas"
        folder.mkdir()
        shutil.copy(self.options.root / "personas" / "plain.json", folder)
        (folder / "measure.json").write_text(json.dumps(CARD), encoding="utf-8")
        return folder

    def __enter__(self):
        end = time.monotonic() + START_SECONDS_MAX
        while "personad: ready on " not in pathlib.Path(self.log).read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > end:
                log = pathlib.Path(self.log).read_text(errors="replace")
                self.__exit__()
                sys.exit(f"dev: the daemon did not get ready:\n{log}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def bench(self, *arguments):
        command = [self.options.programs / "persona", "bench", "--socket", self.socket, "--json"]
        out = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(out.stdout.strip().splitlines()[-1])

    def decode(self, users):
        """Tokens a second while all users were generating."""
        tokens = str(self.options.tokens)
        result = self.bench(
            "--users", str(users), "--words", "8", "--tokens", tokens, "--temperature", "0"
        )
        return result["steady_tokens_per_second"]


def peer(options, program, *arguments):
    environment = dict(os.environ, LD_LIBRARY_PATH=str(options.peer))
    command = [options.peer / program, "-m", options.model, "-t", str(options.threads), *arguments]
    out = subprocess.run(
        command, check=True, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return out.stdout


def peer_decode(options):
    tokens = str(options.tokens)
    out = peer(options, "llama-bench", "-p", "0", "-n", tokens, "-r", "1", "-o", "json")
    return json.loads(out)[0]["avg_ts"]


def peer_batched(options):
    count = str(STREAM_COUNT)
    out = peer(
        options, "llama-batched-bench", "-c", "8192", "-b", "2048", "-ub", "512", "-npp", "16",
        "-ntg", str(options.tokens), "-npl", count, "--output-format", "jsonl",
    )
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows[-1]["speed_tg"]


def prompt_computed_times(options):
    """How often 64 sessions that come at once compute their persona's prompt.

    The second of two sessions alone computes only what is its own, which tells the prompt's length.
    """
    say = ["--persona", CARD["data"]["name"], "--words", "4", "--tokens", "8"]
    with Daemon(options) as daemon:
        first = daemon.bench("--users", "1", *say)
        second = daemon.bench("--users", "1", *say)
    prompt = first["context_computed"] - second["context_computed"]
    with Daemon(options) as daemon:
        many = daemon.bench("--users", str(SESSION_COUNT), *say)
    own = many["context_tokens"] - SESSION_COUNT * prompt
    return prompt, (many["context_computed"] - own) / prompt


def machine():
    name = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return name


def commit(root):
    command = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return out.stdout.strip() or "unknown"


def row(name, values):
    middle = statistics.median(values)
    print(f"{name:<44}{middle:10.1f}   ({min(values):.1f} to {max(values):.1f})")
    return middle


def judge(name, value, good):
    print(f"{name:<44}{value:10.2f}   {'reached' if good else 'MISSED'}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", required=True, type=pathlib.Path)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--root", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()

    ours, theirs, ours_many, theirs_many = [], [], [], []
    with Daemon(options) as daemon:
        daemon.decode(1)  # the first run touches all memory
        for number in range(options.rounds):
            theirs.append(peer_decode(options))
            ours.append(daemon.decode(1))
            theirs_many.append(peer_batched(options))
            ours_many.append(daemon.decode(STREAM_COUNT))
            print(f"dev: round {number + 1} of {options.rounds}", file=sys.stderr)
    prompt, times = prompt_computed_times(options)

    print(f"machine: {machine()}, {options.threads} threads; commit {commit(options.root)}")
    print(f"model:   {os.path.basename(options.model)}; {options.tokens} tokens a stream,")
    print(f"         medians of {options.rounds} alternating runs, tokens a second\n")
    one = row("personad, 1 stream", ours)
    one_peer = row("llama.cpp, 1 stream", theirs)
    many = row(f"personad, {STREAM_COUNT} streams", ours_many)
    many_peer = row(f"llama.cpp, {STREAM_COUNT} streams", theirs_many)
    print()
    good = [
        judge("1 stream, ours / theirs (at least 1)", one / one_peer, one >= one_peer),
        judge(f"ours, {STREAM_COUNT} streams / 1 (at least 3)", many / one, many >= 3 * one),
        judge(f"prompt of {prompt} tokens computed (once)", times, times < 1.005),
    ]
    print(f"{f'{STREAM_COUNT} streams, ours / theirs':<44}{many / many_peer:10.2f}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
