"""Goal: a tree leaves as one of exoloom, whose nodes fork at their ends only, and every path has
the text that it has here, wherever ours fork: between tokens, inside a character, where a bookmark
stands. What comes back in is the same tree of texts. Trees of other programs come in, too.
Method: what is told of our tree is computed here from its tokens, what is told of theirs from the
file, by other code; random trees grow by appending, generating, forking and deleting anywhere.
Twins: a fork that is moved by one byte, and a text that is cut elsewhere, are told apart.
"""
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import persona
from client import position
from conftest import tiny_model
from test_export import import_file, joined, nodes_of, records, export

UNKNOWN = "\ufffd"


def told(data):
    """Each byte that belongs to no character shows as one sign."""
    text = ""
    while data:
        for size in range(1, 5):
            try:
                text += data[:size].decode()
                break
            except UnicodeDecodeError:
                if size >= min(4, len(data)):
                    text += UNKNOWN
                    size = 1
                    break
        data = data[size:]
    return text


def byte_at(client, node, offset):
    if offset >= len(node.content):
        return len(node.text)
    if offset == 0:
        return 0
    shown = client.call("detokenize", tokens=list(node.content[:offset])).detokenize.text
    assert node.text.startswith(shown)
    return len(shown)


def paths_of(client, session):
    """Where paths end, by their texts: nodes at whose end nothing hangs."""
    nodes = {node.id: node for node in nodes_of(client, session)}
    before, ends = {0: b""}, set(nodes)
    for node in nodes.values():  # parents come first
        parent = nodes.get(node.parent.node)
        byte = byte_at(client, parent, node.parent.offset) if parent else 0
        before[node.id] = (before[parent.id] + parent.text[:byte]) if parent else b""
        if parent and byte == len(parent.text):
            ends.discard(parent.id)
    return sorted(told(before[end] + nodes[end].text) for end in ends)


def paths_of_loom(tree):
    """The same of their file."""
    nodes, found = tree["tree"]["nodes"], []
    stack = [(tree["tree"]["rootNodeId"], None, "")]
    seen = set()
    while stack:
        number, parent, before = stack.pop()
        assert number not in seen
        seen.add(number)
        node = nodes[str(number)]
        assert node["parentId"] == parent
        text = before + node["content"]
        stack += [(child, number, text) for child in node["childrenIds"]]
        if not node["childrenIds"] and parent is not None:
            found.append(text)
    assert len(seen) == len(nodes)
    return sorted(found)


def out(daemon, session, *more):
    return json.loads(persona(daemon, "export", "--format", "exoloom", *more, str(session)))


def into(daemon, tree, *more, status=0):
    said = persona(daemon, "import", "--json", "--format", "exoloom", *more, "-",
                   text=json.dumps(tree), status=status)
    return json.loads(said)["session"] if status == 0 else said


def hidden(client, session):
    """Texts of what is deleted, or hangs below what is."""
    shown = {node.id for node in client.call(
        "walk", session=session, what=2, position=position(0), count=1000).walk.nodes}
    return "".join(sorted(told(node.text) for node in nodes_of(client, session)
                          if node.id not in shown))


def test_nodes_are_cut_where_others_hang_inside_them(daemon, client):
    session = client.open(label="A tale \u00e9".encode(), user_name=b"Ann")
    text = "Once upon a time \u00e9\u4e2d\U0001f600 lived"
    first = client.append(session, text.encode())
    for offset in range(first.content_tokens + 1):
        client.append(session, f"<{offset}>".encode(), speaker=1,
                      position=position(first.id, offset))
    client.call("bookmark", session=session, name=b"a", position=position(first.id, 3))
    client.call("bookmark", session=session, name=b"b", position=position(0))
    last = nodes_of(client, session)[-1]
    client.call("delete", nodes=[last.id])
    tree = out(daemon, session)
    assert tree["loomType"] == "Exoloom" and tree["schemaVersion"] == 1
    assert tree["tree"]["title"] == "A tale \u00e9" and tree["tree"]["createdAt"].endswith("Z")
    paths = paths_of_loom(tree)
    assert paths == paths_of(client, session) and len(paths) == first.content_tokens + 1
    assert sum(UNKNOWN in path for path in paths) > 0, "a fork inside a character ends it"
    nodes = tree["tree"]["nodes"]
    assert {(node["authorType"], node["authorName"]) for key, node in nodes.items()
            if key != "1"} == {("USER", "Ann"), ("LLM", "plain")}
    marks = [nodes[str(mark["nodeId"])] for mark in tree["lens"]["bookmarks"]]
    assert [mark["parentId"] is None for mark in marks] == [False, True]
    assert marks[0]["childrenIds"], "it stands inside"
    assert [nodes[str(one["nodeId"])]["content"] for one in tree["lens"]["prunedNodes"]] == \
        [told(last.text)]
    # The twin: what hangs one byte further is another tree.
    moved = json.loads(json.dumps(tree))
    piece = next(node for node in moved["tree"]["nodes"].values()
                 if len(node["content"]) > 1 and len(node["childrenIds"]) > 1)
    piece["content"] = piece["content"][:-1]
    assert paths_of_loom(moved) != paths


def test_what_comes_back_is_the_same_tree_of_texts(daemon, client):
    session = client.open(label=b"a title", seed=3)
    first = client.append(session, "Wer da? \u00e9 Niemand.".encode())
    for offset in (0, 2, 9, 11):
        client.generate(session, position=position(first.id, offset), max_tokens=30,
                        temperature=5.0, ignore_end=True, n=2)
    client.call("bookmark", session=session, name=b"b", position=position(first.id, 5))
    client.call("delete", nodes=[nodes_of(client, session)[-1].id])
    tree = out(daemon, session)
    back = into(daemon, tree)
    assert paths_of(client, back) == paths_of(client, session)
    assert hidden(client, back) == hidden(client, session) != ""
    info = [one for one in client.call("session_list", count=1000).session_list.sessions
            if one.id == back]
    assert info[0].label == b"a title"
    # Their tree has no turns and other numbers; from there on it is the same file.
    again = out(daemon, back)
    assert paths_of_loom(again) == paths_of_loom(tree)
    assert len(again["lens"]["bookmarks"]) == 1 == len(again["lens"]["prunedNodes"])
    once_more = out(daemon, into(daemon, again))
    for one in (again, once_more):
        del one["tree"]["createdAt"]
        for node in one["tree"]["nodes"].values():
            node.pop("createdAt", None)
    assert once_more == again


WORDS = st.one_of(
    st.text(alphabet="ab \n\"\\\u00e9\u4e2d\U0001f600\ufffd", min_size=1, max_size=12),
    st.text(min_size=1, max_size=6).filter(lambda text: text.encode(errors="ignore")))
STEPS = st.lists(st.tuples(st.sampled_from(["append", "append", "sample", "delete", "mark"]),
                           st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 1),
                           WORDS), min_size=1, max_size=14)


def grow(client, steps):
    session = client.open(seed=1)
    for number, (kind, where, offset, speaker, words) in enumerate(steps):
        nodes = nodes_of(client, session)
        shown = client.call("walk", session=session, what=2, position=position(0),
                            count=1000).walk.nodes
        parent = ([None] + list(shown))[where % (len(shown) + 1)]
        place = position(parent.id, offset % (parent.content_tokens + 1)) if parent \
            else position(0)
        if kind == "append" or not nodes:
            client.append(session, words.encode(errors="ignore") or b"x", position=place,
                          speaker=speaker, continuing=bool(parent and offset % 3 == 0))
        elif kind == "sample":
            client.generate(session, position=place, speaker=speaker, temperature=6.0,
                            max_tokens=1 + offset % 9, ignore_end=True, n=1 + offset % 2)
        elif kind == "delete" and parent and len(shown) > 3:
            client.call("delete", nodes=[parent.id])
        elif kind == "mark":
            client.call("bookmark", session=session, name=str(number).encode(), position=place)
    return session


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_random_trees_keep_the_text_of_every_path(daemon, steps):
    with daemon.client() as client:
        session = grow(client, steps)
        tree = out(daemon, session)
        assert paths_of_loom(tree) == paths_of(client, session)
        back = into(daemon, tree)
        assert paths_of(client, back) == paths_of(client, session)
        assert (hidden(client, back) == "") == (hidden(client, session) == "")
        marks = [client.call("bookmark_list", session=each, count=100).bookmark_list.bookmarks
                 for each in (session, back)]
        assert len(marks[0]) == len(marks[1])
        for each in (session, back):
            client.call("session_delete", session=each)


def test_the_path_to_a_node_alone(daemon, client):
    session = client.open()
    first = client.append(session, b"one two three four")
    second = client.append(session, b" five", position=position(first.id, 4))
    client.append(session, b" six", position=position(first.id, 2))
    third = client.append(session, b" seven", position=position(second.id))
    client.call("bookmark", session=session, name=b"away", position=position(second.id + 1))
    tree = out(daemon, session, "--node", str(third.id))
    cut = byte_at(client, nodes_of(client, session)[0], 4)
    assert paths_of_loom(tree) == sorted(["one two three four",
                                          "one two three four"[:cut] + " five seven"])
    assert not tree["lens"]["bookmarks"]
    persona(daemon, "export", "--format", "exoloom", "--node", str(10 ** 12), str(session),
            status=1)
    persona(daemon, "export", "--format", "exoloom", str(10 ** 12), status=1)


def test_words_of_a_path_end_where_it_leaves_a_node(daemon, client):
    """Of the formats of one path, too."""
    session = client.open(b"plain", user_name=b"Ann")
    first = client.append(session, b"one two three four")
    client.append(session, b" five", speaker=1, position=position(first.id, 4))
    whole = nodes_of(client, session)[0]
    cut = byte_at(client, whole, 4)
    assert 0 < cut < len(whole.text)
    words = whole.text[:cut].decode()
    assert persona(daemon, "export", "--format", "text", str(session)) == \
        f"Ann: {words}\nplain:  five\n"
    chat = [json.loads(line) for line in
            persona(daemon, "export", "--format", "sillytavern", str(session)).splitlines()]
    assert [line["mes"] for line in chat[1:]] == [words, " five"]
    client.call("head", session=session, position=position(first.id, 4))
    assert persona(daemon, "export", "--format", "text", str(session)) == f"Ann: {words}\n"
    assert persona(daemon, "export", "--format", "text", "--node", str(first.id),
                   str(session)) == "Ann: one two three four\n"


def test_an_empty_session_is_a_root_alone(daemon, client):
    tree = out(daemon, client.open())
    assert list(tree["tree"]["nodes"]) == ["1"]
    assert not nodes_of(client, into(daemon, tree))


def test_what_another_model_made_forks_between_its_nodes_alone(start, folder):
    with start().client() as client:
        session = client.open()
        first = client.append(session, b"one two three four")
        client.append(session, b" five", position=position(first.id))
        whole = export(client, session)
        client.append(session, b" six", position=position(first.id, 4))
        forked = export(client, session)
    other = os.path.join(folder, "other")
    os.makedirs(other)
    daemon = start("--data", os.path.join(other, "data"), "--socket", os.path.join(other, "s"),
                   model=tiny_model("F16-spm"), expect_ready=False)
    daemon.first_line()
    daemon.socket = os.path.join(other, "s")
    with daemon.client() as client:
        tree = out(daemon, import_file(client, whole).id)
        assert paths_of_loom(tree) == ["one two three four five"]
        made = import_file(client, forked).id
        persona(daemon, "export", "--format", "exoloom", str(made), status=1)
        persona(daemon, "export", "--format", "text", str(made), status=1)


# ---- theirs


def node(content, author, parent, *children):
    return {"content": content, "authorType": author, "parentId": parent,
            "childrenIds": list(children)}


def wood(numbers=False):
    """Ids are numbers in their files, and texts where another program wrote them."""
    names = {"r": 7, "a": 8, "b": 9007199254740993, "c": 10} if numbers else \
        {name: name for name in "rabc"}
    r, a, b, c = names.values()
    return {"loomType": "Exoloom", "version": "1", "schemaVersion": 1,
            "tree": {"rootNodeId": r, "nodes": {
                str(r): node("Once", "USER", None, a, b), str(a): node(" upon", "LLM", r, c),
                str(b): node(" more", "LLM", r), str(c): node(" a time", "LLM", a)}},
            "lens": {"bookmarks": [{"nodeId": c}], "prunedNodes": [{"nodeId": b}]}}


@pytest.mark.parametrize("numbers", [False, True])
def test_a_tree_of_exoloom_comes_in(daemon, client, numbers):
    session = into(daemon, wood(numbers))
    nodes = nodes_of(client, session)
    assert [(one.text, one.speaker, one.opens_turn, one.deleted) for one in nodes] == [
        (b"Once", 0, True, False), (b" upon", 1, True, False), (b" a time", 1, False, False),
        (b" more", 1, True, True)]
    mark = client.call("bookmark_list", session=session).bookmark_list.bookmarks[0]
    assert mark.position.node == nodes[2].id
    assert client.generate(session, position=position(nodes[2].id), continuing=True,
                           max_tokens=3).replies()
    assert paths_of_loom(out(daemon, into(daemon, wood(numbers)))) == \
        paths_of_loom(wood(True)) == paths_of(client, into(daemon, wood(numbers)))


def test_a_root_without_words_is_ours(daemon, client):
    tree = wood(True)
    tree["tree"]["nodes"]["7"]["content"] = ""
    tree["lens"]["bookmarks"] = [{"nodeId": 7}]
    tree["tree"]["title"] = "\u00e9" * 200  # a label holds 256 bytes
    session = into(daemon, tree)
    nodes = nodes_of(client, session)
    assert [(one.text, one.parent.node, one.opens_turn) for one in nodes] == [
        (b" upon", 0, True), (b" a time", nodes[0].id, False), (b" more", 0, True)]
    mark = client.call("bookmark_list", session=session).bookmark_list.bookmarks[0]
    assert mark.position.node == 0
    info = [one for one in client.call("session_list", count=1000).session_list.sessions
            if one.id == session]
    assert info[0].label.decode() == "\u00e9" * 128


def test_trees_that_are_none_are_refused(daemon, client):
    before = client.call("session_list", count=1000).session_list
    for numbers in (False, True):
        tree = wood(numbers)
        nodes = tree["tree"]["nodes"]
        leaf = nodes["10" if numbers else "c"]
        leaf["childrenIds"] = [tree["tree"]["rootNodeId"]]  # a ring
        into(daemon, tree, status=1)
        for wrong in (5, None, [], {}, 1.5, "nobody", 2 ** 70):
            leaf["childrenIds"] = [wrong]
            into(daemon, tree, status=1)
        leaf["childrenIds"] = []
        for wrong in (None, [], "nobody", 99):
            into(daemon, {**tree, "tree": {**tree["tree"], "rootNodeId": wrong}}, status=1)
        into(daemon, {**tree, "schemaVersion": 2}, status=1)
        into(daemon, {**tree, "tree": []}, status=1)
    into(daemon, [], status=1)
    into(daemon, "", status=1)
    assert client.call("session_list", count=1000).session_list == before
