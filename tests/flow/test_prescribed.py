"""Goal: replies whose bytes are prescribed, and siblings that begin differently, through a real
socket; and that they are as exact as any other: alone and among strangers, before and after a
restart, one by one and in a batch.
Method: numbers are compared bit by bit. Each comparison has a twin whose cause was changed on
purpose and that must come out different.
"""
import contextlib
import os
import signal
import sqlite3

import pytest

from client import CODES, FINISHES, NODE, PATH, Refused, bits, position
from conftest import until_in_the_middle, wait_until, count_of
from test_look import verify


def text_of(client, session, node):
    walk = client.call("walk", session=session, position=position(node), what=NODE, text=True,
                       content=True).walk
    return walk.nodes[0].text, list(walk.nodes[0].content)


def choose(client, seed=1, n=1, choices=(b"yes", b"no", b"yes, but no", b"\xc3\xa4"), **fields):
    session = client.open(seed=seed)
    client.append(session, b"Are you sure? ")
    return client.generate(session, n=n, choices=list(choices), numbers=True, temperature=4.0,
                           **fields).replies()


def test_a_reply_is_one_of_the_choices(client):
    choices = [b"yes", b"no", b"yes, but no", b"\xc3\xa4", b"never in my life"]
    found = choose(client, n=64, choices=choices, top_k=0, top_p=1.0, min_p=0.0)
    assert {node.text for node in found} <= set(choices)
    assert len({node.text for node in found}) > 2
    assert all(node.finish == FINISHES["END"] for node in found)
    # A choice that goes on in another one ends by an end token, the others by themselves.
    whole = [node for node in found if node.text == b"no"]
    assert all(len(node.numbers.tokens) == node.content_tokens for node in whole)


def test_choices_are_refused_where_they_cannot_be(client):
    for choices, code in (([b""], "BAD_INPUT"), ([b"\xff"], "BAD_INPUT"),
                          ([b"x" * 4097], "LIMIT"), ([b"x"] * 1025, "LIMIT")):
        with pytest.raises(Refused) as error:
            choose(client, choices=choices)
        assert error.value.code == CODES[code]


def heal(client, seed=3, at_byte=6, n=1, **fields):
    """A fork inside the token that shows byte `at_byte` of a given text."""
    session = client.open(seed=seed)
    given = client.append(session, b"The quick brown fox").id
    made = client.generate(session, position=position(given), continuing=True, at_byte=at_byte,
                           n=n, max_tokens=8, ignore_end=True, numbers=True, temperature=2.0,
                           **fields)
    return session, given, made.replies()


@pytest.mark.parametrize("at_byte", range(0, 20))
def test_a_fork_at_any_byte_keeps_the_bytes_before_it(client, at_byte):
    session, given, replies = heal(client, at_byte=at_byte, n=8)
    text, ids = text_of(client, session, given)
    for node in replies:
        kept = client.call("detokenize", tokens=ids[:node.parent.offset]).detokenize.text
        assert len(kept) <= at_byte
        assert (kept + node.text).startswith(text[:at_byte])
        # The boundary is the last one: the next token would have gone past it.
        if node.parent.offset < len(ids):
            more = client.call("detokenize", tokens=ids[:node.parent.offset + 1]).detokenize.text
            assert len(more) > at_byte


def test_forks_inside_a_token_are_refused_where_they_mean_nothing(client):
    session = client.open()
    given = client.append(session, b"abc").id
    for fields in ({"at_byte": 1}, {"at_byte": 4, "continuing": True},
                   {"at_byte": 1, "continuing": True, "prefix": b"x"}):
        with pytest.raises(Refused) as error:
            client.generate(session, position=position(given), **fields)
        assert error.value.code == CODES["BAD_INPUT"]


# ---- given text at a byte

@pytest.mark.parametrize("text", [b"The quick brown fox", "gr\u00fcn \U0001f408 blau".encode()])
def test_text_at_any_byte_stands_behind_the_bytes_before_it(client, text):
    session = client.open()
    given = client.append(session, text).id
    _, ids = text_of(client, session, given)
    for at_byte in range(len(text) + 1):
        made = client.append(session, b"X\xc3\xa4", position=position(given), continuing=True,
                             at_byte=at_byte)
        path = client.call("walk", session=session, position=position(made.id), what=PATH,
                           text=True).walk.nodes
        kept = client.call("detokenize", tokens=ids[:made.parent.offset]).detokenize.text
        assert kept + path[-1].text == text[:at_byte] + b"X\xc3\xa4"
        assert not made.opens_turn and made.parent.node == given
        if made.parent.offset < len(ids):  # the boundary is the last one before
            more = client.call("detokenize", tokens=ids[:made.parent.offset + 1]).detokenize.text
            assert len(more) > at_byte
    # Where the byte is a boundary it is the append that one knows.
    at_byte = len(client.call("detokenize", tokens=ids[:2]).detokenize.text)
    plain = client.append(session, b" and", position=position(given, 2), continuing=True).id
    there = client.append(session, b" and", position=position(given), continuing=True,
                          at_byte=at_byte).id
    assert text_of(client, session, there) == text_of(client, session, plain)


def test_text_at_a_byte_is_refused_where_it_means_nothing(client):
    session = client.open()
    given = client.append(session, b"abc").id
    for fields in ({"at_byte": 1}, {"at_byte": 4, "continuing": True},
                   {"at_byte": 1, "continuing": True, "special": True},
                   {"at_byte": 1, "continuing": True, "text": b""}):
        with pytest.raises(Refused) as error:
            client.append(session, position=position(given), **{"text": b"x", **fields})
        assert error.value.code == CODES["BAD_INPUT"]


# ---- distinct siblings

def first_tokens(client, n, distinct_first, seed=2, **fields):
    session = client.open(seed=seed)
    client.append(session, b"Pick a word: ")
    made = client.generate(session, n=n, distinct_first=distinct_first, max_tokens=3,
                           ignore_end=True, numbers=True, **fields).replies()
    return [node.numbers.tokens[0] for node in made], made


def test_distinct_siblings_begin_differently(client):
    tokens, _ = first_tokens(client, 40, True, top_k=40, top_p=1.0, min_p=0.0)
    assert len(set(tokens)) == 40
    # The twin: without it they meet.
    tokens, _ = first_tokens(client, 40, False, top_k=40, top_p=1.0, min_p=0.0)
    assert len(set(tokens)) < 40
    # With fewer tokens than siblings the drawing starts over once all are drawn.
    tokens, _ = first_tokens(client, 25, True, top_k=10, top_p=1.0, min_p=0.0)
    assert len(set(tokens[:10])) == len(set(tokens[10:20])) == 10 and len(set(tokens)) == 10


def test_a_distinct_sibling_is_computed_alone_as_in_its_group(client):
    """raw_seed and the first k siblings are all that decides sibling k."""
    many = first_tokens(client, 12, True, raw_seed=77)[1]
    few = first_tokens(client, 5, True, raw_seed=77)[1]
    assert [bits(node.numbers) for node in few] == [bits(node.numbers) for node in many[:5]]
    other = first_tokens(client, 5, True, raw_seed=78)[1]
    assert [bits(node.numbers) for node in other] != [bits(node.numbers) for node in few]


def everything(client, seed=9):
    """All three kinds, as bits."""
    found = [bits(node.numbers) for node in choose(client, seed=seed, n=3)]
    found += [bits(node.numbers) for node in heal(client, seed=seed, n=3)[2]]
    found += [bits(node.numbers) for node in first_tokens(client, 6, True, seed=seed)[1]]
    return found


def test_strangers_change_no_bit(client, daemon):
    alone = everything(client)
    with daemon.client() as crowd:
        session = crowd.open(seed=1)
        crowd.append(session, b"A crowd that talks on and on")
        request = crowd.send_generate(session, n=24, max_tokens=400, ignore_end=True)
        nodes = [node.id for node in crowd.next_of(request).created.nodes]
        wait_until(lambda: count_of(daemon, "branch_running_count") > 8)
        among = everything(client)
        crowd.call("cancel", nodes=nodes)
        crowd.finish(request)
    assert among == alone
    assert everything(client, seed=10) != alone  # the twin


LONG_CHOICES = [b"once upon a time " * 150 + tail for tail in (b"a", b"b", b"ab")]


def is_unfinished(daemon, node):
    path = os.path.join(daemon.folder, "data", "journal.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        return journal.execute("SELECT finish FROM node WHERE id = ?", (node,)).fetchone() == (0,)


def killed_in_the_middle(start):
    """A daemon that was killed while it generated one of the choices; the node, and the same reply
    as it is without a kill."""
    return until_in_the_middle(lambda _: killed(start))


def killed(start):
    daemon = start()
    with daemon.client() as client:
        session = client.open(seed=4)
        client.append(session, b"Tell: ")
        whole = client.generate(session, choices=LONG_CHOICES, max_tokens=3800,
                                numbers=True).replies()[0]
        again = client.open(seed=4)
        client.append(again, b"Tell: ")
        request = client.send_generate(again, choices=LONG_CHOICES, max_tokens=3800, numbers=True)
        node = client.next_of(request).created.nodes[0].id
        client.next_of(request)
        daemon.kill(signal.SIGKILL)
        daemon.wait()
    assert whole.text in LONG_CHOICES
    return (daemon, node, whole) if is_unfinished(daemon, node) else None


def ended(start, node):
    daemon = start()
    with daemon.client() as client:
        made = client.finish(client.send("follow", node=node, numbers=True)).finished[node].node
    assert "1 of 1 unfinished replies go on" in daemon.log(), "it was not in the middle"
    return made


def test_a_kill_in_the_middle_changes_no_byte(start):
    """A prescribed reply that was interrupted goes on under the same mask, and the next ordinal of
    a distinct group draws what it would have drawn."""
    _, node, whole = killed_in_the_middle(start)
    after = ended(start, node)
    assert after.text == whole.text and bits(after.numbers) == bits(whole.numbers)


def test_twin_choices_that_changed_while_it_was_dead_are_noticed(start):
    """The choices are read back from the journal, and nothing else decides the rest of the reply:
    other last letters there, another reply."""
    daemon, node, whole = killed_in_the_middle(start)
    with contextlib.closing(sqlite3.connect(os.path.join(daemon.folder, "data",
                                                         "journal.db"))) as journal:
        for digest, sampler in journal.execute("SELECT digest, sampler FROM steps").fetchall():
            bent = sampler.replace(b"time a", b"time c").replace(b"time b", b"time d")
            journal.execute("UPDATE steps SET sampler = ? WHERE digest = ?", (bent, digest))
        journal.commit()
    after = ended(start, node)
    assert after.text != whole.text and after.text not in LONG_CHOICES
    assert after.text[:600] == whole.text[:600]


def verified(client):
    """(equal, all) of everything that is stored."""
    request = client.send("verify", all=True)
    while True:
        reply = client.next_of(request)
        if not reply.more:
            return reply.verify.equal_count, reply.verify.node_count


def test_all_of_them_verify_after_a_restart(start):
    """What is stored with each node is all that decides it."""
    daemon = start()
    with daemon.client() as client:
        everything(client)
        assert verified(client) == (12, 12)
    daemon.end()
    with start().client() as client:
        assert verified(client) == (12, 12)


# ---- computed again

@pytest.mark.parametrize("kind", ["choices", "at_byte", "distinct"])
def test_verify_holds_them_to_the_same_bytes(client, kind):
    replies = {"choices": lambda: choose(client, n=5, top_count=4),
               "at_byte": lambda: heal(client, n=5, top_count=4)[2],
               "distinct": lambda: first_tokens(client, 5, True, top_count=4)[1]}[kind]()
    last, told = verify(client, session=replies[0].session)
    assert (last.node_count, last.equal_count, len(told)) == (5, 5, 0)


@pytest.mark.parametrize("kind, stored, other", [
    ("choices", b"yes, but no", b"yes, but so"),
    ("at_byte", b"uick", b"uack"),
    ("distinct", (77).to_bytes(8, "little"), (78).to_bytes(8, "little"))])
def test_twin_what_is_prescribed_was_changed_on_disk(start, kind, stored, other):
    """Verify takes the mask from what is stored: under another one the numbers differ."""
    daemon = start()
    with daemon.client() as client:
        if kind == "choices":
            session = choose(client, choices=[b"yes, but no"])[0].session
        elif kind == "at_byte":
            session = client.open(seed=3)
            # One token for all of it, so that a fork inside has much to write again.
            given = client.append(session, b"q").id
            given = client.append(session, b"uick brown", position=position(given),
                                  continuing=True).id
            text, ids = text_of(client, session, given)
            sizes = [len(client.call("detokenize", tokens=[one]).detokenize.text) for one in ids]
            at = next((i for i, size in enumerate(sizes) if size > 1), 0)
            stored = text[sum(sizes[:at]):sum(sizes[:at + 1]) - 1]
            other = bytes([stored[0] ^ 1]) + stored[1:]
            client.generate(session, position=position(given), continuing=True, max_tokens=4,
                            at_byte=sum(sizes[:at + 1]) - 1, numbers=True, ignore_end=True)
        else:
            session = first_tokens(client, 3, True, raw_seed=77)[1][0].session
        last, _ = verify(client, session=session)
        assert last.equal_count == last.node_count
    daemon.kill()
    daemon.wait()
    changed = 0
    with sqlite3.connect(os.path.join(daemon.folder, "data", "journal.db")) as database:
        for digest, sampler in database.execute("SELECT digest, sampler FROM steps").fetchall():
            broken = sampler.replace(stored, other)
            changed += broken != sampler
            database.execute("UPDATE steps SET sampler = ? WHERE digest = ?", (broken, digest))
    database.close()
    assert changed > 0
    with start().client() as client:
        last, told = verify(client, session=session)
        assert last.different_count > 0 and last.failed_count == 0
        assert {one.number for one in told} <= {1, 3}, "the draw, or what the sampler gave it"
