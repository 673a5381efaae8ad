"""Goal: the commands that look print what the protocol answers, for people and as JSON, and
`persona verify` tells by its exit status what it found.
Method: the tiny model; what the commands print against the same requests of the flow's client; a
database with one bit flipped, and with another numerics id.
"""
import os
import pty
import sqlite3
import struct
import subprocess

from cli import environment, objects, persona, program
from client import position
from test_look import grown, node_tokens


def float_bits(values):
    return struct.pack(f"<{len(values)}f", *values)


def test_dist_prints_what_is_answered(daemon, client):
    session = client.open(seed=1)
    node = client.append(session, b"Once upon a time")
    seen = client.call("distribution", session=session, position=position(node.id, 2),
                       continuing=True, top_count=4).distribution
    place = ["--session", str(session), "--at", f"{node.id}:2", "--continue", "--top", "4"]
    told = objects(persona(daemon, "dist", "--json", *place))[0]
    assert float_bits([told["entropy"]]) == float_bits([seen.entropy])
    assert told["tokens"] == list(seen.top_tokens)
    assert float_bits(told["logprobs"]) == float_bits(seen.top_logprobs)
    shown = persona(daemon, "dist", *place)
    assert shown.startswith("entropy ") and shown.count("%") == 4
    assert "entropy" in persona(daemon, "dist", "--persona", "keeper")
    # Wrong usage opens no session.
    before = len(client.call("session_list").session_list.sessions)
    persona(daemon, "dist", "--persona", "keeper", "what", status=2)
    persona(daemon, "expand", "--persona", "keeper", "what", status=2)
    persona(daemon, "score", "--persona", "keeper", status=2)
    persona(daemon, "score", "--persona", "keeper", *["x"] * 1025, status=2)
    assert len(client.call("session_list").session_list.sessions) == before


def test_score_prints_what_is_answered(daemon, client):
    session = client.open(seed=1)
    client.append(session, b"Is it red?")
    first, second = objects(persona(daemon, "score", "--json", "--session", str(session), " yes",
                                    " no way"))
    assert first["option"] == " yes" and abs(first["share"] + second["share"] - 1) < 1e-6
    assert abs(sum(second["logprobs"]) - second["logprob"]) < 1e-4
    assert len(second["tokens"]) == len(second["entropies"]) > 1
    shown = persona(daemon, "score", "--session", str(session), " yes", " no way")
    assert shown.count("a token") == 2
    persona(daemon, "score", "--session", str(session), "", status=1)


def test_compare_and_group_print_what_is_answered(daemon, client):
    session = client.open(b"keeper", seed=1)
    made = client.finish(client.send_generate(session, op="say", text=b"Hello", n=6, max_tokens=3))
    one, other = objects(persona(daemon, "compare", "--json", "--session", str(session),
                                 "keeper", "conductor"))
    assert one["ratio"] == 0 and abs(other["ratio"] - one["logprob"] + other["logprob"]) < 1e-3
    assert len(one["logprobs"]) == len(other["entropies"])
    assert persona(daemon, "compare", "--session", str(session)).count("ratio") == 1
    shown = persona(daemon, "compare", "--session", str(session), "--divergence", "keeper",
                    "conductor")
    assert [line.split()[-1] for line in shown.splitlines()] == ["keeper", "conductor"]
    assert shown.count("divergence 0.0000 a token") == 1 and shown.count("divergence") == 2
    groups = objects(persona(daemon, "group", "--json", "--session", str(session)))
    assert sorted(sum((group["nodes"] for group in groups), [])) == \
        sorted(node.id for node in made.replies())
    assert f"{len(groups)} different" in persona(daemon, "group", "--session", str(session))


def test_verify_exits_with_what_it_found(start):
    session, node, path = grown(start)
    daemon = start()
    assert "4 nodes: 4 equal" in persona(daemon, "verify", "--all")
    assert "4 nodes: 4 equal" in persona(daemon, "verify", "--session", str(session))
    assert "1 nodes: 1 equal" in persona(daemon, "verify", str(node.id))
    assert objects(persona(daemon, "verify", "--json", "--path", str(node.id)))[-1]["equal"] == 1
    persona(daemon, "verify", "999999", status=1)
    daemon.kill()
    daemon.wait()
    with sqlite3.connect(path) as database:
        key, blob = database.execute("SELECT key, logprobs FROM chunk WHERE key / 65536 = ?",
                                     (node.id,)).fetchone()
        broken = bytearray(blob)
        broken[4 * (len(node_tokens(database, key)) - 1)] ^= 1
        database.execute("UPDATE chunk SET logprobs = ? WHERE key = ?", (bytes(broken), key))
    database.close()
    daemon = start()
    shown = subprocess.run([program(), "verify", "--all"], capture_output=True, text=True,
                           env=environment(PERSONAD_SOCKET=daemon.socket), check=False)
    assert shown.returncode == 1 and f"node {node.id} of session {session}: DIFFERS" in shown.stdout
    assert "logprob" in shown.stdout and "3 equal, 1 different" in shown.stdout
    daemon.kill()
    daemon.wait()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE chunk SET logprobs = ? WHERE key = ?", (blob, key))
        database.execute("UPDATE origin SET numerics_id = 'cpu/0/other'")
    database.close()
    daemon = start()
    shown = subprocess.run([program(), "verify", "--all", "--json"], capture_output=True, text=True,
                           env=environment(PERSONAD_SOCKET=daemon.socket), check=False)
    assert shown.returncode == 3
    told = objects(shown.stdout)
    assert told[-1]["foreign"] == 4 and all(one["foreign"] for one in told[:-1])


def test_verify_shows_how_far_it_is_on_a_terminal(daemon, client):
    session = client.open(seed=1)
    client.append(session, b"Tell me")
    client.generate(session, n=30, max_tokens=20)
    near, far = pty.openpty()
    made = subprocess.run([program(), "verify", "--session", str(session)], stdout=subprocess.PIPE,
                          stderr=far, env=environment(PERSONAD_SOCKET=daemon.socket), check=True)
    os.close(far)
    shown = b""
    try:
        while part := os.read(near, 65536):  # a read gives one piece, not all
            shown += part
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(near)
    shown = shown.decode()
    assert "30 of 30 nodes" in shown and shown.endswith("\r\x1b[K")
    assert b"30 equal" in made.stdout
