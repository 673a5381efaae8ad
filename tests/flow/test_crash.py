"""Goal: whatever moment the daemon is killed at, nothing that it acknowledged is missing after the
next start, a repeat with the same client key makes nothing twice, and every reply ends with the
bytes that it would have had without any kill.
Method: 32 clients write conversations, each from a script that follows from its number; the daemon
is killed (SIGKILL) again and again under them, at moments drawn from a seed. Clients reconnect,
repeat what was not answered, and hold each answer to what they had seen before. At the end each
conversation is compared with the same script played in one go.

PERSONAD_CRASH_KILLS and PERSONAD_CRASH_SEED say how often and with which seed; ./dev crash N sets
them.
"""
import os
import random
import signal
import threading
import time

from client import FINAL_ONLY, SUBTREE, Client, Closed, Refused, bits, position
from conftest import Daemon, assert_clean

WRITER_COUNT = 32
KILLS = int(os.environ.get("PERSONAD_CRASH_KILLS") or
            (20 if os.environ.get("PERSONAD_PRESET", "release") == "release" else 3))
SEED = int(os.environ.get("PERSONAD_CRASH_SEED") or 1)
LOST = (Closed, OSError)


class Missing(AssertionError):
    """Something acknowledged is not there, or is not what it was."""


class Writer:
    """One conversation. What the daemon acknowledged is kept and held against it."""

    def __init__(self, number, path):
        self.number = number
        self.path = path
        self.session = None
        self.turns = []     # dicts: ids, then the finished texts and bits
        self.turn = 0       # the turn at hand
        self.ids = None     # of the turn at hand, once created
        self.seen = {}      # node -> text of it that was shown
        self.is_cut = False

    def request(self, turn):
        draw = random.Random(f"{self.number}/{turn}")
        return {"text": f"Turn {turn} of {self.number}.".encode(), "n": draw.randint(1, 3),
                "max_tokens": draw.randint(20, 260)}

    def open(self, client, key):
        return client.call("session_open", persona_name=b"keeper", seed=1000 + self.number,
                           client_key=key).session_open.session.id

    def step(self, client):
        """One turn, or what is left of it."""
        if self.session is None:
            self.session = self.open(client, f"open {self.number}".encode())
        fields = self.request(self.turn)
        limit = fields.pop("max_tokens")
        key = f"{self.number}/{self.turn}".encode()
        request = client.send_generate(self.session, op="say", max_tokens=limit, ignore_end=True,
                                       numbers=True, client_key=key,
                                       position=position(self.end()), **fields)
        finished = {}
        text = {}
        while True:
            reply = client.next_of(request)
            kind = reply.WhichOneof("result")
            if kind == "error":
                raise Refused(reply.error)
            if kind == "created":
                ids = [node.id for node in reply.created.nodes]
                if self.ids is not None and ids != self.ids:
                    raise Missing(f"a repeat made {ids}, the first time it was {self.ids}")
                self.ids = ids
            elif kind == "tokens":
                node = reply.tokens.node
                text[node] = text.get(node, b"") + reply.tokens.text
                self.check_seen(node, text[node])
            elif kind == "finished":
                finished[reply.finished.node.id] = reply.finished.node
                self.check_seen(reply.finished.node.id, reply.finished.node.text)
            if not reply.more:
                break
        self.turns.append([(node, finished[node].text, bits(finished[node].numbers))
                           for node in self.ids if node in finished])
        self.turn += 1
        self.ids = None

    def end(self):
        return self.turns[-1][0][0] if self.turns else 0

    def check_seen(self, node, text):
        before = self.seen.get(node, b"")
        size = min(len(before), len(text))
        if before[:size] != text[:size]:
            raise Missing(f"node {node} showed {before!r} and then {text!r}")
        if len(text) > len(before):
            self.seen[node] = text

    def check(self, client):
        """All that was acknowledged is there, no node is there twice."""
        if self.session is None:
            return
        nodes = client.call("walk", session=self.session, what=SUBTREE, position=position(0),
                            text=True, numbers=True, count=1000).walk.nodes
        there = {node.id: node for node in nodes}
        for turn in self.turns:
            for node, text, numbers in turn:
                if node not in there or there[node].text != text or \
                        bits(there[node].numbers) != numbers:
                    raise Missing(f"the reply {node} was finished and is not what it was")
        for node in self.ids or []:
            if node not in there:
                raise Missing(f"node {node} was acknowledged and is gone")
        texts = [node.text for node in nodes if node.text.startswith(b"Turn ")]
        if len(texts) != len(set(texts)) or len(texts) > self.turn + 1:
            raise Missing(f"session {self.session} has a turn twice: {texts}")


class Crowd:
    """The writers' threads. They end when they are told to; what failed is kept."""

    def __init__(self, path):
        self.writers = [Writer(number, path) for number in range(WRITER_COUNT)]
        self.failures = []
        self.is_over = False
        self.threads = [threading.Thread(target=self.run, args=(writer,), daemon=True)
                        for writer in self.writers]

    def run(self, writer):
        while not self.is_over and not self.failures:
            try:
                with Client(writer.path) as client:
                    writer.check(client)
                    while not self.is_over and not self.failures:
                        writer.step(client)
            except LOST:
                time.sleep(0.02)
            except (Refused, AssertionError, KeyError) as failure:
                self.failures.append((writer.number, repr(failure)))

    def start(self):
        for thread in self.threads:
            thread.start()

    def join(self):
        self.is_over = True
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a writer hangs"


def replay(client, writer):
    """The same conversation in one go gives the same bytes."""
    twin = Writer(writer.number, writer.path)
    twin.session = client.call("session_open", persona_name=b"keeper",
                               seed=1000 + writer.number).session_open.session.id
    for turn, expected in enumerate(writer.turns):
        fields = twin.request(turn)
        limit = fields.pop("max_tokens")
        made = client.finish(client.send_generate(
            twin.session, op="say", max_tokens=limit, ignore_end=True, numbers=True,
            delivery=FINAL_ONLY, position=position(twin.end()), **fields)).replies()
        twin.turns.append([(node.id, node.text, bits(node.numbers)) for node in made])
        assert [item[1:] for item in twin.turns[-1]] == [item[1:] for item in expected], \
            f"turn {turn} of writer {writer.number} is not what it is without kills"


def test_kills_under_32_writers_lose_nothing(folder):
    draw = random.Random(SEED)
    # Its own port of call for all lives of the daemon.
    daemon = Daemon(folder)
    crowd = Crowd(daemon.socket)
    crowd.start()
    try:
        for _ in range(KILLS):
            time.sleep(draw.choice([0.05, 0.2, 0.6, 1.2]) * draw.random())
            daemon.kill(signal.SIGKILL)
            daemon.wait()
            daemon.process.stdout.close()
            daemon = Daemon(folder)
            if crowd.failures:
                break
        time.sleep(1.0)
    finally:
        crowd.join()
    assert not crowd.failures, crowd.failures
    with daemon.client() as client:
        for writer in crowd.writers:
            writer.check(client)
            replay(client, writer)
    turns = sum(len(writer.turns) for writer in crowd.writers)
    print(f"{KILLS} kills, seed {SEED}: {turns} turns of {WRITER_COUNT} writers")
    assert turns >= WRITER_COUNT, "the writers got nowhere"
    daemon.end()
    assert_clean(daemon)
