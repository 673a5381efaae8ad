#!/usr/bin/env python3
"""Measures personad and its peers on the same files and threads, in alternating runs.

Started by scripts/bench-peer.sh. In each round every program is measured once, one after the other;
the table has medians, spread, ratios and the share of what the machine could do in the same run.
A program that fails is named and its figures are missing; the others go on. Ends with 1 when a
ratio is short of its target.

Other programs on the same processors ruin a comparison, and not evenly: threads that wait for each
other by spinning lose far more than their share. So each run waits for a quiet machine, and a
figure whose best run lies far above its median is marked as disturbed.
"""

import argparse
import fnmatch
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import cases
import ours

QUIET_SECONDS_MAX = 20
QUIET_BUSY_SHARE_MAX = 0.10
BEST_OVER_MEDIAN_MAX = 1.2
QUICK_ROUNDS = 2


def busy_share():
    """The share of all processor time that was in use during a moment."""

    def times():
        with open("/proc/stat", encoding="ascii") as stream:
            return [int(x) for x in stream.readline().split()[1:9]]

    before = times()
    time.sleep(0.3)
    spent = [b - a for a, b in zip(before, times())]
    return 1 - (spent[3] + spent[4]) / max(1, sum(spent))


class Book:
    """All figures of the run by their key."""

    def __init__(self):
        self.values = {}
        self.failures = []
        self.disturbed = False

    def wait_for_quiet(self):
        end = time.monotonic() + (0 if self.disturbed else QUIET_SECONDS_MAX)
        while busy_share() > QUIET_BUSY_SHARE_MAX:
            if time.monotonic() > end:
                self.disturbed = True
                return

    def add(self, program, model, figures):
        for key, value in figures.items():
            self.values.setdefault(f"{program}/{model}/{key}", []).append(value)

    def has(self, key):
        return bool(self.values.get(key))

    def median(self, key):
        return statistics.median(self.values[key])

    def spread(self, key):
        return f"{number(min(self.values[key]))}-{number(max(self.values[key]))}"


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine_name():
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        fields = dict(
            line.split(":", 1) for line in stream.read().split("\n\n")[0].splitlines()
            if ":" in line
        )
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", "unknown processor")
    family, model = fields.get("cpu family", "?"), fields.get("model", "?")
    return f"{name} (family {family}, model {model})"


def commit(root):
    command = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    out = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    return out.stdout.strip() or "unknown"


def plan(selected):
    """What each program must measure of each model: {(program, model): [key, ...]}."""
    wanted = {}
    for case in selected:
        for key in (case.mine, *case.peers):
            program, model, what = key.split("/", 2)
            wanted.setdefault((program, model), [])
            if what not in wanted[program, model]:
                wanted[program, model].append(what)
    return wanted


def one_round(options, book, wanted, first):
    # Models side by side, so that what is compared ran within the same minute.
    for program, model in sorted(wanted, key=lambda pair: (pair[1], pair[0])):
        keys = [
            key for key in wanted[program, model]
            if first or f"{program}/{model}/{key}" not in cases.ONCE
        ]
        if not keys or (program, model) in book.failures:
            continue
        book.wait_for_quiet()
        begin = time.monotonic()
        try:
            book.add(program, model, cases.MEASURES[program](options, model, keys))
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            book.failures.append((program, model))
            print(f"dev: {program} on {model} failed: {error}", file=sys.stderr)
        seconds = time.monotonic() - begin
        print(f"dev: {program} on {model}: {seconds:.0f} s", file=sys.stderr)


def ratio_of(case, book, rates, options):
    """(best peer's key or None, ratio or None, share of the floor or None)."""
    mine = book.median(case.mine)
    floor = case.floor(rates, options) if case.floor else 0
    share = mine / floor if floor > 0 else None
    present = [key for key in case.peers if book.has(key)]
    if not present:
        return None, None, share
    choose = min if case.lower_is_better else max
    best = choose(present, key=book.median)
    theirs = book.median(best)
    return best, theirs / mine if case.lower_is_better else mine / theirs, share


def row_of(case, book, rates, options):
    """The cells of a case's line, and whether it reached its target (None: has none)."""
    if not book.has(case.mine):
        return [case.text, "-", "-", "-", "-", "-", "not measured"], False
    best, ratio, share = ratio_of(case, book, rates, options)
    reached = None
    if case.target:
        if case.against_floor:
            reached = share is not None and share >= case.target
        elif not case.peers:
            reached = book.median(case.mine) <= case.target
        else:
            reached = ratio is not None and ratio >= case.target
    target = case.target_text or (
        f"{case.target:.0%} of the floor" if case.against_floor else f"{case.target:g}"
    )
    verdict = "" if reached is None else "reached" if reached else "SHORT"
    mine = book.values[case.mine]
    if not case.lower_is_better and max(mine) > BEST_OVER_MEDIAN_MAX * statistics.median(mine):
        verdict += " (disturbed)"
    theirs = "-" if best is None else f"{number(book.median(best))} {best.split('/')[0]}"
    return [
        f"{case.text} [{case.unit}]", number(book.median(case.mine)), book.spread(case.mine),
        theirs, "-" if ratio is None else f"{ratio:.2f}", target if case.target else "-",
        "-" if share is None else f"{share:.0%}", verdict,
    ], reached


HEADINGS = ["case", "ours", "spread", "best peer", "ratio", "at least", "of the floor", ""]


def show(rows, stream, markdown):
    if markdown:
        print("| " + " | ".join(HEADINGS) + " |", file=stream)
        print("|" + "---|" * len(HEADINGS), file=stream)
        for row in rows:
            print("| " + " | ".join(row) + " |", file=stream)
        return
    widths = [max(len(row[i]) for row in [HEADINGS, *rows]) for i in range(len(HEADINGS))]
    for row in [HEADINGS, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(),
              file=stream)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path)
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--programs", type=pathlib.Path)
    parser.add_argument("--root", type=pathlib.Path)
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--markdown", type=pathlib.Path)
    return parser.parse_args()


def select(options):
    """The cases asked for, by name; prefill-* stands for several."""
    selected = [
        case for case in cases.CASES
        if any(fnmatch.fnmatchcase(case.name, name) for name in options.case)
        or (not options.case and (case.quick or not options.quick))
    ]
    if not selected:
        sys.exit("dev: no case has that name; ./dev bench peer --list shows them")
    return selected


def read_rates(options, rates):
    """Adds what the machine does at this moment. It moves: the best of a run is no floor."""
    found = ours.machine(options, options.threads)
    for name, values in rates.items():
        values.append(found[name])


def main():
    options = arguments()
    # A stop from outside ends what was started, as an error would.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.list:
        for case in cases.CASES:
            print(f"{case.name:<18}{case.text}{'   (quick)' if case.quick else ''}")
        return 0
    selected = select(options)
    wanted = plan(selected)
    book = Book()
    rates = {"memory_gb_s": [], "int8_gop_s": [], "fp32_gflop_s": []}
    alone = []  # int8 of one thread: processors may be halves of one core
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else 3)
    begin = time.monotonic()
    done = 0
    while done < rounds:
        round_begin = time.monotonic()
        book.wait_for_quiet()
        read_rates(options, rates)
        alone.append(ours.machine(options, 1)["int8_gop_s"])
        one_round(options, book, wanted, done == 0)
        read_rates(options, rates)
        done += 1
        print(f"dev: round {done} of {rounds}", file=sys.stderr)
        now = time.monotonic()
        if now - begin + 0.7 * (now - round_begin) > 60 * options.minutes:
            break
    usual = {name: statistics.median(values) for name, values in rates.items()}
    rows = [row_of(case, book, usual, options) for case in selected]
    head = (
        f"machine: {machine_name()}, {options.threads} threads; commit {commit(options.root)}\n"
        f"its rates, medians: memory {usual['memory_gb_s']:.1f} GB/s (from "
        f"{min(rates['memory_gb_s']):.1f} to {max(rates['memory_gb_s']):.1f}), int8 "
        f"{usual['int8_gop_s']:.0f} GOP/s (one thread: {max(alone):.0f}), fp32 "
        f"{usual['fp32_gflop_s']:.0f} GFLOP/s\n"
        f"medians of {done} alternating rounds, {(time.monotonic() - begin) / 60:.0f} minutes"
    )
    if book.disturbed:
        head += "\nthe machine was busy with other work: read the ratios with care"
    print(head + "\n")
    show([row for row, _ in rows], sys.stdout, False)
    if options.markdown:
        with open(options.markdown, "w", encoding="utf-8") as stream:
            print(head + "\n", file=stream)
            show([row for row, _ in rows], stream, True)
    return 0 if all(reached is not False for _, reached in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
