#!/usr/bin/env python3
"""Measures personad and llama.cpp on the same model file, in alternating runs.

Started by scripts/bench-peer.sh. Prints medians and ratios, the machine and the commit. Ends with 1
when a floor is missed: one stream at least at llama.cpp's rate, 16 streams at least 3 times one,
and a persona's prompt computed once for 64 sessions.

Other programs on the same processors ruin a comparison, and not evenly: threads that wait for each
other by spinning lose far more than their share. So each run waits for a quiet machine, ratios are
shown of medians and of best runs, a floor counts as reached when both reach it, and where a median
lies far below its best run the whole is called no measurement, with an end of 1.
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
QUIET_SECONDS_MAX = 60
QUIET_BUSY_SHARE_MAX = 0.10
BEST_OVER_MEDIAN_MAX = 1.2  # beyond it half of the runs or more were disturbed
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
    context = str(STREAM_COUNT * (16 + options.tokens) + 256)
    out = peer(
        options, "llama-batched-bench", "-c", context, "-b", "2048", "-ub", "512", "-npp", "16",
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


def busy_share():
    """The share of all processor time that was in use during half a second."""

    def times():
        with open("/proc/stat", encoding="ascii") as stream:
            return [int(x) for x in stream.readline().split()[1:9]]

    before = times()
    time.sleep(0.5)
    spent = [b - a for a, b in zip(before, times())]
    return 1 - (spent[3] + spent[4]) / max(1, sum(spent))


def wait_for_quiet():
    """False when the machine stayed busy."""
    end = time.monotonic() + QUIET_SECONDS_MAX
    while busy_share() > QUIET_BUSY_SHARE_MAX:
        if time.monotonic() > end:
            return False
    return True


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


class Rates:
    """Tokens a second of one kind of run."""

    def __init__(self, name):
        self.name, self.values = name, []

    def measure(self, run, *arguments):
        quiet = wait_for_quiet()
        self.values.append(run(*arguments))
        return quiet

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def best(self):
        return max(self.values)

    @property
    def steady(self):
        return self.best <= BEST_OVER_MEDIAN_MAX * self.median

    def show(self):
        spread = f"({min(self.values):.1f} to {self.best:.1f})"
        note = "" if self.steady else "  disturbed"
        print(f"{self.name:<40}{self.median:10.1f}   {spread}{note}")


def show_ratio(name, over, under):
    medians, bests = over.median / under.median, over.best / under.best
    print(f"{name:<40}{medians:10.2f}   (best runs {bests:.2f})", end="")
    return min(medians, bests)


def judge(good):
    print("   reached" if good else "   MISSED")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", required=True, type=pathlib.Path)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--root", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()

    ours, theirs = Rates("personad, 1 stream"), Rates("llama.cpp, 1 stream")
    ours_many = Rates(f"personad, {STREAM_COUNT} streams")
    theirs_many = Rates(f"llama.cpp, {STREAM_COUNT} streams")
    rates = [ours, theirs, ours_many, theirs_many]
    quiet = True
    with Daemon(options) as daemon:
        daemon.decode(1)  # the first run touches all memory
        for number in range(options.rounds):
            quiet &= theirs.measure(peer_decode, options)
            quiet &= ours.measure(daemon.decode, 1)
            quiet &= theirs_many.measure(peer_batched, options)
            quiet &= ours_many.measure(daemon.decode, STREAM_COUNT)
            print(f"dev: round {number + 1} of {options.rounds}", file=sys.stderr)
    prompt, times = prompt_computed_times(options)

    print(f"machine: {machine()}, {options.threads} threads; commit {commit(options.root)}")
    print(f"model:   {os.path.basename(options.model)}; {options.tokens} tokens a stream,")
    print(f"         medians of {options.rounds} alternating runs, tokens a second\n")
    for rate in rates:
        rate.show()
    print()
    good = [judge(show_ratio("1 stream, ours / theirs (at least 1)", ours, theirs) >= 1)]
    name = f"ours, {STREAM_COUNT} streams / 1 (at least 3)"
    good += [judge(show_ratio(name, ours_many, ours) >= 3)]
    show_ratio(f"{STREAM_COUNT} streams, ours / theirs", ours_many, theirs_many)
    print()
    print(f"{f'prompt of {prompt} tokens, {SESSION_COUNT} sessions at once':<40}", end="")
    print(f"{times:10.2f}   times computed (once)", end="")
    good += [judge(times < 1.005)]
    if not quiet or not all(rate.steady for rate in rates):
        print("\nNo measurement: the machine was busy or runs were disturbed. Quote no rate.")
        return 1
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
