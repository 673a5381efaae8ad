#!/usr/bin/python3
"""A survey of personas: a question, the same options, one answer and one distribution each.

    survey.py [--count 1000] [--seed 1] [--out answers.parquet] ["QUESTION" OPTION...]

Each persona is a made-up person; the seed fixes who they are and what they say, so that the table
is the same whenever model and numerics are. The answer is sampled; the shares are exact scores of
the options before it. A name that ends in .parquet is written by pandas, everything else as CSV.
"""
import argparse
import asyncio
import csv
import itertools
import json
import sys

from personad import AsyncClient

TRADES = ["baker", "nurse", "sailor", "teacher", "farmer", "judge", "painter", "mechanic"]
TEMPERS = ["cautious", "cheerful", "bitter", "curious", "devout", "restless"]
PLACES = ["a port", "a mountain village", "a capital", "an island"]
AT_ONCE = 64


def people(count):
    """(name, age, trade, temper, place) of so many persons."""
    kinds = itertools.cycle(itertools.product(TRADES, TEMPERS, PLACES))
    for number, (trade, temper, place) in zip(range(count), kinds):
        yield f"Person {number + 1}", 18 + number * 37 % 70, trade, temper, place


async def interview(daemon, person, question, options, seed, gate):
    """One row of the table."""
    name, age, trade, temper, place = person
    card = {"name": name, "description":
            f"{{{{char}}}} is a {temper} {trade} of {age} years from {place}."}
    async with gate:
        persona = await daemon.put_persona(json.dumps(card))
        session = await daemon.open(persona, seed=seed)
        asked = await session.append(f"{question} Answer with one of: {', '.join(options)}.")
        scored = await session.score(options, at=asked)
        reply = (await session.generate(at=asked, max_tokens=16, batch=True))[0]
    row = {"name": name, "age": age, "trade": trade, "temper": temper, "place": place,
           "answer": reply.text.strip(), "node_seed": str(reply.seed)}
    row.update({f"share {option}": one.share for option, one in zip(options, scored)})
    return row


async def survey(count, seed, question, options, socket=None):
    """All rows, in the order of the persons."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient(socket) as daemon:
        return await asyncio.gather(*(interview(daemon, person, question, options, seed, gate)
                                      for person in people(count)))


def write(rows, path):
    """Parquet by pandas, CSV with or without it."""
    if path and path.endswith(".parquet"):
        import pandas  # only needed here
        pandas.DataFrame(rows).to_parquet(path)
        return
    with open(path, "w", newline="", encoding="utf-8") if path else sys.stdout as out:
        table = csv.DictWriter(out, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    parser.add_argument("question", nargs="?", default="Should the old harbour be rebuilt?")
    parser.add_argument("options", nargs="*", default=["yes", "no", "perhaps"])
    given = parser.parse_args()
    write(asyncio.run(survey(given.count, given.seed, given.question, given.options)), given.out)


if __name__ == "__main__":
    main()
