"""Several speakers in one session: humans and personas; requests, command line, Python client.
Method: contexts as Context gives them; Verify before and after a restart; a cast whose names the
model is made to write."""
import json
import os
import re
import sys

import pytest

from cli import Terminal, objects, persona
from client import CODES, MESSAGES, ROOT, SUBTREE, Refused, bits, position, sampler

sys.path.insert(0, os.path.join(ROOT, "clients/python"))

from personad import Client as Python  # noqa: E402
from personad import Human  # noqa: E402


SEPARATE, JOINT = 0, 1


def entry(**fields):
    return MESSAGES["CastEntry"](**fields)


def put(client, name, **fields):
    card = {"spec": "chara_card_v2", "spec_version": "2.0",
            "data": {"name": name, "description": f"You are {name}.", **fields}}
    return client.call("persona_put", card=json.dumps(card).encode()).persona_put.persona.id


def open_group(client, play="chat", **fields):
    """User, Ada, Bob, Eve."""
    ours = {"extensions": {"personad": {"play": play}}}
    ada, bob = put(client, "Ada", **ours), put(client, "Bob", **ours)
    return client.call("session_open", persona=ada,
                       cast=[entry(persona=bob), entry(name=b"Eve")], **fields).session_open.session


def context_text(client, node):
    reply = client.call("context", node=node, text=True).context
    assert reply.end
    return b"".join(segment.text for segment in reply.segments).decode("utf-8", "replace")


def context_ids(client, node):
    reply = client.call("context", node=node, tokens=True).context
    return [token for segment in reply.segments for token in segment.tokens]


def verified(client, session):
    made = client.send("verify", session=session)
    while True:
        reply = client.next_of(made)
        assert reply.WhichOneof("result") == "verify", reply
        if not reply.more:
            return reply.verify


def converse(client, session):
    """Everybody speaks once or twice; the nodes that were sampled."""
    client.append(session, b"Who is there?")
    made = [client.generate(session, speaker=1, max_tokens=8, numbers=True).replies()[0],
            client.generate(session, speaker=2, max_tokens=8, numbers=True).replies()[0]]
    client.append(session, b"I am too.", speaker=3)
    made += client.generate(session, speaker=1, n=2, max_tokens=8, numbers=True).replies()
    made.append(client.generate(session, speaker=0, max_tokens=8, numbers=True).replies()[0])
    return made


def test_each_speaker_sees_the_same_turns(client):
    session = open_group(client, seed=1)
    assert [(member.speaker, member.name) for member in session.cast] == \
        [(0, b"User"), (1, b"Ada"), (2, b"Bob"), (3, b"Eve")]
    assert [member.HasField("persona") for member in session.cast] == [False, True, True, False]
    first, second, third, _, user = converse(client, session.id)
    assert [node.speaker for node in (first, second, third, user)] == [1, 2, 1, 0]
    seen = context_text(client, second.id)
    assert "You are Bob." in seen and "You are Ada." not in seen
    assert re.search(r"User:\s*Who is there\?", seen)
    if first.text:
        assert first.text.decode("utf-8", "replace") in seen
    seen = context_text(client, third.id)
    assert "You are Ada." in seen and re.search(r"Eve:\s*I am too\.", seen)


@pytest.mark.parametrize("mode", [SEPARATE, JOINT])
@pytest.mark.parametrize("play", ["chat", "transcript"])
def test_a_group_is_replayed_bit_for_bit(start, play, mode):
    daemon = start()
    with daemon.client() as client:
        session = open_group(client, play=play, seed=2, group_mode=mode).id
        nodes = converse(client, session)
        contexts = [context_ids(client, node.id) for node in nodes]
        seen = verified(client, session)
        assert seen.equal_count == seen.node_count == len(nodes)
    daemon.end()
    daemon = start()
    with daemon.client() as client:
        seen = verified(client, session)
        assert seen.equal_count == seen.node_count == len(nodes)
        assert [context_ids(client, node.id) for node in nodes] == contexts
        listed = client.call("session_list").session_list.sessions[0]
        assert [member.name for member in listed.cast] == [b"User", b"Ada", b"Bob", b"Eve"]
        assert listed.group_mode == mode
        more = client.generate(session, speaker=2, max_tokens=4).replies()[0]
        assert more.speaker == 2
        cid = put(client, "Cid", extensions={"personad": {"play": play}})
        client.call("session_set", session=session, add=[entry(persona=cid)])
        last = client.generate(session, speaker=4, max_tokens=4).replies()[0]
        seen = context_text(client, last.id)
        assert "You are Cid." in seen
        assert ("You are Ada." in seen) == (mode == JOINT)
        assert verified(client, session).equal_count == len(nodes) + 2
    daemon.end()
    daemon = start("--tree-memory", "1")
    with daemon.client() as client:
        assert verified(client, session).equal_count == len(nodes) + 2
        assert [context_ids(client, node.id) for node in nodes] == contexts


def test_a_joint_group_has_all_preambles_and_one_lineage(client):
    session = open_group(client, seed=1, group_mode=JOINT)
    first, second, third, _, user = converse(client, session.id)
    assert session.group_mode == JOINT
    for node in (first, second, third, user):
        seen = context_text(client, node.id)
        assert "You are Ada." in seen and "You are Bob." in seen
    earlier, later = (context_ids(client, node.id) for node in (second, third))
    shared = next(at for at, (one, two) in enumerate(zip(earlier, later)) if one != two) \
        if earlier != later[:len(earlier)] else len(earlier)
    assert shared >= len(earlier) - 1, "what one saw, the other sees, up to who speaks"
    reply = client.call("context", node=second.id).context
    assert reply.persona == session.cast[2].persona


@pytest.mark.parametrize("mode", [SEPARATE, JOINT])
def test_a_group_is_looked_into_and_compared(client, mode):
    """Score and Distribution see what a reply sees; another persona takes a place in the group."""
    session = open_group(client, seed=7, group_mode=mode)
    client.append(session.id, b"Who is there?")
    reply = client.generate(session.id, speaker=2, max_tokens=4, numbers=True,
                            temperature=0.0).replies()[0]
    place = position(reply.parent.node)
    first = client.call("distribution", session=session.id, position=place, speaker=2,
                        tokens=[reply.numbers.tokens[0]]).distribution
    assert bits(MESSAGES["Numbers"](logprobs=first.logprobs))[1] == \
        bits(MESSAGES["Numbers"](logprobs=reply.numbers.logprobs[:1]))[1]
    other = put(client, "Cid")
    compared = client.call("compare", session=session.id,
                           personas=[session.cast[2].persona, other]).compare
    assert [one.persona for one in compared.personas] == [session.cast[2].persona, other]
    assert compared.personas[0].logprob != compared.personas[1].logprob
    last = list(compared.personas[0].logprobs)[-len(reply.content):]
    assert bits(MESSAGES["Numbers"](logprobs=last))[1] == \
        bits(MESSAGES["Numbers"](logprobs=reply.numbers.logprobs[:len(reply.content)]))[1]


def test_another_version_takes_over(client):
    first = put(client, "Ida", description="You are calm.")
    second = put(client, "Ida", description="You are angry.")
    session = client.call("session_open", persona=first, seed=3).session_open.session.id
    client.append(session, b"Hello")
    one = client.generate(session, max_tokens=6).replies()[0]
    joined = client.call("session_set", session=session, add=[entry(persona=second)])
    assert [member.persona for member in joined.session_set.session.cast[1:]] == [first, second]
    client.append(session, b"And now?")
    other = client.generate(session, speaker=2, max_tokens=6, temperature=0.1).replies()[0]
    seen = context_text(client, other.id)
    assert "angry" in seen and "calm" not in seen
    assert one.text.decode("utf-8", "replace") in seen
    assert verified(client, session).equal_count == 2


def test_no_name_of_the_cast_reaches_the_reader(client):
    """The model is held to say a text in which one of the cast would begin a line."""
    session = open_group(client, seed=4).id
    client.append(session, b"Hello")
    for name in (b"User", b"Ada", b"Bob", b"Eve"):
        text = b"Well.\n" + name + b": and so on"
        made = client.finish(client.send("generate", session=session, speaker=1, choices=[text],
                                         sampler=sampler(max_tokens=64)))
        reply = made.replies()[0]
        assert reply.text == b"Well." and reply.finish == 2, reply
        assert name not in b"".join(made.text.values())
    text = b"Well.\nDan: and so on"  # nobody of the cast
    made = client.finish(client.send("generate", session=session, speaker=1, choices=[text],
                                     sampler=sampler(max_tokens=64)))
    assert made.replies()[0].text == text


def test_what_a_cast_refuses(client):
    ada = put(client, "Ada")

    def refused(code, op, **fields):
        with pytest.raises(Refused) as caught:
            client.call(op, **fields)
        assert caught.value.code == CODES[code], caught.value
        return caught.value

    refused("CONFLICT", "session_open", persona=ada, cast=[entry(name=b"Ada")])
    refused("BAD_INPUT", "session_open", persona=ada, cast=[entry()])
    refused("BAD_INPUT", "session_open", persona=ada, cast=[entry(name=b"X", persona=ada)])
    refused("BAD_INPUT", "session_open", persona=ada, cast=[entry(name=b"a\nb")])
    refused("BAD_INPUT", "session_open", persona=ada, cast=[entry(name=b"\xff")])
    many = [entry(name=b"N%d" % i) for i in range(65)]
    assert refused("LIMIT", "session_open", persona=ada,
                   cast=many).limit_name == "SESSION_CAST_COUNT_MAX"
    session = client.call("session_open", persona=ada, cast=[entry(name=b"Eve")])
    session = session.session_open.session.id
    renamed = client.call("session_set", session=session,
                          rename=MESSAGES["SpeakerName"](speaker=2, name=b"Eva")).session_set
    assert renamed.session.cast[2].name == b"Eva"
    client.append(session, b"Hello", speaker=2)
    refused("CONFLICT", "session_set", session=session,
            rename=MESSAGES["SpeakerName"](speaker=2, name=b"Evi"))
    refused("BAD_INPUT", "append", session=session, text=b"x", speaker=3)


def test_at_the_command_line(daemon):
    terminal = Terminal(daemon, "--persona", "keeper", "--persona", "conductor", "--human", "Eve",
                        "--seed", "5", "--max-tokens", "8", NO_COLOR="1")
    try:
        terminal.wait_for(b"User: ")
        session = re.search(rb"Session (\d+)\.", terminal.seen).group(1).decode()
        terminal.say("/as Eve Good evening.")
        terminal.wait_for(b"User: ")
        terminal.say("/as Tomas")
        terminal.wait_for(b"Tomas: ")
        terminal.wait_for(b"User: ")
        terminal.say("/again")
        terminal.wait_for(b"Tomas: ")
        terminal.wait_for(b"User: ")
        terminal.say("And I?")
        terminal.wait_for(b"Marta: ")
        terminal.wait_for(b"User: ")
        terminal.say("/as Nobody")
        terminal.wait_for(b"the cast is User, Marta, Tomas, Eve")
        terminal.say("/quit")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    with daemon.client() as client:
        walked = client.call("walk", session=int(session), what=SUBTREE,
                             position=position(0)).walk.nodes
        spoken = [(node.speaker, node.origin == 0) for node in walked if node.parent.node]
        assert spoken.count((2, True)) == 2 and (3, False) in spoken and (1, True) in spoken
    said, = objects(persona(daemon, "say", "--json", "--session", session, "--as", "Eve", "--to",
                            "tomas", "--max-tokens", "4", "Really?"))
    with daemon.client() as client:
        path = client.call("walk", session=int(session)).walk.nodes
        assert path[-1].id == said["node"]
        assert [node.speaker for node in path[-2:]] == [3, 2]
    persona(daemon, "say", "--session", session, "--as", "Nobody", "x", status=2)
    said, = objects(persona(daemon, "say", "--json", "--persona", "keeper", "--persona",
                            "twenty-questions", "--group", "joint", "--max-tokens", "4", "Hello"))
    with daemon.client() as client:
        seen = context_text(client, said["node"])
        assert "lighthouse" in seen and seen.count("<|im_start|>system") == 1, seen
    persona(daemon, "say", "--group", "both", "x", status=2)


def test_from_python(daemon):
    with Python(daemon.socket) as python:
        session = python.open("keeper", seed=6, cast=["conductor", Human("Eve")])
        assert [member.name for member in session.members] == ["User", "Marta", "Tomas", "Eve"]
        assert session.members[3].persona is None
        reply, = session.say("Good evening.", speaker="Eve", reply_speaker="Tomas", max_tokens=6)
        assert reply.speaker == 2
        own, = session.generate(speaker="Marta", max_tokens=6, numbers=True)
        assert own.speaker == 1
        assert [member.name for member in session.add(Human("Dan"))][4] == "Dan"
        assert session.rename("Dan", "Don")[4].name == "Don"
        session.append("Hm.", speaker="Don")
        with pytest.raises(ValueError):
            session.append("Hm.", speaker="Dan")
        assert python.verify(session=session.id).different_count == 0


def test_who_joins_changes_nothing_that_was(client):
    """The same seed, words and persona: what was said before somebody joins has the same bits."""
    ada = put(client, "Ada")
    made = []
    for joins in (False, True):
        session = client.call("session_open", persona=ada, seed=9).session_open.session.id
        client.append(session, b"Hello")
        made.append(client.generate(session, max_tokens=8, numbers=True).replies()[0])
        if joins:
            client.call("session_set", session=session, add=[entry(name=b"Eve")])
            assert verified(client, session).equal_count == 1
    assert bits(made[0].numbers) == bits(made[1].numbers)
