#!/usr/bin/python3
"""Adds up what a test run left behind.

usage: test_report.py FOLDER

FOLDER holds `results`, lines "STAGE NAME passed|failed|skipped WHY", and JUnit files *.xml. Prints
what failed and why something was skipped, then one line "N passed, N failed, N skipped". Ends with
1 if anything failed, or if nothing ran at all.
"""
import glob
import os
import sys
import xml.etree.ElementTree as ElementTree


def from_results(path):
    with open(path) as file:
        for line in file:
            stage, name, state, *why = line.rstrip("\n").split(" ", 3)
            yield f"{stage} {name}", state, why[0] if why else ""


def from_junit(path):
    stage = os.path.splitext(os.path.basename(path))[0]
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except ElementTree.ParseError as error:
        yield stage, "failed", f"its report cannot be read: {error}"
        return
    for case in cases:
        name = f"{stage} {case.get('name')}"
        skipped = case.find("skipped")
        broken = case.find("failure")
        if broken is None:
            broken = case.find("error")
        if broken is not None:
            yield name, "failed", (broken.get("message") or "").split("\n")[0][:200]
        elif skipped is not None or case.get("status") in ("notrun", "disabled"):
            yield name, "skipped", skipped.get("message") if skipped is not None else "not run"
        else:
            yield name, "passed", ""


def main(arguments):
    folder = arguments[1]
    outcomes = list(from_results(os.path.join(folder, "results")))
    for path in sorted(glob.glob(os.path.join(folder, "*.xml"))):
        outcomes.extend(from_junit(path))
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, state, why in outcomes:
        counts[state] += 1
        if state != "passed":
            print(f"{state}: {name}" + (f": {why}" if why else ""))
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
