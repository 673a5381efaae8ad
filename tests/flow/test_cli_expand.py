"""Goal: `persona expand` and the chat's /expand show the tree that the protocol answers, and keep
the path that was named.
Method: the tiny model; what the commands print against the same request of the flow's client.
"""
import math
import os
import pty
import subprocess

from cli import Terminal, environment, objects, persona, program
from client import position
from test_expand import EXPANDED, content, expand
from test_look import raw, talk


def place_of(session, node):
    return ["--session", str(session), "--at", f"{node.id}:5", "--continue"]


def seen_by(client, session, node, **fields):
    return expand(client, session, position=position(node.id, 5), continuing=True, **fields)


def path_of(seen, number):
    ranks = []
    for at in seen.path(number):
        ranks.append(str(seen.children(seen.nodes[at]["parent"]).index(at) + 1))
    return ".".join(ranks)


def test_json_is_what_is_answered(daemon, client):
    session, node = talk(client)
    seen = seen_by(client, session, node, depth=3, width=3, probability_min=0.001)
    told = objects(persona(daemon, "expand", "--json", *place_of(session, node), "--depth", "3",
                           "--width", "3", "--least", "0.001"))
    assert len(told) == len(seen.nodes) - 1 > 3
    for number, (one, other) in enumerate(zip(told, seen.nodes[1:]), 1):
        assert (one["node"], one["parent"], one["token"]) == \
            (number, other["parent"], other["token"])
        assert raw([one["logprob"], one["entropy"]]) == raw([other["logprob"], other["entropy"]])
        assert one["joint_logprob"] == other["joint"] and one["end"] == other["end"]
        assert one["path"] == path_of(seen, number)


def test_the_picture_has_every_end_of_a_path_and_its_probability(daemon, client):
    session, node = talk(client)
    options = place_of(session, node) + ["--depth", "3", "--width", "2", "--least", "0"]
    seen = seen_by(client, session, node, depth=3, width=2, probability_min=0)
    shown = persona(daemon, "expand", *options)
    lines = shown.splitlines()
    assert lines[0].startswith("entropy ") and lines[-1] == \
        f"{len(seen.nodes) - 1} nodes; it ended by depth"
    named = {line.split()[-1]: line for line in lines[2:-1]}
    leaves = [at for at in range(1, len(seen.nodes)) if not seen.children(at)]
    for number in leaves:
        joint = 100 * math.exp(seen.nodes[number]["joint"])
        assert named[path_of(seen, number)].split()[0] == f"{joint:.2f}%"
    assert len(named) == len(seen.nodes) - 1, "two alternatives everywhere: a line a node"
    assert lines[2].split()[2] == "├─" and "└─" in lines[-2]
    # Without alternatives one line has the whole path.
    single = persona(daemon, "expand", *place_of(session, node), "--depth", "5", "--width", "1",
                     "--least", "0").splitlines()
    assert len(single) == 4 and single[2].split()[-1] == "1.1.1.1.1"


def test_keep_makes_the_path_a_node(daemon, client):
    session, node = talk(client)
    options = place_of(session, node) + ["--depth", "2", "--width", "3", "--least", "0"]
    seen = seen_by(client, session, node, depth=2, width=3, probability_min=0)
    number = seen.children(seen.children(0)[1])[2]
    told = objects(persona(daemon, "expand", "--json", *options, "--keep", "2.3"))[-1]
    kept = content(client, session, told["kept"])
    assert list(kept.content) == seen.tokens(number) and kept.origin == EXPANDED
    assert "kept as node" in persona(daemon, "expand", *options, "--keep", "1")
    for path in ("4", "1.", "1..2", "0", "x", "1.2.1", "99999999999"):
        persona(daemon, "expand", *options, "--keep", path, status=1)


def test_wrong_usage_is_told(daemon):
    for options in (["--depth", "0"], ["--width", "x"], ["--least", "2"], ["--nodes", "-1"],
                    ["word"]):
        persona(daemon, "expand", *options, status=2)
    persona(daemon, "expand", "--depth", "257", status=1)


def test_a_terminal_shows_how_far_it_is(daemon, client):
    session, node = talk(client)
    near, far = pty.openpty()
    made = subprocess.run([program(), "expand", *place_of(session, node), "--least", "0"],
                          stdout=subprocess.PIPE, stderr=far, check=True,
                          env=environment(PERSONAD_SOCKET=daemon.socket))
    os.close(far)
    shown = b""
    try:
        while part := os.read(near, 65536):
            shown += part
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(near)
    assert b"nodes, " in shown and shown.endswith(b"\r")
    assert b"256 nodes; it ended by nodes" in made.stdout


def test_the_chat_expands_the_reply_and_keeps_another(daemon):
    terminal = Terminal(daemon, "--persona", "keeper", "--seed", "1", "--max-tokens", "5",
                        "--ignore-end", NO_COLOR="1")
    try:
        terminal.wait_for(b"User: ")
        terminal.say("/keep 1")
        terminal.wait_for(b"that /expand has shown last")
        terminal.say("Hello")
        terminal.wait_for(b"/continue goes on]")
        terminal.say("/expand 2 3")
        terminal.wait_for(b"/keep PATH takes one of them")
        terminal.say("/keep 1.1")
        terminal.wait_for(b"[at node ")
        terminal.say("/keep 7")
        terminal.wait_for(b"that /expand has shown last")
        terminal.say("/expand two")
        terminal.wait_for(b"two whole numbers")
        terminal.say("/continue")
        terminal.wait_for(b"/continue goes on]")
        terminal.say("/quit")
        assert terminal.end() == 0
    finally:
        terminal.kill()
