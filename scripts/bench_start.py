#!/usr/bin/python3
"""How long a daemon takes to start over a large journal, and to read one tree of it.

usage: bench_start.py PERSONAD MODEL [NODES] [NODES_PER_SESSION]

Opens one session through the daemon, multiplies it in the database, and starts again.
"""
import os
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests/flow"))

from client import Client, position


def start(program, model, folder):
    began = time.monotonic()
    process = subprocess.Popen([program, "--model", model, "--socket", os.path.join(folder, "s"),
                                "--data", os.path.join(folder, "data"), "--kv-memory", "64",
                                "--personas", os.path.join(ROOT, "personas")],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("personad: ready")
    return process, time.monotonic() - began


def stop(process):
    process.terminate()
    return process.communicate()[1]


def multiply(path, node_count, per_session):
    """Copies of session 1, each a chain of given nodes."""
    database = sqlite3.connect(path)
    head = database.execute("SELECT owner_uid, seed, created_us, context_tokens, origin_id "
                            "FROM session WHERE id = 1").fetchone()
    members = database.execute("SELECT speaker, name, prompt_digest FROM member "
                               "WHERE session_id = 1").fetchall()
    ids = bytes(range(4, 68)) * 1
    node = database.execute("SELECT max(id) FROM node").fetchone()[0] + 1
    for session in range(2, node_count // per_session + 2):
        database.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         (session, *head, b"", node + per_session - 1, 2 ** 32 - 1))
        database.executemany("INSERT INTO member VALUES (?, ?, ?, ?)",
                             [(session, *member) for member in members])
        chain = range(node, node + per_session)
        database.executemany(
            "INSERT INTO node VALUES (?, ?, ?, ?, 0, ?, 1, 1, 0, 8, 0)",
            [(at, session, None if at == node else at - 1, 0 if at == node else 16, at % 2)
             for at in chain])
        database.executemany("INSERT INTO given VALUES (?, ?, ?)",
                             [(at, ids, b"sixteen tokens of text, more or less") for at in chain])
        node += per_session
    database.commit()
    database.close()


def main():
    program, model = sys.argv[1:3]
    node_count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000000
    per_session = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    with tempfile.TemporaryDirectory(prefix="pd-", dir="/tmp") as folder:
        process, empty = start(program, model, folder)
        with Client(os.path.join(folder, "s")) as client:
            client.append(client.open(), b"one")
        stop(process)
        path = os.path.join(folder, "data", "journal.db")
        multiply(path, node_count, per_session)
        process, full = start(program, model, folder)
        with Client(os.path.join(folder, "s")) as client:
            began = time.monotonic()
            listed = len(client.call("session_list", count=1000).session_list.sessions)
            list_ms = (time.monotonic() - began) * 1000
            began = time.monotonic()
            walked = len(client.call("walk", session=2, what=2, position=position(0), text=True,
                                     count=1000).walk.nodes)
            walk_ms = (time.monotonic() - began) * 1000
        with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            memory = [line for line in file if line.startswith("VmRSS")][0].split()[1]
        stop(process)
        print(f"{node_count} nodes in {node_count // per_session} sessions, "
              f"{os.path.getsize(path) >> 20} MiB: ready after {full:.2f} s "
              f"(empty: {empty:.2f} s), "
              f"{int(memory) >> 10} MiB resident; "
              f"{listed} sessions listed in {list_ms:.1f} ms, "
              f"a tree of {walked} nodes read and walked in {walk_ms:.1f} ms")


if __name__ == "__main__":
    main()
