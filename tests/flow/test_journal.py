"""Goal: what was acknowledged is there after the daemon stops or is killed, bit for bit, and what
was not finished goes on to the end that it would have had.
Method: daemons one after another over one data folder, ended by SIGTERM or by SIGKILL, on the same
and on another model; what they answer is compared.
"""
import signal

import pytest

from client import CODES, FINISHES, FINAL_ONLY, NO_FOLLOW, NODE, SUBTREE, Refused, bits, position
from conftest import tiny_model, wait_until


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


def unfinished(client, **fields):
    """A long reply of which some has been seen."""
    session = client.open(seed=77)
    client.append(session, b"Once upon a time")
    request = client.send_generate(session, max_tokens=1200, ignore_end=True, **fields)
    made = client.next_of(request).created.nodes[0]
    seen = b""
    while len(seen) < 700:
        seen += client.next_of(request).tokens.text
    return session, made.id, seen


def followed(client, node):
    request = client.send("follow", node=node, delivery=FINAL_ONLY, numbers=True)
    return client.finish(request).finished[node].node


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_unfinished_reply_goes_on_and_ends_with_the_same_bytes(start, number):
    daemon = start()
    client = daemon.client()
    session, node, seen = unfinished(client)
    daemon.kill(number)
    daemon.wait()
    client.close()
    daemon = start()
    with daemon.client() as client:
        ended = followed(client, node)
        assert ended.finish == FINISHES["LENGTH"]
        assert ended.text.startswith(seen)
        fresh = client.open(seed=77)
        client.append(fresh, b"Once upon a time")
        whole = client.generate(fresh, max_tokens=1200, ignore_end=True, numbers=True).replies()[0]
    assert ended.text == whole.text
    assert bits(ended.numbers) == bits(whole.numbers)
    assert "1 of 1 unfinished replies go on" in daemon.log()


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
