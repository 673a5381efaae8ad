#!/usr/bin/python3
"""20 questions as a superposition: the persona has not thought of one object, but of all that fit.

    twenty_questions.py "Is it alive?" "Is it larger than a cat?"

Each answer narrows the set. The reveal is then generated N times at one position and grouped: the
groups are objects that are consistent with all answers, with their shares.
"""
import sys

from personad import Client

REVEALS = 64


def superposition(session, **settings):
    """Asks what it was, N times at once, and takes the question back."""
    before = session.head()
    nodes = session.say("I give up. What was it? Answer with the object alone.", n=REVEALS,
                        max_tokens=12, **settings)
    groups = session.group(nodes)
    session.head(before)
    return groups


def main():
    questions = sys.argv[1:] or ["Is it alive?", "Is it larger than a cat?", "Can it fly?"]
    with Client() as daemon:
        session = daemon.open("twenty-questions", seed=20)
        for number, question in enumerate([None, *questions]):
            if question is not None:
                print(f"\n{number}. {question}  {session.say(question, max_tokens=40)[0].text}")
            groups = superposition(session, temperature=1.0)
            print(f"   {len(groups)} different objects in {REVEALS} reveals; the likeliest:")
            for group in groups[:5]:
                print(f"   {group.share:6.1%}  {group.text}")


if __name__ == "__main__":
    main()
