"""Goal: what belongs to another system user can be neither read nor changed nor noticed, whatever
is asked about it and wherever it is named; a public persona can be played and not read.
Method: two real users on one daemon. Ann makes a session, a bookmark, a reply and personas; Bob
names them in every request that can name anything, in each of its places. The list of requests is
held to the protocol's, so that a new one must say here what it answers. What could be told by time
is told by counts of tokens that needed no computing: sharing is the only thing that saves time.
Twin: Ann herself, asking the same, is answered; and the counts show sharing where it is allowed.
"""
import base64
import json
import os
import re

import pytest

from client import CHILDREN, CODES, FINAL_ONLY, MESSAGES, NO_FOLLOW, SUBTREE, Refused, position
from test_users import ANN, BOB, as_user, shared  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")

DENIED, NOT_FOUND, BAD_INPUT = CODES["DENIED"], CODES["NOT_FOUND"], CODES["BAD_INPUT"]
SECRET = b"the quick brown fox of the secret prompt"
CARD = (b'{"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "Keeper", '
        b'"description": "' + SECRET + b'"}}')

# Requests that name nothing of anybody's.
NAMELESS = {"hello", "info", "stats", "backup", "persona_put", "persona_list", "session_list",
            "tokenize", "detokenize"}


def make(shared):
    """What Ann has."""
    with shared.client() as client:
        session = client.open(seed=1)
        node = client.append(session, b"Ann's words")
        reply = client.generate(session, max_tokens=5).replies()[0]
        client.call("bookmark", session=session, name=b"here", position=position(node.id))
        private = client.call("persona_put", card=CARD, visibility=0).persona_put.persona.id
        client.call("session_set", session=session, label=b"Ann's")
        request = client.send("expand", session=session, depth=2, width=2)
        expansion = client.next_of(request).expand.expansion
        return json.dumps({"session": session, "node": node.id, "reply": reply.id,
                           "private": private, "expansion": expansion,
                           "transfer": client.call("session_import", data=b"{").session_import
                           .transfer})


def prying(hers, own):
    """Every request with every place where something of Ann's can be named; `own` is Bob's."""
    session, node, reply, private = hers["session"], hers["node"], hers["reply"], hers["private"]
    item = MESSAGES["ScoreItem"](session=session, options=[MESSAGES["ScoreOption"](text=b"a")])
    inside = MESSAGES["ScoreItem"](session=own["session"], position=position(node),
                                   options=[MESSAGES["ScoreOption"](text=b"a")])
    member = MESSAGES["CastEntry"](persona=private)
    at = dict(session=own["session"], position=position(node))
    yield "persona_get", dict(id=private)
    yield "persona_delete", dict(id=private)
    yield "session_open", dict(persona=private)
    yield "session_open", dict(persona_name=b"plain", cast=[member])
    for fields in (dict(), dict(undo=True), dict(purge=True)):
        yield "session_delete", dict(session=session, **fields)
    yield "session_set", dict(session=session, label=b"mine")
    yield "session_set", dict(session=own["session"], add=[member])
    for op, more in (("say", dict(text=b"x")), ("generate", {}), ("append", dict(text=b"x")),
                     ("walk", {}), ("walk", dict(what=SUBTREE)), ("walk", dict(what=CHILDREN)),
                     ("head", {}), ("distribution", {}), ("compare", {}), ("expand", {})):
        yield op, dict(session=session, **more)
        if op != "walk" or more:
            yield op, dict(**at, **more)
    yield "bookmark", dict(session=session, name=b"there", position=position(node))
    yield "bookmark", dict(session=session, name=b"here", remove=True)
    yield "bookmark", dict(name=b"there", **at)
    yield "bookmark_list", dict(session=session)
    yield "edit", dict(node=node, from_byte=0, to_byte=1, text=b"x")
    yield "edit", dict(node=own["node"], from_byte=0, to_byte=1, text=b"x", carry=True,
                       until=position(node))
    yield "follow", dict(node=node)
    yield "follow", dict(node=reply, from_token=1)
    yield "cancel", dict(nodes=[reply])
    yield "cancel", dict(nodes=[own["node"], reply])
    yield "cancel", dict(session=session)
    for op in ("delete", "undelete", "purge"):
        yield op, dict(nodes=[node])
        # Of Bob's own, which is not deleted, Purge would say so first.
        yield op, dict(nodes=[node, own["node"]] if op == "purge" else [own["node"], node])
    yield "label", dict(node=node, label=b"mine")
    yield "context", dict(node=reply, tokens=True, text=True)
    yield "keep", dict(expansion=hers["expansion"], node=1)
    yield "note", dict(session=session, text=b"x")
    yield "note", dict(text=b"x", **at)
    yield "session_export", dict(session=session)
    yield "session_export", dict(session=own["session"], node=node)
    yield "session_export", dict(transfer=hers["transfer"])
    yield "session_import", dict(transfer=hers["transfer"], data=b"{}", end=True)
    yield "score", dict(session=own["session"], items=[item])
    yield "score", dict(session=session, items=[inside])
    yield "score", dict(session=own["session"], items=[inside])
    yield "compare", dict(session=own["session"], personas=[private])
    yield "group", dict(session=session)
    yield "group", dict(session=own["session"], nodes=[node])
    yield "group", dict(**at)
    yield "verify", dict(session=session)
    yield "verify", dict(node=node)
    yield "verify", dict(node=reply, path=True)


def code_of(client, op, fields):
    """0: it was answered."""
    try:
        request = client.send(op, **fields)
        while True:
            reply = client.next_of(request)
            if reply.WhichOneof("result") == "error":
                return reply.error.code
            if not reply.more:
                return 0
    except Refused as refused:
        return refused.code


def snapshot(shared, session):
    """All that Ann's session holds."""
    with shared.client() as client:
        walk = client.call("walk", session=session, what=SUBTREE, position=position(0), text=True,
                           content=True, numbers=True, deleted=True, count=100).walk
        marks = client.call("bookmark_list", session=session).bookmark_list
        head = client.call("head", session=session).head
        listed = client.call("session_list").session_list
        return " ".join(message.SerializeToString(deterministic=True).hex()
                        for message in (walk, marks, head, listed))


def own_things(client):
    session = client.open(seed=1)
    node = client.append(session, b"Bob's words")
    client.generate(session, max_tokens=3)
    return {"session": session, "node": node.id}


def test_every_request_of_the_protocol_is_asked_about_what_is_another_s():
    hers = {"session": 1, "node": 2, "reply": 3, "private": 4, "expansion": 7, "transfer": 8}
    asked = {op for op, _ in prying(hers, {"session": 5, "node": 6})}
    ops = {field.name for field in MESSAGES["Request"].DESCRIPTOR.oneofs_by_name["op"].fields}
    assert asked | NAMELESS == ops and not asked & NAMELESS


def test_nothing_of_another_s_is_answered_or_changed(shared):  # noqa: F811
    hers = json.loads(as_user(ANN, make, shared))
    before = as_user(ANN, snapshot, shared, hers["session"])

    def pry():
        with shared.client() as client:
            own = own_things(client)
            told = [(op, sorted(fields), code_of(client, op, fields))
                    for op, fields in prying(hers, own)]
            answered = [item for item in told
                        if item[2] not in (DENIED, NOT_FOUND)]
            listed = client.call("persona_list").persona_list.personas
            return json.dumps({"count": len(told), "answered": answered,
                               "personas": [item.id for item in listed]})

    told = json.loads(as_user(BOB, pry))
    assert told["answered"] == []
    assert told["count"] > 50
    assert hers["private"] not in told["personas"]
    assert as_user(ANN, snapshot, shared, hers["session"]) == before


def test_the_twin_that_owns_it_is_answered(shared):  # noqa: F811
    """The same requests by Ann: so it was not for another reason that Bob was refused."""
    hers = json.loads(as_user(ANN, make, shared))

    def ask():
        with shared.client() as client:
            codes = []
            for op, fields in prying(hers, own_things(client)):
                if op not in ("persona_delete", "session_delete", "delete", "undelete", "purge"):
                    codes.append(code_of(client, op, fields))
            return json.dumps(codes)

    codes = json.loads(as_user(ANN, ask))
    assert codes.count(0) > len(codes) / 2
    assert DENIED not in codes, "only places that name another session of hers may be refused"


def exported(client, session):
    """A session's file, and all in it that may be base64."""
    page = client.call("session_export", session=session).session_export
    assert page.end, "it fits one piece"
    return page.data + b"".join(base64.b64decode(word) for word in
                                re.findall(rb'"([A-Za-z0-9+/]{8,}={0,2})"', page.data)
                                if len(word) % 4 == 0)


def test_a_public_persona_is_played_and_not_read(shared):  # noqa: F811
    def put():
        with shared.client() as client:
            return client.call("persona_put", card=CARD, visibility=1).persona_put.persona.id

    persona = int(as_user(ANN, put))

    def play():
        """All bytes that the daemon ever sends to Bob."""
        with shared.client() as client:
            opened = client.call("session_open", persona=persona, seed=3).session_open
            session = opened.session.id
            made = client.finish(client.send_generate(session, op="say", text=b"hello",
                                                      max_tokens=8, context=True, numbers=True))
            node = made.replies()[0].id
            replies = [client.call("persona_get", id=persona), client.call("persona_list"),
                       client.call("context", node=node, tokens=True, text=True),
                       client.call("walk", session=session, what=SUBTREE, position=position(0),
                                   text=True, content=True, count=50),
                       client.call("compare", session=session, personas=[persona]),
                       client.call("distribution", session=session, position=position(0))]
            context = replies[2].context
            hidden = [segment for segment in context.segments
                      if segment.hidden and not segment.tokens and not segment.text]
            text = b"".join(reply.SerializeToString() for reply in replies)
            text += exported(client, session)
            return json.dumps({"read": SECRET.decode() in text.decode("latin-1"),
                               "context": list(made.context), "hidden": len(hidden),
                               "code": code_of(client, "persona_delete", dict(id=persona))})

    told = json.loads(as_user(BOB, play))
    assert not told["read"] and told["context"] == [] and told["hidden"] > 0
    assert told["code"] == DENIED

    def read():
        with shared.client() as client:
            session = client.call("session_open", persona=persona).session_open.session.id
            made = client.finish(client.send_generate(session, op="say", text=b"hello",
                                                      max_tokens=2, context=True))
            node = made.replies()[0].id
            context = client.call("context", node=node, text=True).context
            return SECRET in b"".join(segment.text for segment in context.segments) and \
                len(made.context) > 0 and SECRET in exported(client, session)

    assert as_user(ANN, read) == "True", "the twin: its owner reads it"


def cached_of(shared, persona, text):
    """Of a first reply: tokens of its context that needed no computing, and all of them."""
    with shared.client() as client:
        session = client.call("session_open", persona=persona, seed=9).session_open.session.id
        made = client.finish(client.send_generate(session, op="say", text=text, max_tokens=1,
                                                  delivery=FINAL_ONLY))
        reply = list(made.finished.values())[0]
        return json.dumps([reply.context_cached, reply.context_cached + reply.context_computed])


def test_only_public_prompts_are_shared_between_users(shared):  # noqa: F811
    def put(visibility):
        with shared.client() as client:
            return client.call("persona_put", card=CARD,
                               visibility=visibility).persona_put.persona.id

    words = b"a long question that both of them ask with the very same words"
    public = int(as_user(ANN, put, 1))
    first = json.loads(as_user(ANN, cached_of, shared, public, words))
    second = json.loads(as_user(ANN, cached_of, shared, public, words))
    other = json.loads(as_user(BOB, cached_of, shared, public, words))
    longer = json.loads(as_user(BOB, cached_of, shared, public, b"something else"))
    assert first[0] == 0 and second[0] > 0, "the twin: sharing shows in the count"
    assert other[0] == second[0], "a public prompt is shared with Bob as with Ann's own sessions"
    assert longer[0] == second[0] < first[1], "but never what was said behind it"
    private = int(as_user(ANN, put, 0))
    mine = int(as_user(BOB, put, 0))
    assert json.loads(as_user(ANN, cached_of, shared, private, words))[0] == 0
    assert json.loads(as_user(ANN, cached_of, shared, private, words))[0] > 0
    assert json.loads(as_user(BOB, cached_of, shared, mine, words))[0] == 0, \
        "the same card of another user is another prompt"


def test_nobody_cancels_or_follows_what_another_generates(shared):  # noqa: F811
    def begin():
        with shared.client() as client:
            session = client.open(seed=5)
            made = client.finish(client.send_generate(session, max_tokens=400, ignore_end=True,
                                                      delivery=NO_FOLLOW))
            return json.dumps([session, made.nodes[0].id])

    session, node = json.loads(as_user(ANN, begin))

    def disturb():
        with shared.client() as client:
            return json.dumps([code_of(client, "cancel", dict(nodes=[node])),
                               code_of(client, "cancel", dict(session=session)),
                               code_of(client, "delete", dict(nodes=[node])),
                               code_of(client, "follow", dict(node=node))])

    assert json.loads(as_user(BOB, disturb)) == [DENIED] * 4

    def end():
        with shared.client() as client:
            made = client.finish(client.send("follow", node=node, delivery=FINAL_ONLY))
            return len(made.finished[node].node.content)

    assert int(as_user(ANN, end)) == 400
