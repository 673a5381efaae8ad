"""Goal: an expansion tells the numbers that Score and Distribution tell for each of its paths, bit
for bit; it grows by its rules; a kept path is a node of exactly those tokens, stored like others.
Method: the tiny model; trees of alternatives are grown at several places and measured again node by
node; budgets, ends, cancels, closed connections, restarts and hostile requests follow.
"""
import math
import signal
import struct

import pytest

from client import CODES, MESSAGES, Refused, position
from conftest import wait_until
from test_look import distribution, item, option, raw, score, talk

DEPTH, PROBABILITY, NODES, CONTEXT, CANCELLED = range(5)
EXPANDED = 4


class Expansion:
    """All replies of an Expand: nodes by number, the place being 0."""

    def __init__(self):
        self.nodes = [None]
        self.levels = []          # nodes of each reply
        self.last = None

    def feed(self, reply):
        assert reply.first == len(self.nodes)
        if reply.parents:
            self.levels.append((reply.level, len(reply.parents)))
        for i, parent in enumerate(reply.parents):
            number = len(self.nodes)
            assert parent < number
            self.nodes.append({
                "parent": parent, "token": reply.tokens[i], "piece": reply.pieces[i],
                "logprob": reply.logprobs[i], "entropy": reply.entropies[i],
                "joint": reply.joint_logprobs[i], "end": number in reply.end_nodes,
                "level": reply.level})
        assert reply.node_count >= len(self.nodes) - 1
        self.last = reply

    def path(self, number):
        """Numbers of the nodes from the place to that one."""
        path = []
        while number != 0:
            path.insert(0, number)
            number = self.nodes[number]["parent"]
        return path

    def tokens(self, number):
        return [self.nodes[at]["token"] for at in self.path(number)]

    def children(self, number):
        return [at for at in range(1, len(self.nodes)) if self.nodes[at]["parent"] == number]


def receive(client, request):
    seen = Expansion()
    while True:
        reply = client.next_of(request)
        if reply.WhichOneof("result") == "error":
            raise Refused(reply.error)
        seen.feed(reply.expand)
        assert reply.more != reply.expand.HasField("end")
        if not reply.more:
            return seen


def expand(client, session, **fields):
    return receive(client, client.send("expand", session=session, **fields))


def keep(client, seen, number, **fields):
    made = client.call("keep", expansion=seen.last.expansion, node=number, **fields).created.nodes
    assert len(made) == 1
    return made[0]


def content(client, session, node):
    return client.call("walk", session=session, position=position(node), what=3, content=True,
                       text=True).walk.nodes[0]


def numbers_of(seen):
    """The bits of all numbers."""
    return [(node["token"], raw([node["logprob"], node["entropy"]]), node["joint"])
            for node in seen.nodes[1:]]


# ---- numbers

@pytest.mark.parametrize("where", ["turn", "inside", "root"])
def test_every_path_has_the_numbers_of_score_and_distribution(client, where):
    session, node = talk(client)
    place = {"turn": {}, "inside": {"position": position(node.id, 5), "continuing": True},
             "root": {"position": position(0)}}[where]
    seen = expand(client, session, depth=3, width=3, probability_min=0, **place)
    for number, at in enumerate(seen.nodes[1:], 1):
        grows = at["level"] < 3 and not at["end"]
        assert len(seen.children(number)) == (3 if grows else 0)
    options = [option(tokens=seen.tokens(number)) for number in range(1, len(seen.nodes))]
    fields = {"session": session, "continuing": place.get("continuing", False)}
    scored = score(client, [item(options, position=place.get("position"), **fields)],
                   numbers=True).items[0].options
    for number, one in enumerate(scored, 1):
        path = [seen.nodes[at] for at in seen.path(number)]
        assert raw([at["logprob"] for at in path]) == raw(one.logprobs)
        assert raw([at["entropy"] for at in path]) == raw(one.entropies)
        assert path[-1]["joint"] == one.logprob == sum(one.logprobs)
    top = distribution(client, session, top_count=3, **place)
    first = [seen.nodes[at] for at in seen.children(0)]
    assert [at["token"] for at in first] == list(top.top_tokens)
    assert [at["piece"] for at in first] == list(top.top_pieces)
    assert raw([at["logprob"] for at in first]) == raw(top.top_logprobs)
    # A twin: the same tokens somewhere else are something else.
    other = score(client, [item(options, session=session, position=position(node.id, 2),
                                continuing=True)], numbers=True).items[0].options
    assert any(raw(one.logprobs) != raw([seen.nodes[at]["logprob"] for at in seen.path(number)])
               for number, one in enumerate(other, 1))


def test_an_expansion_is_the_same_among_strangers_and_again(daemon):
    with daemon.client() as client, daemon.client() as other:
        session, _ = talk(client)
        alone = expand(client, session, depth=4, width=4, probability_min=0, nodes=200)
        _, noise = talk(other)
        going = [other.send_generate(noise.session, n=20, max_tokens=200, ignore_end=True,
                                     temperature=1.0) for _ in range(2)]
        crowded = expand(client, session, depth=4, width=4, probability_min=0, nodes=200)
        other.call("cancel", session=noise.session)
        for request in going:
            other.finish(request)
        assert numbers_of(crowded) == numbers_of(alone)
        assert crowded.last.expansion != alone.last.expansion


def test_each_node_costs_one_row(daemon):
    with daemon.client() as client:
        session, _ = talk(client)
        expand(client, session, depth=1, width=1)  # the context is cached from here on
        before = client.call("stats").stats
        seen = expand(client, session, depth=4, width=3, probability_min=0)
        after = client.call("stats").stats
        grown = 1 + sum(1 for at in seen.nodes[1:] if at["level"] < 4 and not at["end"])
        assert after.sample_count - before.sample_count == grown
        assert after.context_computed_count - before.context_computed_count <= grown


def test_forks_of_many_siblings_find_their_partial_page(client):
    """200 short siblings end inside one page; going on from each costs the one row whose logits are
    wanted, however many siblings have come since."""
    session = client.open(seed=3)
    node = client.append(session, b"once there was a")
    siblings = client.generate(session, position=position(node.id), n=200, max_tokens=3,
                               ignore_end=True, temperature=1.5).replies()
    context = siblings[0].context_tokens
    assert context % 16 + 3 < 16, "a sibling would end beyond the page"
    before = client.call("stats").stats
    for sibling in siblings:
        client.generate(session, position=position(sibling.id, 3), continuing=True, max_tokens=1,
                        ignore_end=True)
    after = client.call("stats").stats
    assert after.context_token_count - before.context_token_count == 200 * (context + 3)
    assert after.context_computed_count - before.context_computed_count == 200


# ---- rules

def test_what_is_unlikely_does_not_grow(client):
    session, _ = talk(client)
    every = expand(client, session, depth=3, width=8, probability_min=0, nodes=4096)
    limit = sorted(math.exp(at["joint"]) for at in every.nodes[1:])[-20]
    seen = expand(client, session, depth=3, width=8, probability_min=limit, nodes=4096)
    wanted = {tuple(every.tokens(number)) for number in range(1, len(every.nodes))
              if every.nodes[number]["joint"] >= math.log(limit)}
    assert {tuple(seen.tokens(number)) for number in range(1, len(seen.nodes))} == wanted
    nothing = expand(client, session, probability_min=1)
    assert len(nothing.nodes) == 1 and nothing.last.end == PROBABILITY


def test_the_likeliest_are_taken_where_there_are_too_many(client):
    session, _ = talk(client)
    every = expand(client, session, depth=2, width=8, probability_min=0, nodes=4096)
    level = sorted((at["joint"] for at in every.nodes[1:] if at["level"] == 2), reverse=True)
    seen = expand(client, session, depth=2, width=8, probability_min=0, nodes=8 + 10)
    assert seen.last.end == NODES and len(seen.nodes) - 1 == seen.last.node_count == 18
    taken = sorted((at["joint"] for at in seen.nodes[1:] if at["level"] == 2), reverse=True)
    assert taken == level[:10]
    few = expand(client, session, depth=2, width=8, probability_min=0, nodes=3)
    assert few.last.end == NODES and [at["level"] for at in few.nodes[1:]] == [1, 1, 1]


def test_a_large_expansion_comes_in_stretches(client):
    session, _ = talk(client)
    seen = expand(client, session, depth=3, width=32, probability_min=0, nodes=4096)
    assert len(seen.nodes) - 1 == 4096 == seen.last.node_count
    assert max(count for _, count in seen.levels) <= 512
    assert len(seen.levels) > 3


def test_it_ends_where_the_context_does(client):
    session = client.open(context_tokens=32)
    client.append(session, b"Once upon a time there was")
    seen = expand(client, session, depth=200, width=1, probability_min=0)
    assert seen.last.end == CONTEXT or any(at["end"] for at in seen.nodes[1:])
    assert seen.last.context_tokens + max(at["level"] for at in seen.nodes[1:]) <= 32


# ---- keeping

def test_a_kept_path_is_a_node_of_exactly_those_tokens(start):
    daemon = start()
    with daemon.client() as client:
        session, talked = talk(client)
        place = {"position": position(talked.id, 5), "continuing": True}
        seen = expand(client, session, depth=4, width=2, probability_min=0, **place)
        number = next(at for at in range(len(seen.nodes) - 1, 0, -1) if not seen.nodes[at]["end"])
        made = keep(client, seen, number, client_key=b"kept")
        node = content(client, session, made.id)
        assert list(node.content) == seen.tokens(number)
        assert node.text == b"".join(seen.nodes[at]["piece"] for at in seen.path(number))
        assert node.origin == EXPANDED and not node.opens_turn
        assert (node.parent.node, node.parent.offset) == (talked.id, 5)
        assert client.call("head", session=session).head.position.node == made.id
        # What it is worth can be asked for again, from the tree.
        again = score(client, [item([option(tokens=seen.tokens(number))], session=session,
                                    **place)], numbers=True).items[0].options[0]
        assert again.logprob == seen.nodes[number]["joint"]
        # It goes on like any other.
        assert client.generate(session, continuing=True, max_tokens=3).replies()[0].parent.node == \
            made.id
        other = keep(client, seen, seen.children(0)[0])
        assert other.ordinal == made.ordinal + 1
        assert keep(client, seen, number, client_key=b"kept").id == made.id
    daemon.kill(signal.SIGKILL)
    daemon.wait()
    daemon = start()
    with daemon.client() as client:
        again = content(client, session, node.id)
        assert list(again.content) == list(node.content) and again.text == node.text
        assert again.origin == EXPANDED
        # Its expansion is gone, but the key is not.
        assert client.call("keep", expansion=seen.last.expansion, node=number,
                           client_key=b"kept").created.nodes[0].id == node.id
        with pytest.raises(Refused) as refused:
            client.call("keep", expansion=seen.last.expansion, node=number)
        assert refused.value.code == CODES["NOT_FOUND"]


def test_what_cannot_be_kept(client):
    session, talked = talk(client)
    seen = expand(client, session)
    for fields, code in (({"node": 0}, "BAD_INPUT"),
                         ({"node": len(seen.nodes)}, "BAD_INPUT"),
                         ({"node": 1, "expansion": seen.last.expansion + 1}, "NOT_FOUND"),
                         ({"node": 1, "expansion": 0}, "NOT_FOUND")):
        with pytest.raises(Refused) as refused:
            client.call("keep", **{"expansion": seen.last.expansion, **fields})
        assert refused.value.code == CODES[code]
    client.call("delete", nodes=[talked.id])
    with pytest.raises(Refused) as refused:
        keep(client, seen, 1)
    assert refused.value.code == CODES["NOT_FOUND"] and "deleted" in refused.value.text
    client.call("purge", nodes=[talked.id])
    with pytest.raises(Refused) as refused:
        keep(client, seen, 1)
    assert refused.value.code == CODES["NOT_FOUND"] and "no expansion" in refused.value.text


def test_an_expansion_goes_with_its_connection(daemon):
    with daemon.client() as client:
        session, _ = talk(client)
        seen = expand(client, session)
        with daemon.client() as other:
            assert keep(other, seen, 1).id  # the same user, while it is there
    with daemon.client() as client:
        def is_gone():
            try:
                keep(client, seen, 1)
            except Refused as refused:
                assert refused.code == CODES["NOT_FOUND"]
                return True
            return False
        wait_until(is_gone)


def test_only_so_many_are_remembered(client):
    session, _ = talk(client)
    first = expand(client, session, depth=1)
    count = {limit.name: limit.value for limit in client.call("info").info.limits}[
        b"EXPANSION_PER_USER_COUNT_MAX"]
    for _ in range(count - 1):
        last = expand(client, session, depth=1)
    assert keep(client, first, 1).id  # and so it was named last
    expand(client, session, depth=1)
    assert keep(client, first, 1).id
    assert keep(client, last, 1).id


# ---- ending early

def test_a_cancelled_expansion_keeps_what_it_has(daemon):
    with daemon.client() as client:
        session, node = talk(client)
        request = client.send("expand", session=session, depth=256, width=1, probability_min=0,
                              nodes=4096)
        seen = Expansion()
        while len(seen.nodes) < 4:
            reply = client.next_of(request)
            assert reply.more
            seen.feed(reply.expand)
        cancel = client.send("cancel", request=request)
        while reply.more:
            reply = client.next_of(request)
            seen.feed(reply.expand)
        assert client.next_of(cancel).WhichOneof("result") == "done"
        assert seen.last.end in (CANCELLED, CONTEXT) or any(at["end"] for at in seen.nodes[1:])
        assert keep(client, seen, 3).content_tokens == 3
        again = expand(client, session, depth=3, width=1, probability_min=0,
                       position=position(node.id))
        assert numbers_of(again) == numbers_of(seen)[:3]


def test_cancels_at_any_moment_end_whatever_looks(daemon):
    with daemon.client() as client:
        session, node = talk(client)
        asked = (("expand", {"session": session, "depth": 8, "width": 8, "probability_min": 0.0,
                             "nodes": 2000}),
                 ("score", {"items": [item([option(b" a b c d")] * 50, session=session)]}),
                 ("distribution", {"session": session}),
                 ("compare", {"session": session}),
                 ("verify", {"session": session}))
        for round_ in range(8):
            for op, fields in asked:
                request = client.send(op, **fields)
                reply = None
                for _ in range(round_ if op == "expand" else 0):
                    reply = client.next_of(request) if reply is None or reply.more else reply
                cancel = client.send("cancel", request=request)
                while reply is None or reply.more:
                    reply = client.next_of(request)
                if reply.WhichOneof("result") == "error":
                    assert reply.error.code == CODES["CANCELLED"]
                assert client.next_of(cancel).WhichOneof("result") == "done"
        stats = client.call("stats").stats
        assert stats.branch_waiting_count + stats.branch_running_count == 0
        assert expand(client, session).last.end in (DEPTH, PROBABILITY, NODES)


def test_who_leaves_in_the_middle_leaves_nothing_behind(daemon):
    with daemon.client() as client:
        session, _ = talk(client)
    for _ in range(5):
        client = daemon.client()
        client.send("expand", session=session, depth=200, width=8, probability_min=0, nodes=4096)
        client.close()
    with daemon.client() as client:
        wait_until(lambda: client.call("stats").stats.branch_running_count == 0)
        assert expand(client, session).last.end in (DEPTH, PROBABILITY, NODES)
        client.call("session_delete", session=session)
        client.call("session_delete", session=session, purge=True)


# ---- hostile

@pytest.mark.parametrize("fields, word", [
    ({"depth": 0}, "depth"), ({"depth": 257}, "EXPAND_DEPTH_MAX"),
    ({"width": 0}, "width"), ({"width": 33}, "TOP_COUNT_MAX"),
    ({"nodes": 0}, "nodes"), ({"nodes": 4097}, "EXPAND_NODE_COUNT_MAX"),
    ({"probability_min": -0.1}, "probability_min"), ({"probability_min": 1.5}, "probability_min"),
    ({"probability_min": math.nan}, "probability_min"), ({"speaker": 7}, "no speaker"),
    ({"position": MESSAGES["Position"](node=1 << 60)}, "no node"),
    ({"position": MESSAGES["Position"](node=0), "continuing": True}, "no turn"),
])
def test_what_cannot_be_expanded(client, fields, word):
    session, _ = talk(client)
    with pytest.raises(Refused) as refused:
        expand(client, session, **fields)
    assert word in str(refused.value) + refused.value.limit_name


def test_twin_one_bit_is_seen(client):
    """The comparison of numbers_of() tells numbers apart that differ by one bit."""
    session, _ = talk(client)
    seen = expand(client, session)
    other = expand(client, session)
    assert numbers_of(other) == numbers_of(seen)
    bits = struct.unpack("<I", struct.pack("<f", other.nodes[1]["logprob"]))[0] ^ 1
    other.nodes[1]["logprob"] = struct.unpack("<f", struct.pack("<I", bits))[0]
    assert numbers_of(other) != numbers_of(seen)
