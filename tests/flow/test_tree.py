"""What is done to a tree beside growing it, through a real socket: deleted and back, purged, named,
looked into. Refusals are asked for beside each use."""
import signal

import pytest

from client import (CHILDREN, CODES, NODE, PATH, SUBTREE, Refused, position)

pytestmark = pytest.mark.tsan


def refused(client, code, op, **fields):
    with pytest.raises(Refused) as error:
        client.call(op, **fields)
    assert error.value.code == CODES[code], error.value.text
    return error.value.text


def ids_of(client, session, **fields):
    walk = client.call("walk", session=session, position=position(0), what=SUBTREE, **fields).walk
    return [node.id for node in walk.nodes]


def grow(client):
    """A session with one root text and two replies to it, the second with a text behind it."""
    session = client.open(seed=5)
    root = client.append(session, b"Once there was").id
    first, second = [node.id for node in client.generate(
        session, n=2, max_tokens=6, ignore_end=True).replies()]
    below = client.append(session, b" more", position=position(second), continuing=True).id
    return session, root, first, second, below


def test_a_deleted_node_is_hidden_with_all_below_it_and_comes_back(client):
    session, root, first, second, below = grow(client)
    client.call("delete", nodes=[second])
    assert ids_of(client, session) == [root, first]
    assert ids_of(client, session, deleted=True) == [root, first, second, below]
    marked = client.call("walk", session=session, position=position(root), what=CHILDREN,
                         deleted=True).walk.nodes
    assert [node.deleted for node in marked] == [False, True]
    assert "Undelete" in refused(client, "NOT_FOUND", "generate", session=session,
                                 position=position(below))
    # The reader stood below and was moved to where the deleted node hangs.
    head = client.call("head", session=session).head.position
    assert head.node == root
    client.call("undelete", nodes=[second])
    assert ids_of(client, session) == [root, first, second, below]


def test_deleting_ends_what_is_being_generated(client):
    session = client.open(seed=5)
    client.append(session, b"On and on")
    request = client.send_generate(session, max_tokens=2000, ignore_end=True)
    node = client.next_of(request).created.nodes[0].id
    client.call("delete", nodes=[node])
    made = client.finish(request)
    assert made.finished[node].node.content_tokens < 2000


def test_only_what_is_deleted_can_be_purged_and_ordinals_are_not_used_again(client):
    session, root, first, second, below = grow(client)
    refused(client, "CONFLICT", "purge", nodes=[second])
    client.call("delete", nodes=[second])
    client.call("purge", nodes=[second])
    assert ids_of(client, session, deleted=True) == [root, first]
    for gone in (second, below):
        refused(client, "NOT_FOUND", "undelete", nodes=[gone])
    third = client.generate(session, position=position(root), max_tokens=2).replies()[0]
    assert third.ordinal == 2


def test_marks_are_all_or_nothing(client):
    session, root, first, second, _ = grow(client)
    refused(client, "NOT_FOUND", "delete", nodes=[first, 1 << 60])
    assert first in ids_of(client, session)
    refused(client, "BAD_INPUT", "delete", nodes=[])
    refused(client, "LIMIT", "delete", nodes=[first] * 4097)
    assert root in ids_of(client, session) and second in ids_of(client, session)


def test_labels_name_nodes_and_sessions(client):
    session, root, *_ = grow(client)
    client.call("label", node=root, label="Anfang ä".encode())
    node = client.call("walk", session=session, position=position(root), what=PATH).walk.nodes[0]
    assert node.label == "Anfang ä".encode()
    client.call("label", node=root, label=b"")
    node = client.call("walk", session=session, position=position(root), what=PATH).walk.nodes[0]
    assert node.label == b""
    assert client.call("session_set", session=session,
                       label=b"mine").session_set.session.label == b"mine"
    refused(client, "BAD_INPUT", "label", node=root, label=b"\xff")
    refused(client, "LIMIT", "label", node=root, label=b"x" * 257)


def test_bookmarks_name_positions_and_move(client):
    session, root, first, *_ = grow(client)
    client.call("bookmark", session=session, name=b"b", position=position(root, 1))
    client.call("bookmark", session=session, name=b"a", position=position(first))
    client.call("bookmark", session=session, name=b"b", position=position(first, 2))
    listed = client.call("bookmark_list", session=session).bookmark_list
    moved = listed.bookmarks[1].position
    assert (moved.node, moved.offset) == (first, 2)
    assert [mark.name for mark in listed.bookmarks] == [b"a", b"b"] and listed.end
    page = client.call("bookmark_list", session=session, skip=1, count=1).bookmark_list
    assert [mark.name for mark in page.bookmarks] == [b"b"]
    client.call("delete", nodes=[first])
    assert not client.call("bookmark_list", session=session).bookmark_list.bookmarks
    client.call("undelete", nodes=[first])
    client.call("bookmark", session=session, name=b"a", remove=True)
    refused(client, "NOT_FOUND", "bookmark", session=session, name=b"a", remove=True)
    refused(client, "BAD_INPUT", "bookmark", session=session, name=b"")
    refused(client, "BAD_INPUT", "bookmark", session=session, name=b"c",
            position=position(root, 9999))


def test_a_context_says_what_the_model_saw(client):
    session = client.call("session_open", persona_name=b"conductor",
                          user_name=b"Ann").session_open.session.id
    made = client.finish(client.send_generate(session, op="say", text=b"Hello.", max_tokens=4,
                                              ignore_end=True, context=True))
    reply = made.replies()[0]
    seen = client.call("context", node=reply.id, tokens=True, text=True).context
    tokens = [token for segment in seen.segments for token in segment.tokens]
    assert tokens == made.context and seen.token_count == len(tokens) and seen.end
    said = [segment for segment in seen.segments if segment.node == made.nodes[0].id]
    assert [segment.text.strip() for segment in said] == [b"Hello."]
    pages = []
    while len(pages) < seen.segment_count:
        page = client.call("context", node=reply.id, tokens=True, skip=len(pages), count=2).context
        pages.extend(page.segments)
    assert page.end and [list(part.tokens) for part in pages] == \
        [list(part.tokens) for part in seen.segments]
    refused(client, "CONFLICT", "context", node=made.nodes[0].id)


def test_a_context_names_what_the_window_left_out(client):
    session = client.open(seed=1, context_tokens=64)
    given = []
    for _ in range(6):
        given.append(client.append(session, b"one two three four five six seven eight").id)
    reply = client.generate(session, max_tokens=2).replies()[0]
    seen = client.call("context", node=reply.id).context
    shown = [segment.node for segment in seen.segments if segment.node]
    assert seen.turns_left_out > 0
    assert [part.node for part in seen.omitted] + shown == given


def test_a_deleted_session_is_found_by_nobody_until_it_is_back(client):
    session, root, *_ = grow(client)

    def listed(**fields):
        after, found = 0, []
        while True:
            page = client.call("session_list", after=after, **fields).session_list
            found += [(item.id, item.deleted) for item in page.sessions]
            if page.end:
                return found
            after = page.sessions[-1].id

    refused(client, "CONFLICT", "session_delete", session=session, purge=True)
    refused(client, "BAD_INPUT", "session_delete", session=session, purge=True, undo=True)
    client.call("session_delete", session=session)
    assert (session, False) not in listed() and (session, True) in listed(deleted=True)
    for op, fields in (("walk", {"session": session}), ("follow", {"node": root}),
                       ("append", {"session": session, "text": b"x"}),
                       ("session_set", {"session": session, "label": b"x"})):
        refused(client, "NOT_FOUND", op, **fields)
    client.call("session_delete", session=session, undo=True)
    assert root in ids_of(client, session)
    client.call("session_delete", session=session)
    before = client.call("stats").stats
    client.call("session_delete", session=session, purge=True)
    after = client.call("stats").stats
    assert after.session_count == before.session_count - 1
    assert after.node_count == before.node_count - 4
    refused(client, "NOT_FOUND", "session_delete", session=session, undo=True)


def test_a_deleted_persona_is_played_on_but_not_opened(client):
    card = (b'{"spec": "chara_card_v2", "data": {"name": "Gone", "description": "Soon away."}}')
    put = client.call("persona_put", card=card).persona_put.persona
    session = client.call("session_open", persona=put.id).session_open.session.id
    client.call("persona_delete", id=put.id)
    refused(client, "NOT_FOUND", "session_open", persona=put.id)
    refused(client, "NOT_FOUND", "session_open", persona_name=b"Gone")
    assert client.finish(client.send_generate(session, op="say", text=b"Still there?",
                                              max_tokens=3)).replies()
    assert client.call("persona_put", card=card).persona_put.persona.id == put.id
    client.call("session_open", persona=put.id)
    built_in = client.call("persona_get", name=b"plain").persona_get.persona.id
    refused(client, "CONFLICT", "persona_delete", id=built_in)


def text_of(client, session, node):
    walk = client.call("walk", session=session, position=position(node), what=NODE, text=True,
                       content=True).walk
    return walk.nodes[0].text, list(walk.nodes[0].content)


def test_an_edit_is_a_sibling_that_keeps_all_other_tokens(client):
    session = client.open(seed=5)
    words = b"The quick brown fox jumps over the lazy dog"
    node = client.append(session, words)
    before = text_of(client, session, node.id)[1]
    at = words.index(b"own fox")
    made = client.call("edit", node=node.id, from_byte=at, to_byte=at + 5,
                       text="\u00e9!".encode()).created.nodes
    assert len(made) == 1 and made[0].original == node.id and made[0].ordinal == 1
    text, ids = text_of(client, session, made[0].id)
    assert text == words[:at] + "\u00e9!".encode() + words[at + 5:]
    assert ids[:2] == before[:2] and ids[-6:] == before[-6:]
    assert text_of(client, session, node.id) == (words, before)
    assert client.call("head", session=session).head.position.node == made[0].id
    # Nothing new: the very same tokens.
    again = client.call("edit", node=node.id, from_byte=0, to_byte=0).created.nodes[0]
    assert text_of(client, session, again.id) == (words, before)
    refused(client, "BAD_INPUT", "edit", node=node.id, from_byte=5, to_byte=4)
    refused(client, "BAD_INPUT", "edit", node=node.id, to_byte=len(words) + 1)
    refused(client, "BAD_INPUT", "edit", node=node.id)
    refused(client, "NOT_FOUND", "edit", node=1 << 60, text=b"x")


def test_an_edit_carries_the_path_below(client):
    session, root, _, second, below = grow(client)
    last = client.append(session, b" end", position=position(below), continuing=True).id
    reply = text_of(client, session, second)
    made = client.call("edit", node=root, from_byte=0, to_byte=4, text=b"Never",
                       carry=True).created.nodes
    assert [node.original for node in made] == [root, second, below, last]
    assert text_of(client, session, made[1].id) == reply
    path = client.call("walk", session=session, position=position(made[-1].id),
                       text=True).walk.nodes
    assert b"".join(node.text for node in path) == \
        b"Never there was" + reply[0] + b" more end"
    assert [node.opens_turn for node in made] == [True, True, False, False]
    # A path that leaves the node before the edit cannot be carried.
    fork = client.append(session, b"elsewhere", position=position(root, 1)).id
    refused(client, "CONFLICT", "edit", node=root, from_byte=8, text=b"x", carry=True,
            until=position(fork))
    refused(client, "BAD_INPUT", "edit", node=second, text=b"x", carry=True, until=position(fork))


def test_what_is_still_being_generated_can_be_forked_and_edited(client):
    session = client.open(seed=5)
    client.append(session, b"On and on")
    request = client.send_generate(session, max_tokens=1500, ignore_end=True)
    node = client.next_of(request).created.nodes[0].id
    while True:
        reply = client.next_of(request)
        if reply.tokens.first_token + reply.tokens.token_count > 3:
            break
    fork = client.generate(session, position=position(node, 2), max_tokens=3, continuing=True,
                           ignore_end=True).replies()[0]
    edited = client.call("edit", node=node, from_byte=0, to_byte=1, text=b"Z").created.nodes[0]
    assert fork.parent.node == node and fork.parent.offset == 2
    assert text_of(client, session, edited.id)[0].startswith(b"Z")
    client.call("cancel", nodes=[node])
    seen = client.call("context", node=fork.id, tokens=True).context
    assert list(seen.segments[-1].tokens) == text_of(client, session, node)[1][:2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_marks_names_and_what_is_purged_outlast_a_restart(start, number):
    card = b'{"spec": "chara_card_v2", "data": {"name": "Gone", "description": "Soon away."}}'
    daemon = start()
    with daemon.client() as client:
        session, root, first, second, below = grow(client)
        client.call("label", node=first, label=b"good")
        client.call("bookmark", session=session, name=b"here", position=position(first, 1))
        client.call("bookmark", session=session, name=b"there", position=position(first))
        client.call("bookmark", session=session, name=b"there", remove=True)
        client.call("session_set", session=session, label=b"mine")
        kept = client.append(session, b"hidden", position=position(root)).id
        client.call("edit", node=kept, from_byte=0, to_byte=1, text=b"H")
        client.call("delete", nodes=[kept])
        client.call("delete", nodes=[second])
        client.call("purge", nodes=[second])
        away = grow(client)[0]
        client.call("session_delete", session=away)
        gone = grow(client)[0]
        client.append(gone, b"unforgettable secret")
        client.call("session_delete", session=gone)
        client.call("session_delete", session=gone, purge=True)
        persona = client.call("persona_put", card=card).persona_put.persona.id
        client.call("persona_delete", id=persona)
        before = client.call("walk", session=session, position=position(0), what=SUBTREE,
                             deleted=True, text=True, numbers=True).walk.SerializeToString()
    daemon.kill(number)
    daemon.wait()
    with start().client() as client:
        walk = client.call("walk", session=session, position=position(0), what=SUBTREE,
                           deleted=True, text=True, numbers=True).walk
        assert walk.SerializeToString() == before
        assert [node.id for node in walk.nodes][:3] == [root, first, kept]
        assert walk.nodes[3].original == kept
        assert walk.nodes[1].label == b"good"
        marks = client.call("bookmark_list", session=session).bookmark_list.bookmarks
        assert [(mark.name, mark.position.node, mark.position.offset) for mark in marks] == \
            [(b"here", first, 1)]
        assert client.call("session_set", session=session).session_set.session.label == b"mine"
        refused(client, "NOT_FOUND", "follow", node=below)
        refused(client, "NOT_FOUND", "walk", session=away)
        client.call("session_delete", session=away, undo=True)
        assert len(ids_of(client, away)) == 4
        refused(client, "NOT_FOUND", "session_delete", session=gone, undo=True)
        refused(client, "NOT_FOUND", "session_open", persona=persona)
        assert client.call("persona_put", card=card).persona_put.persona.id == persona
        assert client.open() > gone
        assert client.generate(session, position=position(root), max_tokens=2).replies()[0]
