#!/usr/bin/python3
"""A loom: grow a text by choosing among continuations, walk back, branch again.

    loom.py "Once upon a time"

A number takes that branch, `b` goes back, `e` shows where the model wavered, `q` ends.
"""
import sys

from personad import Client, Position

BRANCHES, TOKENS = 4, 12


def show(session, place):
    path = session.walk(place)
    print("\n" + "".join(node.text for node in path))
    return path


def main():
    text = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"
    with Client() as daemon:
        session = daemon.open("plain")
        place = session.append(text).position()
        while True:
            path = show(session, place)
            branches = session.generate(place, continuing=True, n=BRANCHES, max_tokens=TOKENS,
                                        temperature=1.1, numbers=True)
            for number, node in enumerate(branches):
                surprise = -sum(node.numbers.logprobs) / max(len(node.numbers.logprobs), 1)
                print(f"  {number}  {node.text!r}  ({surprise:.2f} nats a token)")
            choice = input("> ").strip() if sys.stdin else "q"
            if choice.isdigit() and int(choice) < len(branches):
                place = branches[int(choice)].position()
            elif choice == "b" and len(path) > 1:
                place = path[-1].parent if path[-1].parent.node else Position(path[0].id)
            elif choice == "e":
                for one in session.distribution(place, continuing=True).top:
                    print(f"  {one.logprob:7.2f}  {one.piece!r}")
            elif choice in ("q", ""):
                return


if __name__ == "__main__":
    main()
