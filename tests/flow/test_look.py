"""Goal: distributions, scores, comparisons, groups and verification through the socket tell the
numbers that generation stored, bit for bit, and nothing of what is another's.
Method: the tiny model; nodes are generated with their numbers, then looked at along every offset,
scored as options and as paths, and verified; values from elsewhere must not agree. Errors say what
was wrong.
"""
import glob
import json
import math
import os
import sqlite3
import struct

import pytest

from client import CODES, MESSAGES, Refused, position
from conftest import tiny_model


def raw(values):
    return struct.pack(f"<{len(values)}f", *values)


def option(text=None, tokens=()):
    made = MESSAGES["ScoreOption"](tokens=tokens)
    if text is not None:
        made.text = text
    return made


def item(options, **fields):
    where = fields.pop("position", None)
    made = MESSAGES["ScoreItem"](**fields)
    if where is not None:
        made.position.CopyFrom(where)
    made.options.extend(options)
    return made


def talk(client, persona=b"plain", **fields):
    """A session with a given beginning and a sampled node behind it."""
    session = client.open(persona, seed=7)
    client.append(session, b"Once upon a time there was a lighthouse", speaker=0)
    fields.setdefault("max_tokens", 24)
    node = client.generate(session, numbers=True, top_count=5, **fields).replies()[0]
    return session, node


def kept(node):
    """How many tokens of the content were sampled as they stand: behind them comes the tail."""
    pairs = list(zip(node.content, node.numbers.tokens))
    return next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))


def distribution(client, session, **fields):
    return client.call("distribution", session=session, **fields).distribution


def score(client, items, **fields):
    return client.call("score", items=items, **fields).score


def verify(client, **fields):
    """The last reply, and the nodes of all."""
    request = client.send("verify", **fields)
    told = []
    while True:
        reply = client.next_of(request)
        if reply.WhichOneof("result") == "error":
            raise Refused(reply.error)
        told.extend(reply.verify.nodes)
        if not reply.more:
            return reply.verify, told


# ---- distribution

def test_distributions_along_a_node_are_those_that_it_stores(client):
    session, node = talk(client, temperature=1.3)
    numbers = node.numbers
    for at, token in enumerate(numbers.tokens[:node.content_tokens]):
        if at == 0:
            where = {"position": node.parent, "continuing": False}
        else:
            where = {"position": position(node.id, at), "continuing": True}
        seen = distribution(client, session, top_count=5, tokens=[token, 3, token], **where)
        assert raw([seen.entropy]) == raw([numbers.entropies[at]])
        assert list(seen.top_tokens) == list(numbers.top_tokens[5 * at:5 * at + 5])
        assert raw(seen.top_logprobs) == raw(numbers.top_logprobs[5 * at:5 * at + 5])
        assert raw([seen.logprobs[0]]) == raw([numbers.logprobs[at]])
        assert raw([seen.logprobs[2]]) == raw([numbers.logprobs[at]])
        assert len(seen.top_pieces) == 5
    # A twin: one token further on it is another distribution.
    other = distribution(client, session, position=position(node.id, 2), continuing=True)
    assert raw([other.entropy]) != raw([numbers.entropies[1]])


def test_a_distribution_adds_up(client):
    session, _ = talk(client)
    count = client.call("info").info.vocabulary_count
    total = 0.0
    for first in range(0, count, 256):
        tokens = list(range(first, min(first + 256, count)))
        total += sum(map(math.exp, distribution(client, session, tokens=tokens).logprobs))
    assert abs(total - 1) < 1e-4


def test_what_a_distribution_cannot_be_asked_for(client):
    session, node = talk(client)
    for fields, word in (({"top_count": 33}, "TOP_COUNT_MAX"),
                         ({"tokens": [1] * 257}, "DISTRIBUTION_TOKEN_COUNT_MAX"),
                         ({"tokens": [1 << 30]}, "no token"),
                         ({"speaker": 9}, "no speaker"),
                         ({"position": position(node.id, 4000)}, "offset"),
                         ({"position": position(0), "continuing": True}, "no turn")):
        with pytest.raises(Refused) as refused:
            distribution(client, session, **fields)
        assert word in str(refused.value) + refused.value.limit_name


# ---- score

def test_scored_options_have_the_bits_of_generation(client):
    session, node = talk(client)
    count = kept(node)
    tokens = list(node.numbers.tokens[:count])
    answer = score(client, [item([option(tokens=tokens), option(tokens=tokens[:1]),
                                  option(tokens=tokens[:5]), option(tokens=tokens[:4] + [9])],
                                 position=node.parent)], session=session, numbers=True)
    whole, one, five, other = answer.items[0].options
    assert raw(whole.logprobs) == raw(node.numbers.logprobs[:count])
    assert raw(whole.entropies) == raw(node.numbers.entropies[:count])
    assert list(whole.tokens) == tokens
    assert raw(one.logprobs) == raw(whole.logprobs[:1])
    assert raw(five.logprobs) == raw(whole.logprobs[:5])
    assert raw(other.logprobs[:4]) == raw(whole.logprobs[:4])
    assert raw(other.logprobs[4:]) != raw(whole.logprobs[4:5])
    assert raw(other.entropies) == raw(whole.entropies[:5])
    assert whole.logprob == sum(whole.logprobs)
    assert abs(whole.token_logprob - whole.logprob / count) < 1e-12
    shares = [math.exp(one_of.logprob) for one_of in answer.items[0].options]
    for found, want in zip(answer.items[0].options, shares):
        assert abs(found.share - want / sum(shares)) < 1e-9


def test_many_options_at_many_places_in_one_request(client):
    session, node = talk(client)
    words = [f" {letter}{digit}".encode() for letter in "abcdefgh" for digit in range(8)]
    other = client.open(seed=3)
    client.append(other, b"Once upon")
    items = [item([option(word) for word in words], position=position(node.id, at),
                  continuing=True) for at in range(1, 9)]
    items.append(item([option(word) for word in words], session=other))
    together = score(client, items, session=session, numbers=True)
    assert len(together.items) == 9
    for at, asked in enumerate(items):
        alone = score(client, [item([asked.options[at]], position=asked.position,
                                    continuing=True)] if at < 8 else
                      [item([asked.options[at]], session=other)], session=session, numbers=True)
        assert raw(alone.items[0].options[0].logprobs) == \
            raw(together.items[at].options[at].logprobs)
        assert abs(sum(one.share for one in together.items[at].options) - 1) < 1e-9


def test_scores_are_of_the_persona_that_would_answer(client):
    session = client.open(b"keeper", seed=1)
    client.call("append", session=session, text=b"Who are you?")
    made = client.generate(session, max_tokens=12, numbers=True).replies()[0]
    count = kept(made)
    answer = score(client, [item([option(tokens=list(made.numbers.tokens[:count]))],
                                 position=made.parent)], session=session, numbers=True)
    assert raw(answer.items[0].options[0].logprobs) == raw(made.numbers.logprobs[:count])
    as_user = score(client, [item([option(tokens=list(made.numbers.tokens[:count]))],
                                  position=made.parent, speaker=0)], session=session, numbers=True)
    assert raw(as_user.items[0].options[0].logprobs) != raw(made.numbers.logprobs[:count])


def test_what_cannot_be_scored(client):
    session, _ = talk(client)
    for items, word in (([], "nothing to score"), ([item([])], "no options"),
                        ([item([option()])], "not empty"),
                        ([item([option(b"a", [1])])], "text or a list"),
                        ([item([option(b"\xff")])], "UTF-8"),
                        ([item([option(tokens=[1 << 30])])], "no token"),
                        ([item([option(b"a")], session=1 << 40)], "no session"),
                        ([item([option(b"a")] * 600), item([option(b"a")] * 600)],
                         "SCORE_OPTION_COUNT_MAX")):
        with pytest.raises(Refused) as refused:
            score(client, items, session=session)
        assert word in str(refused.value) + refused.value.limit_name
    assert score(client, [item([option(b"a")])], session=session).items[0].options[0].share == 1


# ---- compare

def test_a_path_under_its_own_persona_has_the_bits_of_generation(client):
    session = client.open(b"keeper", seed=5)
    said = client.stream("say", session=session, text=b"Good evening!", numbers=True)
    first = said.replies()[0]
    second = client.stream("say", session=session, text=b"And then?", numbers=True).replies()[0]
    compared = client.call("compare", session=session).compare
    at = 0
    found = {}
    for span in compared.spans:
        found[span.node] = (span.first, compared.personas[0].logprobs[at:at + len(span.tokens)])
        at += len(span.tokens)
    for node in (first, second):
        begin, logprobs = found[node.id]
        count = kept(node)
        assert begin == 0 and 0 < count <= len(logprobs)
        assert raw(logprobs[:count]) == raw(node.numbers.logprobs[:count])
    only = client.call("compare", session=session, speaker=1).compare
    assert {span.speaker for span in only.spans} == {1}
    assert len(only.personas[0].logprobs) < len(compared.personas[0].logprobs)


def persona(client, **fields):
    card = {"spec": "chara_card_v2", "spec_version": "2.0", "data": fields}
    return client.call("persona_put", card=json.dumps(card).encode()).persona_put.persona.id


def test_the_same_path_under_two_personas(client):
    gruff = persona(client, name="Ruth", description="Ruth is a gruff old sailor.")
    kind = persona(client, name="Ruth", description="Ruth is a kind young teacher.")
    session = client.call("session_open", persona=gruff, seed=9).session_open.session.id
    node = client.stream("say", session=session, text=b"Hello Ruth", numbers=True).replies()[0]
    compared = client.call("compare", session=session, personas=[gruff, kind, gruff],
                           speaker=1).compare
    mine, other, again = compared.personas
    assert [one.persona for one in compared.personas] == [gruff, kind, gruff]
    assert raw(mine.logprobs[:kept(node)]) == raw(node.numbers.logprobs[:kept(node)])
    assert raw(mine.logprobs) == raw(again.logprobs) != raw(other.logprobs)
    assert mine.ratio == 0 and again.ratio == 0
    assert abs(other.ratio - (sum(mine.logprobs) - sum(other.logprobs))) < 1e-9
    # The other one's numbers are those of a session that it plays itself.
    theirs = client.call("session_open", persona=kind, seed=9).session_open.session.id
    client.append(theirs, b"Hello Ruth")
    count = kept(node)
    own = score(client, [item([option(tokens=list(node.numbers.tokens[:count]))])],
                session=theirs, numbers=True)
    assert raw(own.items[0].options[0].logprobs) == raw(other.logprobs[:count])


def test_divergences_are_sums_over_whole_distributions(client):
    one = persona(client, name="Ruth", description="Ruth is a gruff old sailor.")
    other = persona(client, name="Ruth", description="Ruth is a kind young teacher.")
    count = client.call("info").info.vocabulary_count
    logprobs = {}
    for played in (one, other):
        session = client.call("session_open", persona=played, seed=9).session_open.session.id
        client.append(session, b"Hello Ruth")
        logprobs[played] = [value for first in range(0, count, 256) for value in
                            distribution(client, session, tokens=list(range(
                                first, min(first + 256, count)))).logprobs]
    session = client.call("session_open", persona=one, seed=9).session_open.session.id
    client.stream("say", session=session, text=b"Hello Ruth")
    compared = client.call("compare", session=session, personas=[one, other], speaker=1,
                           divergence=True).compare
    mine, theirs = compared.personas
    assert len(mine.divergences) == len(theirs.divergences) == len(mine.logprobs) > 5
    assert all(abs(value) < 1e-6 for value in mine.divergences)
    want = sum(math.exp(p) * (p - q) for p, q in zip(logprobs[one], logprobs[other]))
    assert abs(theirs.divergences[0] - want) < 1e-4 < want
    back = client.call("compare", session=session, personas=[other, one], speaker=1,
                       divergence=True).compare.personas[1]
    assert raw(back.divergences) != raw(theirs.divergences)
    assert not client.call("compare", session=session).compare.personas[0].divergences


def test_what_cannot_be_compared(client):
    session, _ = talk(client)
    for fields, word in (({"personas": [1 << 40]}, "persona"),
                         ({"personas": [1] * 9}, "COMPARE_PERSONA_COUNT_MAX"),
                         ({"position": position(0)}, "nothing was said"),
                         ({"speaker": 7}, "nothing to compare")):
        with pytest.raises(Refused) as refused:
            client.call("compare", session=session, **fields)
        assert word in str(refused.value) + refused.value.limit_name


# ---- group

def test_answers_that_say_the_same_are_one_group(client):
    session = client.open(seed=1)
    begin = client.append(session, b"Colour?")
    for text in (b" Red", b" blue!", b"red.", b"\n RED ", b"light  blue"):
        client.append(session, text, position=position(begin.id))
    groups = client.call("group", session=session, position=position(begin.id)).group
    assert [(one.text, len(one.nodes)) for one in groups.groups] == \
        [(b"red", 3), (b"blue", 1), (b"light blue", 1)]
    assert [one.share for one in groups.groups] == [0.6, 0.2, 0.2]
    assert not groups.groups[0].HasField("mass")
    want = -(0.6 * math.log(0.6) + 0.4 * math.log(0.2))
    assert abs(groups.entropy - want) < 1e-12


def test_a_superposition_has_shares_and_masses(client):
    session = client.open(seed=1)
    client.append(session, b"The answer is")
    made = client.generate(session, n=64, max_tokens=2, numbers=True, temperature=0.5)
    nodes = {node.id: node for node in made.replies()}
    groups = client.call("group", session=session).group
    assert sorted(sum((list(one.nodes) for one in groups.groups), [])) == sorted(nodes)
    assert abs(sum(one.share for one in groups.groups) - 1) < 1e-9
    for one in groups.groups:
        sequences = {tuple(nodes[node].numbers.tokens): sum(nodes[node].numbers.logprobs)
                     for node in one.nodes}
        assert abs(one.mass - sum(map(math.exp, sequences.values()))) < 1e-9
    some = [made.replies()[0].id, made.replies()[1].id]
    assert len(client.call("group", session=session, nodes=some).group.groups) in (1, 2)
    with pytest.raises(Refused) as refused:
        client.call("group", session=session, nodes=[1 << 50])
    assert "no node" in refused.value.text


# ---- verify

def test_everything_is_computed_again_to_the_same_bits(start):
    daemon = start()
    with daemon.client() as client:
        sessions = []
        for kind, fields in ((b"plain", {"temperature": 1.2}), (b"keeper", {"top_p": 0.7}),
                             (b"keeper", {"repetition_penalty": 1.3, "penalize_prompt": True,
                                          "min_tokens": 5})):
            session = client.open(kind, seed=4)
            client.append(session, b"Tell me of the sea")
            client.generate(session, n=5, max_tokens=20, **fields)
            client.append(session, b"and of the wind")
            client.generate(session, n=2, max_tokens=9, top_count=8, **fields)
            sessions.append(session)
        last, told = verify(client, all=True)
        assert (last.node_count, last.equal_count) == (21, 21)
        assert (last.different_count, last.foreign_count, last.failed_count) == (0, 0, 0)
        assert told == [] and last.token_count > 21
        one, _ = verify(client, session=sessions[0])
        assert one.node_count == 7
        head = client.call("head", session=sessions[1]).head.position.node
        path, _ = verify(client, node=head, path=True)
        assert path.node_count == 2
        node, _ = verify(client, node=head)
        assert (node.node_count, node.equal_count) == (1, 1)


def test_verify_goes_on_beside_replies_and_ends_with_its_connection(start):
    daemon = start()
    with daemon.client() as client:
        session = client.open(seed=4)
        client.append(session, b"Tell me")
        client.generate(session, n=200, max_tokens=40)
        with daemon.client() as leaving:
            leaving.send("verify", all=True)
            reply = leaving.read_reply()
            assert reply.more and reply.verify.node_count == 200
        request = client.send("verify", all=True)
        node = client.generate(session, max_tokens=10).replies()[0]
        assert node.content_tokens > 0
        while client.next_of(request).more:
            pass


def test_what_cannot_be_verified(client):
    session, node = talk(client)
    given = node.parent.node
    for fields, word in (({}, "say what"), ({"node": node.id, "all": True}, "one of them"),
                         ({"node": 1 << 50}, "no node"), ({"node": given}, "was given"),
                         ({"session": 1 << 50}, "no session")):
        with pytest.raises(Refused) as refused:
            verify(client, **fields)
        assert word in refused.value.text
    going = client.send_generate(session, max_tokens=4000, ignore_end=True)
    made = client.next_of(going).created.nodes[-1]
    with pytest.raises(Refused) as refused:
        verify(client, node=made.id)
    assert "still being generated" in refused.value.text
    client.call("cancel", nodes=[made.id])
    client.finish(going)
    cut, told = verify(client, node=made.id)
    assert cut.equal_count == 1 and not told


def grown(start):
    """Nodes of several kinds, computed and stored, and the database that holds them, at rest."""
    daemon = start()
    with daemon.client() as client:
        session = client.open(b"keeper", seed=4)
        node = client.finish(client.send_generate(session, op="say", text=b"Good evening!", n=3,
                                                  max_tokens=20, top_count=3)).replies()[1]
        client.generate(session, position=position(node.id, 3), continuing=True, max_tokens=30,
                        repetition_penalty=1.4)
    daemon.kill()
    daemon.wait()
    found = glob.glob(os.path.join(daemon.folder, "data", "**", "*.sqlite*"), recursive=True) + \
        glob.glob(os.path.join(daemon.folder, "data", "**", "*.db"), recursive=True)
    return session, node, next(path for path in found if not path.endswith(("-wal", "-shm")))


def test_stored_nodes_are_computed_again_after_a_restart(start):
    session, _, _ = grown(start)
    with start().client() as client:
        last, told = verify(client, session=session)
        assert (last.node_count, last.equal_count, len(told)) == (4, 4, 0)


def flip_one_bit(path, node, column, at):
    with sqlite3.connect(path) as database:
        key, blob = database.execute(f"SELECT key, {column} FROM chunk WHERE key / 65536 = ? "
                                     "ORDER BY key", (node.id,)).fetchone()
        broken = bytearray(blob)
        broken[at * len(blob) // len(node_tokens(database, key))] ^= 1
        database.execute(f"UPDATE chunk SET {column} = ? WHERE key = ?", (bytes(broken), key))
    database.close()


@pytest.mark.parametrize("column, number", [
    ("logprobs", 2), ("logprobs_sampler", 3), ("entropies", 4), ("tops", 5)])
def test_twin_one_bit_flipped_on_disk_is_found_with_its_place(start, column, number):
    session, node, path = grown(start)
    at = 4
    flip_one_bit(path, node, column, at)
    with start().client() as client:
        last, told = verify(client, session=session)
        mine = next(one for one in told if one.node == node.id)
        assert last.different_count == 1 and mine.number == number and mine.index == at
        if column != "tops":
            assert mine.stored_bits ^ mine.computed_bits == 1


def test_twin_a_token_that_does_not_show_its_text_is_found_before(start):
    """What a node's tokens show stands beside them, so a changed token is no tree to be read."""
    session, node, path = grown(start)
    flip_one_bit(path, node, "tokens", 4)
    daemon = start()
    with daemon.client() as client:
        with pytest.raises(Refused) as refused:
            verify(client, session=session)
        assert refused.value.code == CODES["STORAGE"]
    assert f"node {node.id} is damaged" in daemon.log()


def node_tokens(database, key):
    tokens = database.execute("SELECT tokens FROM chunk WHERE key = ?", (key,)).fetchone()[0]
    return memoryview(tokens).cast("I")


def test_nodes_of_another_arithmetic_are_told_apart(start):
    session, _, path = grown(start)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE origin SET numerics_id = 'cpu/0/other'")
    database.close()
    with start().client() as client:
        last, told = verify(client, session=session)
        assert (last.node_count, last.foreign_count, last.equal_count) == (4, 4, 0)
        assert last.different_count == 0
        assert all(one.foreign and one.difference_max == 0 and not one.other_tokens
                   for one in told) and len(told) == 4


def test_another_models_session_cannot_be_looked_into(start):
    session, node, _ = grown(start)
    with start(model=tiny_model("F16-bpe")).client() as client:
        last, told = verify(client, session=session)
        assert last.failed_count == 4 and all("another model" in one.error.text.decode()
                                              for one in told)
        for op, fields in (("distribution", {}), ("compare", {}),
                           ("score", {"items": [item([option(b"a")])]})):
            with pytest.raises(Refused) as refused:
                client.call(op, session=session, **fields)
            assert "another model" in refused.value.text
        assert client.call("group", session=session,
                           nodes=[node.id]).group.groups[0].nodes == [node.id]
