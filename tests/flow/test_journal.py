"""Goal: what was acknowledged is there after the daemon stops or is killed, bit for bit, and what
was not finished goes on to the end that it would have had.
Method: daemons one after another over one data folder, ended by SIGTERM or by SIGKILL, on the same
and on another model; what they answer is compared.
"""
import os
import resource
import signal
import stat

import pytest

from client import CODES, FINISHES, FINAL_ONLY, NO_FOLLOW, NODE, SUBTREE, Refused, bits, position
from conftest import tiny_model, until_in_the_middle, wait_until


def everything(client, session):
    """All that can be seen of a session."""
    nodes = client.call("walk", session=session, what=SUBTREE, position=position(0), text=True,
                        content=True, numbers=True, count=1000).walk.nodes
    head = client.call("head", session=session).head.position
    return [node.SerializeToString() for node in nodes], (head.node, head.offset), list(nodes)


def sessions(client):
    return [item.SerializeToString()
            for item in client.call("session_list", count=100).session_list.sessions]


def grow(client):
    """A session with given and sampled nodes, siblings, a fork in a node, a prefix, a greeting."""
    session = client.open(b"keeper", seed=11, label=b"a label")
    first = client.finish(client.send_generate(session, op="say", text="Wer da? \u00e9".encode(),
                                               n=3, max_tokens=20, top_count=3)).replies()
    client.generate(session, position=position(first[1].id, 4), n=2, max_tokens=9)
    client.generate(session, position=position(first[0].id), continuing=True, max_tokens=5)
    client.generate(session, position=position(0), prefix=b"Once", max_tokens=150,
                    temperature=2.0, stop=[b"q"])
    client.append(session, b"and more", speaker=0)
    return session


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_forgets_nothing(start, number):
    daemon = start()
    with daemon.client() as client:
        session = grow(client)
        plain = client.open(no_greeting=True)
        client.call("head", session=session, position=position(0))
        client.append(plain, b"no head")
        before = everything(client, session), everything(client, plain), sessions(client)
        personas = client.call("persona_list", count=100).persona_list
    daemon.kill(number)
    daemon.wait()
    with start().client() as client:
        assert (everything(client, session), everything(client, plain), sessions(client)) == before
        assert client.call("persona_list", count=100).persona_list == personas
        # Ids and ordinals go on where they were.
        last = max(node.id for node in before[0][2])
        assert client.append(session, b"more").id > last


def test_a_card_that_was_edited_is_played_as_it_is_now(start, folder):
    """And as it was before, once the edit is taken back; the first file of the folder stays the
    persona of sessions that name none."""
    cards = os.path.join(folder, "cards")
    os.mkdir(cards)

    def greeting(words):
        for name, text in ("adam", words), ("eve", "I am Eve."):
            with open(os.path.join(cards, name + ".json"), "w", encoding="utf-8") as file:
                file.write(f'{{"name": "{name}", "first_mes": "{text}"}}')
        daemon = start("--personas", cards)
        with daemon.client() as client:
            opened = client.open(b""), client.open(b"adam")
            texts = {everything(client, session)[2][0].text for session in opened}
        daemon.end()
        return texts

    assert greeting("Hello.") == {b"Hello."}
    assert greeting("Good day.") == {b"Good day."}
    assert greeting("Hello.") == {b"Hello."}


def test_what_is_computed_after_a_restart_is_what_it_would_have_been(start):
    """The context is built on loaded nodes; its bits and the seed must not show it."""
    daemon = start()
    with daemon.client() as client:
        one, two = grow(client), grow(client)
        expected = client.finish(client.send_generate(one, op="say", text=b"Go on.", max_tokens=30,
                                                      numbers=True, seed=5, context=True))
    daemon.end()
    with start().client() as client:
        made = client.finish(client.send_generate(two, op="say", text=b"Go on.", max_tokens=30,
                                                  numbers=True, seed=5, context=True))
    assert made.context == expected.context
    assert made.replies()[0].seed == expected.replies()[0].seed
    assert bits(made.replies()[0].numbers) == bits(expected.replies()[0].numbers)


def unfinished(client, seed=77, **fields):
    """A long reply of which some has been seen."""
    session = client.open(seed=seed)
    client.append(session, b"Once upon a time")
    request = client.send_generate(session, max_tokens=900, ignore_end=True, n=8, **fields)
    made = client.next_of(request).created.nodes[0]
    seen = b""
    while len(seen) < 450:
        reply = client.next_of(request).tokens
        seen += reply.text if reply.node == made.id else b""
    return session, made.id, seen


def followed(client, node):
    request = client.send("follow", node=node, delivery=FINAL_ONLY, numbers=True)
    return client.finish(request).finished[node].node


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_unfinished_reply_goes_on_and_ends_with_the_same_bytes(start, number):
    def killed(seed):
        daemon = start()
        client = daemon.client()
        _, node, seen = unfinished(client, seed)
        before = daemon.log().count("8 of 8 unfinished replies go on")
        daemon.kill(number)
        daemon.wait()
        client.close()
        daemon = start()
        if daemon.log().count("8 of 8 unfinished replies go on") > before:
            return daemon, seed, node, seen
        daemon.end()
        return None

    daemon, seed, node, seen = until_in_the_middle(killed)
    with daemon.client() as client:
        ended = followed(client, node)
        assert ended.finish == FINISHES["LENGTH"]
        assert ended.text.startswith(seen)
        fresh = client.open(seed=seed)
        client.append(fresh, b"Once upon a time")
        whole = client.generate(fresh, max_tokens=900, ignore_end=True, numbers=True,
                                n=8).replies()[0]
    assert ended.text == whole.text
    assert bits(ended.numbers) == bits(whole.numbers)


def test_a_client_key_is_known_after_a_crash(start):
    daemon = start()
    with daemon.client() as client:
        opened = client.call("session_open", persona_name=b"keeper", client_key=b"o").session_open
        session = opened.session.id
        made = client.finish(client.send("say", session=session, text=b"Hello", client_key=b"k",
                                         delivery=FINAL_ONLY))
    daemon.kill(signal.SIGKILL)
    daemon.wait()
    with start().client() as client:
        again = client.call("session_open", persona_name=b"keeper", client_key=b"o").session_open
        assert again.session.id == session
        assert [node.id for node in again.greetings] == [node.id for node in opened.greetings]
        repeat = client.finish(client.send("say", session=session, text=b"Hello", client_key=b"k",
                                           delivery=FINAL_ONLY))
        assert [node.id for node in repeat.nodes] == [node.id for node in made.nodes]
        assert repeat.replies()[0].text == made.replies()[0].text
        count = len(everything(client, session)[0])
        client.finish(client.send("say", session=session, text=b"Hello", client_key=b"other",
                                  delivery=FINAL_ONLY))
        assert len(everything(client, session)[0]) == count + 2


def test_another_model_reads_what_is_there_and_adds_nothing(start):
    daemon = start()
    client = daemon.client()
    whole = grow(client)
    before = everything(client, whole)
    session, node, seen = unfinished(client, delivery=0)
    daemon.kill(signal.SIGKILL)
    daemon.wait()
    client.close()
    daemon = start(model=tiny_model("F16-bpe"))
    with daemon.client() as client:
        assert everything(client, whole) == before
        for op, fields in (("say", {"text": b"x"}), ("generate", {}),
                           ("append", {"text": b"x"})):
            with pytest.raises(Refused) as refused:
                client.call(op, session=whole, **fields)
            assert refused.value.code == CODES["CONFLICT"]
        cut = followed(client, node)
        assert cut.finish == FINISHES["INTERRUPTED"]
        assert cut.text and (seen.startswith(cut.text) or cut.text.startswith(seen))
        assert client.generate(client.open(), max_tokens=3).replies()
    daemon.end()
    # It has its end: the first model does not go on with it.
    daemon = start()
    with daemon.client() as client:
        assert followed(client, node).text == cut.text
        assert everything(client, whole) == before


def test_a_node_is_visible_from_its_number_alone(start):
    """A repeat finds what was made without being followed."""
    daemon = start()
    with daemon.client() as client:
        session = client.open()
        client.append(session, b"a")
        node = client.finish(client.send("generate", session=session,
                                         delivery=NO_FOLLOW)).nodes[0].id
        wait_until(lambda: client.call("walk", session=session, what=NODE, count=1,
                                       position=position(node)).walk.nodes[0].finish != 0)
    daemon.kill(signal.SIGKILL)
    daemon.wait()
    with start().client() as client:
        assert followed(client, node).id == node


def test_trees_come_and_go_under_a_memory_bound(start):
    """More trees than fit: each is read again when it is asked for, by its session or by a node."""
    daemon = start("--tree-memory", "1", "--log", "debug")
    with daemon.client() as client:
        made = []
        for number in range(12):
            session = client.open(b"keeper", seed=number)
            node = client.generate(session, max_tokens=40, numbers=True).replies()[0]
            client.append(session, f"{number} and so on. ".encode() * 8000)
            made.append((session, node.id, everything(client, session), bits(node.numbers)))
        wait_until(lambda: daemon.log().count("is left to the journal") > 3)
        listed = sessions(client)
        for session, node, before, numbers in made:
            again = followed(client, node)
            assert bits(again.numbers) == numbers
            assert everything(client, session) == before
        # Asked for all at once, on one connection and on many.
        requests = [client.send("walk", session=item[0], what=SUBTREE, position=position(0),
                                count=1000) for item in made]
        for request in requests:
            assert client.next_of(request).walk.nodes
        assert sessions(client) == listed
        # It is continued as it would have been.
        session, node = made[0][:2]
        ended = client.finish(client.send_generate(session, op="say", text=b"Go on.", max_tokens=9,
                                                   position=position(node),
                                                   numbers=True)).replies()[0]
        with pytest.raises(Refused) as refused:
            client.call("follow", node=10 ** 12)
        assert refused.value.code == CODES["NOT_FOUND"]
    daemon.end()
    with start("--tree-memory", "1").client() as client:
        assert bits(followed(client, ended.id).numbers) == bits(ended.numbers)
        assert everything(client, made[5][0]) == made[5][2]


def test_a_full_disk_leaves_reads_and_what_was_acknowledged(start):
    """The files may grow no further, as on a disk that is full: from then on it only reads."""
    daemon = start()
    with daemon.client() as client:
        session = grow(client)
        before = everything(client, session)
        size = max(os.path.getsize(os.path.join(daemon.folder, "data", name))
                   for name in os.listdir(os.path.join(daemon.folder, "data")))
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, size))
        acknowledged = []
        with pytest.raises(Refused) as refused:
            while True:
                acknowledged.append(client.append(session, b"more and more " * 400).id)
        assert refused.value.code == CODES["STORAGE"]
        for op, fields in (("generate", {"session": session}), ("session_open", {}),
                           ("head", {"session": session, "position": position(0)})):
            with pytest.raises(Refused) as refused:
                client.call(op, **fields)
            assert refused.value.code == CODES["STORAGE"]
        assert before[0][0] in everything(client, session)[0]
        assert followed(client, before[2][-1].id).text == before[2][-1].text
        assert sessions(client)
    assert "serves reads only" in daemon.log()
    daemon.end()
    with start().client() as client:
        nodes = everything(client, session)[2]
        there = {node.id: node.SerializeToString() for node in nodes}
        # All but the number of children is as it was.
        assert {node.id for node in before[2]} | set(acknowledged) <= set(there)
        assert client.append(session, b"room again").id not in there


def test_a_damaged_journal_is_refused_and_left_alone(start):
    daemon = start()
    with daemon.client() as client:
        grow(client)
    daemon.end()
    path = os.path.join(daemon.folder, "data", "journal.db")
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 4096 // 2 * 4096)
        file.write(b"\xff" * 4096)
    with open(path, "rb") as file:
        damaged = file.read()
    daemon = start(expect_ready=False)
    assert daemon.wait() == 1
    assert "journal.db: it is damaged" in daemon.log()
    with open(path, "rb") as file:
        assert file.read() == damaged
    os.unlink(path)
    with start().client() as client:
        assert sessions(client) == []


def test_a_backup_is_made_while_the_daemon_writes(start, folder):
    daemon = start()
    path = os.path.join(folder, "copy.db")
    with daemon.client() as client, daemon.client() as other:
        session = grow(client)
        for _ in range(20):
            client.append(session, b"much text " * 20000)
        before = everything(client, session)
        going = other.send_generate(other.open(), max_tokens=1500, ignore_end=True, n=4)
        client.call("backup", path=path.encode())
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert not os.path.exists(path + ".part")
        other.finish(going)
        for wrong, code in ((path, "CONFLICT"), (folder + "/none/x", "IO"), ("x.db", "BAD_INPUT"),
                            ("", "BAD_INPUT"), ("/a\0b", "BAD_INPUT"),
                            ("/" + "x" * 4000, "LIMIT")):
            with pytest.raises(Refused) as refused:
                client.call("backup", path=wrong.encode())
            assert refused.value.code == CODES[code]
            if code in ("CONFLICT", "IO"):
                assert wrong in refused.value.text and "cannot be written" in refused.value.text
    daemon.end()
    with open(path, "rb") as file:
        copy = file.read()
    data = os.path.join(folder, "data")
    for name in os.listdir(data):
        os.unlink(os.path.join(data, name))
    with open(os.path.join(data, "journal.db"), "wb") as file:
        file.write(copy)
    with start().client() as client:
        assert everything(client, session) == before
