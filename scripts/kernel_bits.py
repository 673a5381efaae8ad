#!/usr/bin/python3
"""Compares what kernel_bits printed: every instruction set of every file must have the same lines.

usage: kernel_bits.py FILE:SETS [FILE:SETS...]     SETS: those the file must hold, "scalar,neon"

A line is an instruction set, then what was computed and a hash of its bits. Ends with 1 and the
lines that differ, or the set that is missing.
"""
import sys


def read(path):
    """{instruction set: its lines}"""
    sets = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            name, rest = line.rstrip("\n").split(" ", 1)
            sets.setdefault(name, []).append(rest.strip())
    return sets


def problems(wanted):
    """What is wrong with [(path, names of its sets)], in words."""
    found, first, first_name = [], None, ""
    for path, names in wanted:
        sets = read(path)
        for name in names:
            if name not in sets:
                found.append(f"{path}: nothing was computed by {name}")
        for name, lines in sets.items():
            if first is None:
                first, first_name = lines, f"{path} {name}"
            if lines == first:
                continue
            found.append(f"{path} {name} differs from {first_name}:")
            found += [f"    {line}" for line in lines if line not in first] or ["    (fewer lines)"]
    return found


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wanted = []
    for argument in sys.argv[1:]:
        path, _, names = argument.rpartition(":")
        wanted.append((path, names.split(",")))
    found = problems(wanted)
    for line in found[:40]:
        print(line, file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
