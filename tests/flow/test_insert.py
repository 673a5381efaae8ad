"""What the model reads between turns: notes, lore and instructions, through the socket, from the
command line and from Python; in both kinds of group, in chat and transcript, after restarts.
Method: the tiny model; contexts as Context gives them; Verify; a copy of the bits before."""
import contextlib
import json
import os
import re
import sqlite3
import sys

import pytest

from cli import Terminal
from client import CODES, MESSAGES, ROOT, Refused, bits, position
from conftest import wait_until

sys.path.insert(0, os.path.join(ROOT, "clients/python"))

from personad import Client as Python  # noqa: E402

SEPARATE, JOINT = 0, 1
INSERT = 3
LORE = [{"keys": ["lamp"], "content": "The lamp is {{char}}'s.", "insertion_order": 1},
        {"keys": ["sea"], "content": "The sea is cold.", "insertion_order": 2,
         "extensions": {"position": 4, "depth": 1, "role": 1}},
        {"keys": [], "constant": True, "content": "It is always night."}]


def put(client, name, play="chat", **fields):
    card = {"spec": "chara_card_v2", "spec_version": "2.0", "data": {
        "name": name, "description": f"You are {name}.",
        "post_history_instructions": f"Speak as {name}.",
        "character_book": {"entries": LORE},
        "extensions": {"personad": {"play": play}, "depth_prompt": {
            "prompt": f"{name} is tired.", "depth": 2, "role": "system"}}, **fields}}
    return client.call("persona_put", card=json.dumps(card).encode()).persona_put.persona.id


def segments(client, node):
    reply = client.call("context", node=node, text=True, tokens=True).context
    assert reply.end
    return reply.segments


def seen(client, node):
    return b"".join(part.text for part in segments(client, node)).decode("utf-8", "replace")


def ids(client, node):
    return [token for part in segments(client, node) for token in part.tokens]


def verified(client, session):
    made = client.send("verify", session=session)
    while True:
        reply = client.next_of(made)
        if not reply.more:
            return reply.verify


def say(client, session, text, **fields):
    fields.setdefault("max_tokens", 6)
    return client.finish(client.send_generate(session, op="say", text=text, numbers=True,
                                              **fields)).replies()[0]


@pytest.mark.parametrize("play", ["chat", "transcript"])
@pytest.mark.parametrize("mode", [SEPARATE, JOINT])
def test_everything_inserted_is_replayed_bit_for_bit(start, play, mode):
    daemon = start()
    with daemon.client() as client:
        ada, bob = put(client, "Ada", play), put(client, "Bob", play)
        session = client.call(
            "session_open", persona=ada, seed=3, group_mode=mode,
            cast=[MESSAGES["CastEntry"](persona=bob)]).session_open.session.id
        nodes = [say(client, session, b"Where is the lamp?")]
        client.call("note", session=session, text=b"It rains.", depth=0)
        nodes.append(say(client, session, b"By the sea?", reply_speaker=2))
        client.call("note", session=session, text=b"It snows.", depth=1, role=1)
        nodes += [say(client, session, b"Oh."), say(client, session, b"Ah.", reply_speaker=2, n=2)]
        nodes.append(client.generate(session, continuing=True, max_tokens=3,
                                     numbers=True).replies()[0])
        told = [(ids(client, node.id), bits(node.numbers)) for node in nodes]
        texts = [seen(client, node.id) for node in nodes]
        assert "The lamp is Ada's." in texts[0] and "sea is cold" not in texts[0]
        assert "It rains." in texts[1] and "The sea is cold." in texts[1]
        assert "It snows." in texts[2] and "It rains." not in texts[2]
        assert all("It is always night." in text for text in texts)
        assert ("Bob is tired." in texts[0]) == (mode == JOINT)
        assert "Speak as Ada." in texts[0] and "Speak as Bob." in texts[1]
        assert "Speak as Bob." not in texts[0]
        assert any(part.kind == INSERT for part in segments(client, nodes[0].id))
        count = verified(client, session)
        assert count.equal_count == count.node_count >= len(nodes)
    daemon.end()
    daemon = start("--tree-memory", "1")
    with daemon.client() as client:
        after = verified(client, session)
        assert after.equal_count == after.node_count == count.node_count
        for node, (context, numbers) in zip(nodes, told):
            again = client.call("walk", session=session, what=3, position=position(node.id),
                                numbers=True).walk.nodes[0]
            assert ids(client, node.id) == context and bits(again.numbers) == numbers
        note = client.call("note", session=session).note.note
        assert (note.text, note.depth, note.role) == (b"It snows.", 1, 1)
        last = say(client, session, b"And the lamp?")
        text = seen(client, last.id)
        assert "It snows." in text and "The lamp is Ada's." in text


def test_groups_and_notes_come_back_after_an_eviction(start):
    """More trees than fit in memory: each is read again, with its notes and its joint prompt."""
    daemon = start("--tree-memory", "1", "--log", "debug")
    with daemon.client() as client:
        ada, bob = put(client, "Ada"), put(client, "Bob")
        made = []
        for number in range(8):
            session = client.call(
                "session_open", persona=ada, seed=number, group_mode=JOINT,
                cast=[MESSAGES["CastEntry"](persona=bob)]).session_open.session.id
            reply = say(client, session, b"The lamp?", reply_speaker=1 + number % 2)
            for offset in range(5):
                client.call("note", session=session, position=position(reply.id, offset),
                            text=b"%d " % number + b"x" * 60000)
            client.call("note", session=session, text=b"It rains at %d." % number, depth=1)
            made.append((session, reply.id, ids(client, reply.id)))
        wait_until(lambda: daemon.log().count("is left to the journal") > 3)
        for number, (session, node, context) in enumerate(made):
            assert client.call("note", session=session).note.note.text == \
                b"It rains at %d." % number
            assert ids(client, node) == context
            assert verified(client, session).equal_count == 1
            reply = say(client, session, b"And?", max_tokens=2)
            assert f"It rains at {number}." in seen(client, reply.id)


def test_notes_are_set_read_and_taken_away(client):
    session = client.open(b"keeper", seed=1)
    first = say(client, session, b"Hello")
    assert not client.call("note", session=session).note.HasField("note")
    client.call("note", session=session, position=position(0), text=b"All of it.")
    client.call("note", session=session, text="Schnee \u2603".encode(), depth=2)
    note = client.call("note", session=session).note.note
    assert note.text.decode() == "Schnee \u2603" and note.depth == 2
    assert note.position.node == first.id
    before = client.call("note", session=session, position=position(first.id, 0)).note.note
    assert before.text == b"All of it." and before.depth == 4 and before.position.node == 0
    client.call("note", session=session, text=b"")
    assert not client.call("note", session=session).note.HasField("note")
    client.call("note", session=session, clear=True)
    assert client.call("note", session=session).note.note.text == b"All of it."

    def refused(code, **fields):
        with pytest.raises(Refused) as caught:
            client.call("note", session=session, **fields)
        assert caught.value.code == CODES[code], caught.value
        return caught.value

    refused("NOT_FOUND", clear=True)
    refused("BAD_INPUT", clear=True, text=b"x")
    refused("BAD_INPUT", text=b"\xff")
    refused("NOT_FOUND", text=b"x", position=position(2 ** 40))
    assert refused("LIMIT", text=b"x" * 65537).limit_name == "NOTE_BYTES_MAX"
    assert refused("LIMIT", text=b"x", depth=10 ** 7).limit_name == "INSERT_DEPTH_MAX"


def test_a_purged_place_takes_its_note_along(start):
    daemon = start()
    with daemon.client() as client:
        session = client.open(b"keeper", seed=1)
        root = say(client, session, b"Hello")
        gone = say(client, session, b"Secret")
        client.call("note", session=session, text=b"hidden words", position=position(gone.id))
        client.call("delete", nodes=[gone.id])
        client.call("purge", nodes=[gone.id])
        kept = say(client, session, b"Well", position=position(root.id))
        assert "hidden words" not in seen(client, kept.id)
    daemon.end()
    path = os.path.join(daemon.folder, "data/journal.db")
    with contextlib.closing(sqlite3.connect(path)) as rows:
        assert rows.execute("SELECT count(*) FROM author_note").fetchone() == (0,)
    daemon = start()
    with daemon.client() as client:
        assert not client.call("note", session=session).note.HasField("note")
        assert verified(client, session).different_count == 0


def test_the_note_of_a_copy_goes_before_its_original_s(start):
    """At one place, whichever was set last, and after a restart too."""
    daemon = start()
    with daemon.client() as client:
        session = client.open(b"keeper", seed=5)
        original = client.append(session, b"The quick brown fox")
        copy = client.call("edit", node=original.id, from_byte=4, to_byte=9,
                           text=b"slow!").created.nodes[0]
        end = {"session": session, "position": position(copy.id)}
        client.call("note", text=b"Of the copy.", **end)
        offset = client.call("note", **end).note.note.position.offset
        client.call("note", session=session, text=b"Of the original.",
                    position=position(original.id, offset))
        assert client.call("note", **end).note.note.text == b"Of the copy."
    daemon.kill()
    daemon.wait()
    with start().client() as client:
        assert client.call("note", **end).note.note.text == b"Of the copy."


def test_the_prompt_of_a_persona_hides_what_it_inserts(client):
    """What is one's own is shown; test_users.py asks as somebody else."""
    ada = put(client, "Ada")
    session = client.call("session_open", persona=ada).session_open.session.id
    reply = say(client, session, b"lamp")
    assert not any(part.hidden for part in segments(client, reply.id))


def test_from_the_chat(daemon):
    terminal = Terminal(daemon, "--persona", "keeper", "--seed", "4", "--max-tokens", "4",
                        "--ignore-end", NO_COLOR="1")
    try:
        terminal.wait_for(b"User: ")
        session = int(re.search(rb"Session (\d+)\.", terminal.seen).group(1))
        terminal.say("/note")
        terminal.wait_for(b"[no note;")
        terminal.say("Hello")
        terminal.wait_for(b"/continue goes on]")
        terminal.say("/note 0 It rains.")
        terminal.wait_for(b"[noted;")
        terminal.say("/again")
        terminal.wait_for(b"/continue goes on]")
        terminal.say("/raw")
        raw = terminal.wait_for(b" tokens]")
        assert b"It rains." in raw
        terminal.say("/note")
        terminal.wait_for(b"[0 turns back, set at node ")
        terminal.say("/note off")
        terminal.wait_for(b"[no note from here on]")
        terminal.say("/again")
        terminal.wait_for(b"/continue goes on]")
        terminal.say("/quit")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    with daemon.client() as client:
        replies = [node for node in client.call(
            "walk", session=session, what=2, position=position(0)).walk.nodes if node.origin == 0]
        assert ["It rains." in seen(client, node.id) for node in replies] == [False, True, False]


def test_from_python(daemon):
    with Python(daemon.socket) as python:
        session = python.open("keeper", seed=4)
        session.say("Hello", max_tokens=4)
        assert session.note() is None
        session.set_note("It rains.", depth=1, role="user")
        note = session.note()
        assert (note.text, note.depth, note.role) == ("It rains.", 1, "user")
        reply, = session.say("And now?", max_tokens=4)
        session.clear_note(at=note.position)
        assert session.note() is None
    with daemon.client() as client:
        assert "It rains." in seen(client, reply.id)
