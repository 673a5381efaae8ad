"""The default model behind a window that slid: its numbers are those of the turns that are left,
bit for bit, and can be computed again, after a restart and on another number of threads too.

Contexts are so short that turns are left out all the time. Bits are compared as bytes; each claim
has a twin that must differ.
"""
import json
import os
import sqlite3

import pytest

from client import bits, position
from conftest import flow_backend
from test_golden_journal import verify

CARD = json.dumps({"name": "guide", "description": "You are a guide in a small town."}).encode()
TURNS = [b"Where is the old bridge, and who built it?",
         b"It crosses the river behind the mill. A miller built it.",
         b"Is it safe to walk there at night?",
         b"There are lamps now, so most people do.",
         b"And what is on the other side of the river?",
         b"An orchard, a chapel, and the road to the sea.",
         b"How long does it take to get to the sea?"]
CONTEXT_TOKENS = 120


@pytest.fixture
def real(start):
    if flow_backend() != "cpu":
        pytest.skip("the default model takes hours on an emulated card")
    path = os.environ.get("PERSONAD_MODEL", "")
    if not os.path.exists(path):
        pytest.skip("PERSONAD_MODEL names no file; ./dev model fetches the default model")

    def start_one(*options):
        return start("--context", "2048", *options, model=path)

    return start_one


def open_guide(client, **fields):
    persona = client.call("persona_put", card=CARD).persona_put.persona.id
    return client.call("session_open", persona=persona, seed=4, **fields).session_open.session.id


def reply_behind(client, turns, **fields):
    """A reply behind given turns: its tokens and numbers, its context's ids, turns left out."""
    session = open_guide(client, **fields)
    for number, text in enumerate(turns):
        client.append(session, text, speaker=(number + len(turns) + 1) % 2)
    node = client.generate(session, max_tokens=12, raw_seed=99, numbers=True,
                           ignore_end=True).replies()[0]
    seen = client.call("context", node=node.id, tokens=True).context
    ids = [token for segment in seen.segments for token in segment.tokens]
    assert len(ids) == seen.token_count
    return bits(node.numbers), ids, seen.turns_left_out


def test_a_slid_window_gives_the_bits_of_what_is_left(real):
    with real().client() as client:
        slid, ids, left_out = reply_behind(client, TURNS, context_tokens=CONTEXT_TOKENS)
        assert 0 < left_out < len(TURNS) - 1
        left, left_ids, nothing = reply_behind(client, TURNS[left_out:], context_tokens=1024)
        assert nothing == 0 and ids == left_ids
        assert slid == left
        whole, whole_ids, nothing = reply_behind(client, TURNS, context_tokens=1024)
        assert nothing == 0 and whole_ids != ids
        assert slid != whole


def talk(client):
    """A conversation whose window slides again and again: its session, and its replies."""
    session = open_guide(client, context_tokens=CONTEXT_TOKENS)
    replies = []
    for text in TURNS:
        made = client.finish(client.send_generate(session, op="say", text=text, max_tokens=10,
                                                  numbers=True, ignore_end=True))
        replies += made.replies()
    left_out = [client.call("context", node=node.id).context.turns_left_out for node in replies]
    assert left_out[0] == 0 and len(set(left_out)) > 2, left_out
    return session, replies


def test_what_a_slid_window_gave_is_computed_again(real):
    daemon = real("--threads", "2")
    with daemon.client() as client:
        session, replies = talk(client)
    daemon.kill()
    daemon.wait()
    daemon = real("--threads", "1")
    with daemon.client() as client:
        found = verify(client, session=session)[0]
        assert found.equal_count == len(replies)
        assert found.different_count == found.failed_count == 0
        last = replies[-1]
        again = client.generate(session, position=position(last.parent.node, last.parent.offset),
                                max_tokens=10, raw_seed=last.seed, numbers=True,
                                ignore_end=True).replies()[0]
        assert bits(again.numbers) == bits(last.numbers)
        other = client.generate(session, position=position(last.parent.node, last.parent.offset),
                                max_tokens=10, raw_seed=last.seed ^ 1, numbers=True,
                                ignore_end=True).replies()[0]
        assert bits(other.numbers) != bits(last.numbers)
    daemon.kill()
    daemon.wait()
    with sqlite3.connect(os.path.join(daemon.folder, "data", "journal.db")) as database:
        key, blob = database.execute("SELECT key, logprobs FROM chunk WHERE key / 65536 = ?",
                                     (last.id,)).fetchone()
        database.execute("UPDATE chunk SET logprobs = ? WHERE key = ?",
                         (bytes([blob[0] ^ 1]) + blob[1:], key))
    database.close()
    with real().client() as client:
        found, nodes = verify(client, session=session)
        assert found.different_count == 1 and [node.node for node in nodes] == [last.id]
