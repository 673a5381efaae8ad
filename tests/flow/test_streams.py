"""Streams under stress: readers that stall, leave and come back, and cancels at every moment."""
import random
import threading

import pytest

from client import (CODES, FINAL_ONLY, FINISHES, NO_FOLLOW, NODE, Client, Generated, Refused, bits,
                    position)
from conftest import count_of, wait_until

pytestmark = pytest.mark.tsan


def begin(client, n=1, tokens=3000, seed=1, text=b"Begin", **fields):
    """A long generation; its request id and nodes, as soon as they exist."""
    session = client.open(seed=seed)
    client.append(session, text)
    fields.setdefault("delivery", 0)
    request = client.send_generate(session, n=n, max_tokens=tokens, ignore_end=True, **fields)
    created = client.next_of(request)
    assert created.WhichOneof("result") == "created", created
    return session, request, [node.id for node in created.created.nodes]


def drain(client, request, made=None):
    made = made or Generated()
    while True:
        reply = client.next_of(request)
        made.feed(reply)
        if not reply.more:
            return made


def test_tokens_come_before_the_end(client):
    _, request, (node,) = begin(client)
    first = client.next_of(request)
    assert first.WhichOneof("result") == "tokens", "it streamed"
    assert 0 < first.tokens.token_count < 3000
    client.call("cancel", nodes=[node])
    drain(client, request)


def test_leaving_in_mid_stream_does_not_stop_the_branch(daemon):
    with daemon.client() as leaver:
        _, request, (node,) = begin(leaver, tokens=600, seed=4, numbers=True)
        leaver.next_of(request)
    with daemon.client() as reader:
        made = reader.stream("follow", node=node, numbers=True)
        whole = made.finished[node].node
        assert whole.finish == FINISHES["LENGTH"] and whole.content_tokens == 600
        again = reader.complete(b"Begin", seed=4, max_tokens=600, ignore_end=True)
        assert bits(again.numbers) == bits(whole.numbers)


def test_a_reader_goes_on_where_it_stopped(daemon):
    with daemon.client() as first:
        _, request, (node,) = begin(first, tokens=800)
        part = Generated()
        while len(part.text.get(node, b"")) < 40:
            part.feed(first.next_of(request))
        have = part.text[node]
    with daemon.client() as second:
        rest = second.stream("follow", node=node, from_byte=len(have), from_token=0)
        assert have + rest.text[node] == rest.finished[node].node.text


def test_a_slow_reader_slows_nobody(daemon):
    """One client asks for far more than its socket holds and reads nothing; another one's stream
    ends meanwhile, the slow one's branches end too, and then it can read all of it."""
    with daemon.client() as slow, daemon.client() as quick:
        _, request, nodes = begin(slow, n=16, tokens=700, numbers=True, top_count=32, seed=2)
        node = quick.complete(b"Quick", max_tokens=50, ignore_end=True)
        assert node.content_tokens == 50
        for sibling in nodes:
            quick.stream("follow", node=sibling, delivery=FINAL_ONLY)
        made = drain(slow, request)
        assert len(made.finished) == 16
        for sibling in nodes:
            finished = made.finished[sibling].node
            assert made.text[sibling] == finished.text
            assert made.tokens[sibling] == list(finished.numbers.tokens)


def test_a_cancel_cuts_at_what_was_released(client):
    _, request, (node,) = begin(client, numbers=True)
    made = Generated()
    made.feed(client.next_of(request))
    done = client.call("cancel", nodes=[node])
    assert done.WhichOneof("result") == "done"
    drain(client, request, made)
    cut = made.finished[node].node
    assert cut.finish == FINISHES["CUT"]
    assert cut.text == made.text[node]
    assert 0 < cut.content_tokens < 3000
    walked = client.call("walk", session=cut.session, what=NODE, position=position(node),
                         text=True).walk.nodes[0]
    assert (walked.finish, walked.text) == (cut.finish, cut.text)


def test_a_cancel_by_request_ends_all_its_nodes(client):
    _, request, nodes = begin(client, n=6)
    client.call("cancel", request=request)
    made = drain(client, request)
    assert {made.finished[node].node.finish for node in nodes} == {FINISHES["CUT"]}


def test_a_cancel_right_behind_its_request_finds_it(client):
    """Both in one write: the nodes do not exist yet when the cancel is read."""
    session = client.open()
    client.append(session, b"At once")
    for delivery in (0, FINAL_ONLY, NO_FOLLOW):
        with client.one_write():
            request = client.send_generate(session, n=3, max_tokens=3000, ignore_end=True,
                                           delivery=delivery)
            cancel = client.send("cancel", request=request)
        made = drain(client, request)
        reply = client.next_of(cancel)
        assert reply.WhichOneof("result") == "done", reply
        for node in made.nodes:
            final = client.stream("follow", node=node.id, delivery=FINAL_ONLY)
            assert final.finished[node.id].node.finish == FINISHES["CUT"]


def test_a_cancel_of_a_repeat_whose_nodes_have_ended_is_answered_at_once(client):
    """The store answers, which ends the Cancel, before it is done with it: the sanitizers see who
    still reads it then."""
    session = client.open()
    client.append(session, b"Long ago")
    fields = {"n": 3, "max_tokens": 8, "ignore_end": True, "client_key": b"long ago"}
    ended = drain(client, client.send_generate(session, **fields))
    with client.one_write():
        request = client.send_generate(session, **fields)
        cancel = client.send("cancel", request=request)
    again = drain(client, request)
    assert client.next_of(cancel).WhichOneof("result") == "done"
    assert [node.id for node in again.nodes] == [node.id for node in ended.nodes]
    assert {end.node.finish for end in again.finished.values()} == {FINISHES["LENGTH"]}


def test_a_cancel_of_a_session_ends_its_branches(client):
    session, request, nodes = begin(client, n=3)
    client.call("cancel", session=session)
    made = drain(client, request)
    assert all(made.finished[node].node.finish == FINISHES["CUT"] for node in nodes)


def test_a_cancel_of_what_has_ended_is_done(client):
    session = client.open()
    client.append(session, b"Ended")
    made = client.generate(session, max_tokens=3)
    node = made.nodes[0].id
    before = client.call("walk", session=session, what=NODE, position=position(node)).walk
    assert client.call("cancel", nodes=[node]).WhichOneof("result") == "done"
    assert client.call("cancel", request=12345).WhichOneof("result") == "done"
    after = client.call("walk", session=session, what=NODE, position=position(node)).walk
    assert before.nodes[0].finish == after.nodes[0].finish


def test_a_cut_node_can_be_continued(client):
    _, request, (node,) = begin(client)
    client.next_of(request)
    client.call("cancel", nodes=[node])
    drain(client, request)
    session = client.stream("follow", node=node).finished[node].node.session
    made = client.generate(session, position=position(node), continuing=True, max_tokens=5,
                           ignore_end=True)
    assert made.replies()[0].content_tokens == 5


def test_a_storm_of_cancels_leaves_nothing_behind(daemon):
    draw = random.Random(3)

    def storm(seed):
        with daemon.client() as client:
            for round_index in range(6):
                _, request, nodes = begin(client, n=4, seed=seed * 10 + round_index,
                                          delivery=draw.choice([0, FINAL_ONLY]))
                for node in nodes:
                    client.send("cancel", nodes=[node])
                client.send("cancel", nodes=nodes)
                made = drain(client, request)
                assert all(made.finished[node].node.finish == FINISHES["CUT"] for node in nodes)

    run_all([lambda seed=seed: storm(seed) for seed in range(8)])
    wait_until(lambda: count_of(daemon, "branch_running_count") == 0)
    wait_until(lambda: count_of(daemon, "branch_waiting_count") == 0)


def test_clients_that_vanish_are_forgotten(daemon):
    before = count_of(daemon, "connection_count")
    for _ in range(30):
        client = Client(daemon.socket)
        _, request, nodes = begin(client, n=2, tokens=200)
        client.close()
    wait_until(lambda: count_of(daemon, "connection_count") <= before)


def test_replies_may_overtake_a_stream(client):
    _, request, _ = begin(client, tokens=1500)
    assert client.call("info").info.pid
    assert client.call("tokenize", text=b"meanwhile").tokenize.tokens
    drain(client, request)


def test_a_follow_of_another_session_s_node_works_for_its_owner(client):
    _, request, (node,) = begin(client, tokens=100)
    twice = [client.send("follow", node=node) for _ in range(4)]
    texts = {drain(client, follow).text[node] for follow in twice}
    texts.add(drain(client, request).text[node])
    assert len(texts) == 1


def test_a_stop_string_never_shows(client):
    session = client.open(seed=8)
    client.append(session, b"Stop")
    (free,) = client.generate(session, max_tokens=60, ignore_end=True, temperature=1.0).replies()
    text = free.text.decode(errors="ignore")
    word = text[len(text) // 2:len(text) // 2 + 3].encode()
    session = client.open(seed=8)
    client.append(session, b"Stop")
    made = client.generate(session, max_tokens=60, ignore_end=True, temperature=1.0, stop=[word])
    (node,) = made.replies()
    assert node.finish == FINISHES["CUE"]
    assert word not in node.text and word not in made.text.get(node.id, b"")
    assert free.text.startswith(node.text)


def test_credits_are_a_limit_and_a_cancel_still_passes(daemon):
    with daemon.client() as client:
        credits = client.hello.request_credits
        _, request, nodes = begin(client, tokens=3500)
        opened = [client.send("follow", node=nodes[0], delivery=FINAL_ONLY)
                  for _ in range(credits)]
        refused = client.next_of(opened[-1])
        assert refused.error.code == CODES["LIMIT"]
        assert refused.error.limit_name in (b"REQUEST_PER_CONNECTION_COUNT_MAX",
                                            b"CURSOR_PER_CONNECTION_COUNT_MAX")
        assert client.call("cancel", nodes=nodes).WhichOneof("result") == "done"
        drain(client, request)
        for follow in opened[:-1]:
            assert len(drain(client, follow).finished) == 1


def run_all(functions):
    """Each in a thread of its own; the first failure is raised."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as failure:  # told below, in the thread that may fail the test
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_denied_cancel_names_no_one_else(client):
    with pytest.raises(Refused) as refused:
        client.call("cancel", nodes=[1 << 40])
    assert refused.value.code == CODES["NOT_FOUND"]
