"""Goal: a session leaves as a file with everything in it and comes back the same: the file of what
was imported is the same file, byte for byte, every node verifies, and what is said next is what
would have been said. Nothing half comes in, whatever the file says.
Method: the trees of the golden journal and a small one are taken out, put in, taken out again and
compared; twins with one changed number must be caught. Hostile files are made by changing lines,
fields and bytes of a good one; the daemon must say no and have what it had.
"""
import base64
import json
import os
import random
import select
import sqlite3
import stat
import subprocess
import time

import pytest

from cli import environment, persona, program
from client import CODES, FINISHES, MESSAGES, SUBTREE, Client, Refused, bits, position
from conftest import tiny_model
from test_cast import JOINT, SEPARATE, converse, open_group
from test_expand import EXPANDED, expand, keep
from test_golden_journal import options, place, verify


def export(client, session, **fields):
    page = client.call("session_export", session=session, **fields).session_export
    data = page.data
    while not page.end:
        page = client.call("session_export", transfer=page.transfer).session_export
        data += page.data
    return data


def import_file(client, data, piece=64 * 1024, **fields):
    """The session's information."""
    at, transfer = 0, 0
    while True:
        part = data[at:at + piece]
        at += len(part)
        more = {"transfer": transfer} if transfer else {}
        reply = client.call("session_import", data=part, end=at >= len(data), **more,
                            **fields).session_import
        if at >= len(data):
            assert reply.HasField("session")
            return reply.session
        transfer = reply.transfer


def records(data):
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def joined(items):
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def grown(client, **fields):
    session = client.open(b"keeper", seed=11, label="a \u00e9 label".encode(), **fields)
    first = client.finish(client.send_generate(session, op="say", text="Wer da? \u00e9".encode(),
                                               n=3, max_tokens=20, top_count=3)).replies()
    client.generate(session, position=position(first[1].id, 4), n=2, max_tokens=9)
    client.generate(session, position=position(first[0].id), continuing=True, max_tokens=5,
                    temperature=4.0)
    client.generate(session, position=position(0), prefix=b"Once", max_tokens=600,
                    temperature=2.0, stop=[b"q"], ignore_end=True)
    client.call("label", node=first[2].id, label=b"this")
    client.call("bookmark", session=session, name=b"b", position=position(first[0].id, 1))
    client.call("bookmark", session=session, name=b"a", position=position(0))
    client.call("delete", nodes=[first[2].id])
    client.call("note", session=session, position=position(0), text=b"It rains.", depth=0)
    client.call("note", session=session, position=position(first[0].id, 1), text=b"At night.")
    client.call("head", session=session, position=position(first[1].id, 3))
    return session


def nodes_of(client, session):
    return list(client.call("walk", session=session, what=SUBTREE, position=position(0),
                            deleted=True, text=True, content=True, numbers=True,
                            count=1000).walk.nodes)


def assert_same_trees(client, one, other):
    pairs = list(zip(nodes_of(client, one), nodes_of(client, other)))
    names = {0: 0, **{a.id: b.id for a, b in pairs}}
    assert len(pairs) == len(nodes_of(client, one)) == len(nodes_of(client, other)) > 5
    for a, b in pairs:
        assert names[a.parent.node] == b.parent.node and a.parent.offset == b.parent.offset
        assert bits(a.numbers) == bits(b.numbers)
        for field in ("ordinal", "speaker", "origin", "opens_turn", "finish", "content_tokens",
                      "seed", "created_us", "finished_us", "text", "label", "context_tokens",
                      "turns_left_out", "deleted"):
            assert getattr(a, field) == getattr(b, field), field
        assert list(a.content) == list(b.content)


def test_a_session_comes_back_as_it_was(client):
    session = grown(client)
    data = export(client, session)
    made = import_file(client, data)
    assert made.id != session and made.label == "a \u00e9 label".encode()
    assert_same_trees(client, session, made.id)
    assert export(client, made.id) == data
    result, nodes = verify(client, session=made.id)
    assert not nodes and result.equal_count == result.node_count == 7
    # What is said next is what would have been said.
    went_on = []
    for each in (session, made.id):
        client.call("head", session=each, position=position(0))
        went_on.append(client.finish(client.send_generate(
            each, op="say", text=b"And now?", n=2, max_tokens=12, numbers=True)).replies())
    for one, other in zip(*went_on):
        assert bits(one.numbers) == bits(other.numbers)
    # The head and the bookmarks moved along.
    assert [mark.name for mark in
            client.call("bookmark_list", session=made.id).bookmark_list.bookmarks] == [b"a", b"b"]


def test_a_kept_path_comes_back(client):
    session = client.open(seed=5)
    client.append(session, b"Once upon")
    seen = expand(client, session, depth=3)
    kept = keep(client, seen, next(number for number, node in enumerate(seen.nodes)
                                   if node and not node["end"]))
    data = export(client, session)
    made = import_file(client, data)
    assert nodes_of(client, made.id)[-1].origin == kept.origin == EXPANDED
    assert export(client, made.id) == data


def test_a_changed_number_is_caught(client):
    """The twin."""
    items = records(export(client, grown(client)))
    tokens = next(item for item in items if item["record"] == "tokens")
    tokens["logprobs"][1] -= 0.25
    made = import_file(client, joined(items))
    assert verify(client, session=made.id)[0].different_count == 1


def test_all_of_the_golden_journal_comes_back(start, folder):
    place(folder, 1)
    with start(*options(1)).client() as client:
        sessions = [info.id for info in client.call("session_list").session_list.sessions]
        assert len(sessions) >= 6
        for session in sessions:
            client.finish(client.send("follow", node=nodes_of(client, session)[-1].id))
            data = export(client, session)
            made = import_file(client, data, piece=1000)
            assert export(client, made.id) == data
            result, nodes = verify(client, session=made.id)
            assert not nodes and result.equal_count == result.node_count


def test_it_is_there_after_a_kill_and_whole(start):
    daemon = start()
    with daemon.client() as client:
        data = export(client, grown(client))
        made = import_file(client, data).id
    daemon.kill(9)
    daemon.wait()
    with start().client() as client:
        assert export(client, made) == data


def test_another_model_reads_it_and_adds_nothing(start, folder):
    with start().client() as client:
        session = grown(client)
        data = export(client, session)
        texts = [node.text for node in nodes_of(client, session)]
    other = os.path.join(folder, "other")
    os.makedirs(other)
    daemon = start("--data", os.path.join(other, "data"), "--socket", os.path.join(other, "s"),
                   model=tiny_model("F16-bpe"), expect_ready=False)
    daemon.first_line()
    with Client(os.path.join(other, "s")) as client:
        made = import_file(client, data).id
        assert [node.text for node in nodes_of(client, made)] == texts
        for op, fields in (("say", {"text": b"x"}), ("generate", {})):
            with pytest.raises(Refused) as refused:
                client.call(op, session=made, **fields)
            assert refused.value.code == CODES["CONFLICT"]
            assert "another model" in refused.value.text
        assert export(client, made) == data


def test_a_reply_under_way_is_cut_where_it_is_stored(start):
    daemon = start()
    with daemon.client() as client:
        session = client.open(seed=77)
        client.append(session, b"Once upon a time")
        request = client.send_generate(session, max_tokens=900, ignore_end=True, n=4)
        client.next_of(request)
        seen = 0
        while seen < 200:
            seen += client.next_of(request).tokens.token_count
        made = import_file(client, export(client, session)).id
        cut = [node for node in nodes_of(client, made) if node.origin == 0]
        assert all(node.finish == FINISHES["INTERRUPTED"] for node in cut)
        client.finish(request)
        whole = [node.text for node in nodes_of(client, session) if node.origin == 0]
        assert all(text.startswith(node.text) for node, text in zip(cut, whole))
        result, nodes = verify(client, session=made)
        assert not nodes


def test_a_path_alone(client):
    session = grown(client)
    node = max(nodes_of(client, session), key=lambda one: (one.parent.offset == 4, one.id))
    items = records(export(client, session, node=node.id))
    kept = [item for item in items if item["record"] == "node"]
    assert [item["parent"] for item in kept] == list(range(len(kept)))
    made = import_file(client, joined(items)).id
    assert nodes_of(client, made)[-1].text == node.text
    assert not verify(client, session=made)[1]
    with pytest.raises(Refused) as refused:
        export(client, session, node=10 ** 12)
    assert refused.value.code == CODES["NOT_FOUND"]


def test_text_without_tokens_is_tokenised(client):
    """What converters write: names, turns and words."""
    items = [{"record": "session", "format": "personad", "version": 1},
             {"record": "member", "name": "Ann"},
             {"record": "member", "name": "Marta", "persona": "keeper"},
             {"record": "node", "speaker": 0, "opens_turn": True, "text": "Who is there?"},
             {"record": "node", "speaker": 1, "opens_turn": True, "text": "Only the sea."},
             {"record": "node", "parent": 1, "speaker": 1, "opens_turn": True, "text": "Nobody."},
             {"record": "end", "nodes": 3}]
    session = import_file(client, joined(items)).id
    nodes = nodes_of(client, session)
    assert [node.text.strip() for node in nodes] == [b"Who is there?", b"Only the sea.", b"Nobody."]
    assert [node.ordinal for node in nodes] == [0, 0, 1]
    assert all(node.origin == 3 for node in nodes)
    assert client.generate(session, position=position(nodes[2].id), max_tokens=5).replies()
    # As if it had been appended.
    plain = client.open(b"keeper", user_name=b"Ann", no_greeting=True)
    client.append(plain, b"Who is there?")
    walked = nodes_of(client, plain)
    assert list(walked[0].content) == list(nodes[0].content)


def refused(client, data, code="BAD_INPUT", **fields):
    with pytest.raises(Refused) as error:
        import_file(client, data, **fields)
    assert error.value.code == CODES[code], error.value
    return error.value.text


def sampled_node(items):
    """The first one that has its own context: where it stands among the nodes."""
    nodes = [item for item in items if item["record"] == "node"]
    at = next(at for at, item in enumerate(nodes) if isinstance(item.get("context"), dict))
    return at, nodes[at]


def wrong_files(items):
    """A good file with one field wrong."""
    sampled, node = sampled_node(items)

    def changed(kind, number=0, **fields):
        copy = json.loads(json.dumps(items))
        [item for item in copy if item["record"] == kind][number].update(fields)
        return joined(copy)

    def context(**fields):
        return changed("node", sampled, context={**node["context"], **fields})

    return [
        changed("session", format="loom"),
        changed("session", version=2),
        changed("session", seed=5),
        changed("session", seed="-1"),
        changed("session", model="ab"),
        changed("session", context_tokens=-4),
        changed("member", 1, card="{}"),
        changed("member", 0, name=""),
        changed("member", 0, name="a\nb"),
        changed("member", 1, prompt={"ids": 5}),
        changed("node", 1, node=7),
        changed("node", 1, parent=9),
        changed("node", 1, speaker=2),
        changed("node", 0, text="else"),
        changed("node", 0, content=[2 ** 31]),
        changed("node", 1, offset=10 ** 6),
        changed("node", 2, ordinal=0, parent=0, offset=0),
        changed("node", 1, finish="none"),
        changed("node", sampled, kept=10 ** 6),
        changed("node", sampled, room=3),
        changed("node", sampled, sampled=10 ** 6),
        changed("node", sampled, steps={"sampler": "AAAA", "cues": ""}),
        changed("node", sampled, steps=99),
        changed("node", sampled, context=99),
        context(tokens=3),
        context(member=0),
        context(segments=[["node", 99]]),
        context(segments=[["frame", "x"]]),
        context(base=1, base_count=9),
        changed("tokens", 0, tokens=[]),
        changed("tokens", 0, logprobs=[0.5]),
        changed("tokens", 0, text="else"),
        changed("tokens", 0, node=1),
        changed("tokens", 0, text_ends=[10 ** 9] * 20),
        changed("end", nodes=1),
        changed("bookmark", 0, name=""),
        changed("bookmark", 0, node=10 ** 6),
        changed("bookmark", 0, offset=10 ** 6),
    ]


def test_hostile_files_are_refused_and_leave_nothing(client):
    data = export(client, grown(client))
    before = client.call("session_list", count=1000).session_list
    personas = client.call("persona_list").persona_list
    assert "the file is cut off" in refused(client, data[:-20].rsplit(b"\n", 1)[0] + b"\n")
    assert "not valid JSON" in refused(client, data[:len(data) // 2] + b"}}\n")
    assert "line 1" in refused(client, b"[1]\n")
    for number, broken in enumerate(wrong_files(records(data))):
        with pytest.raises(Refused) as error:
            import_file(client, broken)
        assert error.value.code in (CODES["BAD_INPUT"], CODES["LIMIT"]), (number, error.value)
    with pytest.raises(Refused) as error:
        import_file(client, b"x" * (9 << 20), piece=1 << 20)
    assert error.value.limit_name == "IMPORT_LINE_BYTES_MAX"
    with pytest.raises(Refused) as error:
        import_file(client, b"x" * (2 << 20), piece=2 << 20)
    assert error.value.limit_name == "IMPORT_PIECE_BYTES_MAX"
    assert client.call("session_list", count=1000).session_list == before
    assert client.call("persona_list").persona_list == personas


def test_refused_files_leave_the_sessions_that_have_their_prompts(start):
    """A file's prompts are those of sessions that are there, and a refused file lets go of them."""
    daemon = start()
    with daemon.client() as client:
        session = grown(client)
        for broken in wrong_files(records(export(client, session))):
            with pytest.raises(Refused):
                import_file(client, broken)
        client.generate(session, max_tokens=5)
        data = export(client, session)
    daemon.kill(9)
    daemon.wait()
    with start().client() as client:
        assert export(client, session) == data


def test_a_prompt_that_plays_otherwise_is_another_one(client):
    data = export(client, client.open(b"keeper", seed=1))
    items = records(data)
    prompt = items[2]["prompt"]
    prompt.update(format="transcript" if prompt["format"] != "transcript" else "chatml")
    made = import_file(client, joined(items)).id
    assert records(export(client, made)) == items
    assert export(client, client.open(b"keeper", seed=1)).split(b"\n")[2] == data.split(b"\n")[2]


def test_random_damage_never_harms_the_daemon(client):
    data = export(client, grown(client))
    random_of = random.Random(5)
    taken = 0
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(random_of.choice((1, 1, 2, 8))):
            broken[random_of.randrange(len(broken))] = random_of.choice(b"0123456789,[]{}\"x")
        try:
            made = import_file(client, bytes(broken), piece=random_of.choice((7777, 1 << 20))).id
        except Refused as error:
            assert error.code in (CODES["BAD_INPUT"], CODES["LIMIT"], CODES["NOT_FOUND"],
                                  CODES["UNSUPPORTED"]), error
            continue
        taken += 1
        nodes_of(client, made)
        verify(client, session=made)
        export(client, made)
        client.call("session_delete", session=made)
        client.call("session_delete", session=made, purge=True)
    assert taken < 150


def test_transfers_are_bounded_and_belong_to_their_connection(daemon, client):
    session = grown(client)
    client.call("session_export", session=session)
    begun = [client.call("session_import", data=b"\n").session_import.transfer for _ in range(7)]
    with pytest.raises(Refused) as error:
        for _ in range(2):  # the export may be over with its first page
            client.call("session_import", data=b"\n")
    assert error.value.limit_name == "TRANSFER_PER_USER_COUNT_MAX"
    with daemon.client() as other:
        for op in ("session_import", "session_export"):
            with pytest.raises(Refused) as error:
                other.call(op, transfer=begun[0])
            assert error.value.code == CODES["NOT_FOUND"]
    with pytest.raises(Refused):
        client.call("session_import", transfer=begun[0], data=b"x\n")
    with pytest.raises(Refused) as error:
        client.call("session_import", transfer=begun[0], data=b"\n")
    assert error.value.code == CODES["NOT_FOUND"]


def test_transfers_of_a_connection_that_went_make_room(daemon):
    for _ in range(3):
        with daemon.client() as client:
            for _ in range(8):
                client.call("session_import", data=b"\n")


def test_tokens_of_others_come_while_a_large_file_is_made(daemon, client):
    """The file is refused with its last check, so that all of the wait is for its making."""
    count = 40000
    head = [{"record": "session", "format": "personad", "version": 1},
            {"record": "member", "name": "Ann"},
            {"record": "member", "name": "plain", "persona": "plain"}]
    nodes = [{"record": "node", "opens_turn": True, "text": f"word {number}"}
             for number in range(count - 1)]
    wrong = {"record": "node", "content": [2 ** 31 - 1], "text": "x"}
    data = joined(head + nodes + [wrong, {"record": "end", "nodes": count}])
    pieces = [data[at:at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
    with daemon.client() as other:
        session = other.open(seed=4)
        other.append(session, b"Once")
        stream = other.send_generate(session, max_tokens=4000, ignore_end=True)
        other.next_of(stream)
        transfer = 0
        for piece in pieces[:-1]:
            more = {"transfer": transfer} if transfer else {}
            transfer = client.call("session_import", data=piece, **more).session_import.transfer
        began = time.monotonic()
        last = client.send("session_import", transfer=transfer, data=pieces[-1], end=True)
        came = []
        while not select.select([client.socket], [], [], 0)[0]:
            if select.select([other.socket], [], [], 0.01)[0]:
                other.waiting.setdefault(stream, []).append(other.read_reply())
                came.append(time.monotonic())
        ended = time.monotonic()
        error = client.next_of(last).error
        assert error.code == CODES["BAD_INPUT"] and "the file makes no tree" in error.text.decode()
        third = (ended - began) / 3
        assert sum(began + third < moment < ended - third for moment in came) > 3, \
            (ended - began, len(came))
        other.call("cancel", nodes=[nodes_of(other, session)[-1].id])


def test_what_is_not_there_or_deleted_is_not_exported(client):
    session = grown(client)
    client.call("session_delete", session=session)
    for gone in (session, 10 ** 12):
        with pytest.raises(Refused) as error:
            export(client, gone)
        assert error.value.code == CODES["NOT_FOUND"]


def test_a_client_key_gets_the_session_again(client):
    data = export(client, grown(client))

    def put():
        return client.call("session_import", data=data, end=True,
                           client_key=b"once").session_import.session.id
    assert put() == put()


def test_an_import_that_a_kill_cut_leaves_nothing(start):
    """As if the daemon had died between two slices: a session that is marked is erased."""
    daemon = start()
    with daemon.client() as client:
        session = import_file(client, export(client, grown(client))).id
    daemon.end()
    path = os.path.join(daemon.folder, "data", "journal.db")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE note SET flags = 3, label = ? WHERE kind = 1 AND id = ?",
                         (b"importing", session))
    database.close()
    daemon = start()
    with daemon.client() as client:
        assert session not in [one.id for one in
                               client.call("session_list").session_list.sessions]
    daemon.end()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM chunk WHERE key / 65536 IN (SELECT id FROM "
                                "node WHERE session_id = ?)", (session,)).fetchone()[0] == 0
        assert database.execute("SELECT sum(length(text)) FROM given WHERE node_id IN (SELECT id "
                                "FROM node WHERE session_id = ?)", (session,)).fetchone()[0] == 0
    database.close()


def test_floats_and_bytes_keep_their_bits(client):
    session = client.open(b"plain", seed=3)
    client.append(session, b"Once")
    node = client.generate(session, max_tokens=200, temperature=5.0, ignore_end=True, top_count=32,
                           numbers=True).replies()[0]
    items = records(export(client, session))
    text = b"".join(base64.b64decode(item["text"]["base64"]) if isinstance(item["text"], dict)
                    else item["text"].encode() for item in items if item["record"] == "tokens")
    assert text.startswith(node.text)
    made = import_file(client, joined(items)).id
    assert bits(nodes_of(client, made)[-1].numbers) == bits(node.numbers)


# ---- the command line


def test_the_commands_write_and_read_files(daemon, client, folder):
    session = grown(client)
    path = os.path.join(folder, "file.jsonl")
    persona(daemon, "export", str(session), "--output", path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, "rb") as file:
        data = file.read()
    assert data == export(client, session)
    assert persona(daemon, "export", str(session)).encode() == data
    persona(daemon, "export", str(session), "--output", path, status=1)
    told = json.loads(persona(daemon, "import", "--json", path))
    assert export(client, told["session"]) == data
    assert persona(daemon, "import", "-", text=data.decode()).startswith("session ")
    words = os.path.join(folder, "words.txt")
    persona(daemon, "export", str(session), "--format", "text", "--output", words)
    with open(words, "rb") as file:
        told = file.read()
    assert told.startswith(b"Marta: Come in")
    assert "\nUser: Wer da? \u00e9\nMarta: ".encode() in told
    persona(daemon, "export", status=2)
    persona(daemon, "export", str(session), "--format", "loom", status=2)
    persona(daemon, "import", os.path.join(folder, "none"), status=1)


def test_a_chat_of_sillytavern_comes_in_and_goes_out(daemon, client, folder):
    chat = [{"user_name": "Ann", "character_name": "Marta", "chat_metadata": {}},
            {"name": "Marta", "is_user": False, "mes": "The lamp is lit.", "swipe_id": 1,
             "swipes": ["Nobody came.", "The lamp is lit.", "Rain."]},
            {"name": "Ann", "is_user": True, "mes": "Good \u00e9vening"},
            {"name": "note", "is_user": False, "is_system": True, "mes": "hidden"},
            {"name": "Marta", "is_user": False, "mes": "Sit down."}]
    path = os.path.join(folder, "chat.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in chat)
    told = json.loads(persona(daemon, "import", "--json", "--format", "sillytavern", "--persona",
                              "keeper", path))
    nodes = nodes_of(client, told["session"])
    assert [(node.text.decode().strip(), node.ordinal, node.speaker) for node in nodes] == [
        ("Nobody came.", 0, 1), ("The lamp is lit.", 1, 1), ("Good \u00e9vening", 0, 0),
        ("Sit down.", 0, 1), ("Rain.", 2, 1)]
    assert nodes[2].parent.node == nodes[1].id
    assert client.generate(told["session"], max_tokens=3).replies()
    out = persona(daemon, "export", "--format", "sillytavern", "--node", str(nodes[3].id),
                  str(told["session"]))
    back = [json.loads(line) for line in out.splitlines()]
    assert back[0]["user_name"] == "Ann" and back[0]["character_name"] == "Marta"
    assert [line["mes"].strip() for line in back[1:]] == \
        ["The lamp is lit.", "Good \u00e9vening", "Sit down."]
    assert back[1]["swipe_id"] == 1
    assert [text.strip() for text in back[1]["swipes"]] == chat[1]["swipes"]
    for broken in ("", "[]\n", "{\n", '{"a":1,"a":2}\n'):
        persona(daemon, "import", "--format", "sillytavern", "-", text=broken, status=1)
    made = subprocess.run([program(), "import", "--format", "sillytavern", path], check=False,
                          capture_output=True, env=environment(PERSONAD_SOCKET=daemon.socket))
    assert made.returncode == 1 and b'no persona "Marta"' in made.stderr
    assert b"--persona NAME says who plays" in made.stderr


@pytest.mark.parametrize("mode", [SEPARATE, JOINT])
def test_a_group_comes_back_and_goes_on(client, mode):
    session = open_group(client, seed=1, group_mode=mode).id
    converse(client, session)
    client.call("session_set", session=session,
                add=[MESSAGES["CastEntry"](persona_name=b"keeper")])
    client.generate(session, speaker=1, max_tokens=4)
    data = export(client, session)
    assert data.count(b'"record":"joint"') == (2 if mode == JOINT else 0)
    made = import_file(client, data)
    assert made.group_mode == mode
    assert export(client, made.id) == data
    result, nodes = verify(client, session=made.id)
    assert not nodes and result.equal_count == result.node_count > 3
    went_on = [client.generate(each, speaker=1, position=position(nodes_of(client, each)[-1].id),
                               max_tokens=9, numbers=True).replies()[0]
               for each in (session, made.id)]
    assert bits(went_on[0].numbers) == bits(went_on[1].numbers)
    joint = data.replace(b'"joint":true,', b"")
    if joint != data:
        refused(client, joint)
