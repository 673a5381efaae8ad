"""Goal: `persona walk` prints every node of a tree, in order, whole, whatever its text.
Method: trees with forks, edits and deleted nodes; what is printed against the walk of the flow's
client; texts are read back from their escapes byte by byte.
"""
import re

from cli import objects, persona
from client import SUBTREE, position


def grown(client):
    session = client.open(b"keeper", seed=5)
    made = client.finish(client.send_generate(session, op="say", n=3, max_tokens=8,
                                              text="tab\tline\nback\\slash \u00e9".encode()))
    first = made.replies()[0]
    client.generate(session, position=position(first.id, 2), n=2, max_tokens=6, temperature=4.0)
    client.call("delete", nodes=[made.replies()[1].id])
    return session, first


def walked(client, session, node=0, deleted=False):
    return list(client.call("walk", session=session, what=SUBTREE, position=position(node),
                            text=True, content=True, numbers=True, count=1000,
                            deleted=deleted).walk.nodes)


def unescaped(text):
    known = {b"\\n": b"\n", b"\\t": b"\t", b"\\\\": b"\\"}
    return re.sub(rb"\\(?:n|t|\\|x[0-9a-f]{2})",
                  lambda at: known.get(at[0]) or bytes([int(at[0][2:], 16)]), text.encode())


def rows(output):
    assert output.endswith("\n")
    return [line.split("\t") for line in output.split("\n")[:-1]]


def test_every_node_is_a_line(daemon, client):
    session, first = grown(client)
    for deleted in (False, True):
        nodes = walked(client, session, deleted=deleted)
        options = ["--deleted"] if deleted else []
        lines = rows(persona(daemon, "walk", str(session), *options))
        assert [int(line[0]) for line in lines] == [node.id for node in nodes]
        for line, node in zip(lines, nodes):
            assert line[1] == f"{node.parent.node}:{node.parent.offset}"
            assert [int(line[at]) for at in (2, 3, 6)] == \
                [node.ordinal, node.speaker, node.content_tokens]
            assert line[4].startswith("sampled" if node.origin == 0 else "given")
            assert line[4].endswith(",deleted") == node.deleted
            assert unescaped(line[7]) == node.text
    below = rows(persona(daemon, "walk", str(session), "--from", str(first.id)))
    assert [int(line[0]) for line in below] == \
        [first.id] + [node.id for node in walked(client, session, first.id)]


def test_json_has_the_numbers_when_asked_for(daemon, client):
    session, _ = grown(client)
    nodes = walked(client, session)
    told = objects(persona(daemon, "walk", "--json", "--numbers", str(session)))
    assert [item["node"] for item in told] == [node.id for node in nodes]
    for item, node in zip(told, nodes):
        assert item["content"] == list(node.content)
        assert item["tokens"] == list(node.numbers.tokens)
        assert len(item["logprobs"]) == len(node.numbers.logprobs)
    assert "tokens" not in objects(persona(daemon, "walk", "--json", str(session)))[0]


def test_thousands_of_nodes_come_in_pages(daemon, client):
    session = client.open(b"plain")
    for _ in range(3):
        client.generate(session, position=position(0), n=1000, max_tokens=1)
    lines = rows(persona(daemon, "walk", str(session)))
    assert len(lines) == 3000 and len({line[0] for line in lines}) == 3000
    assert [int(line[2]) for line in lines] == list(range(3000))


def test_wrong_uses_say_so(daemon):
    persona(daemon, "walk", status=2)
    persona(daemon, "walk", "one", status=2)
    persona(daemon, "walk", "1", "2", status=2)
    persona(daemon, "walk", "999999999", status=1)
