"""Goal: the Python client says what the protocol means, makes its messages as protoc would, blocks
or awaits alike, and goes on by itself when its connection breaks or the daemon is killed.
Method: the tiny model; messages against protoc's descriptor; both clients against the flow's own;
a proxy that cuts the connection after so many bytes, wherever that is; a daemon that is killed; the
examples, and the package as it is installed.
"""
import asyncio
import csv
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from google.protobuf import descriptor_pb2

from client import MESSAGES, ROOT, position

FOLDER = os.path.join(ROOT, "clients/python")
sys.path.insert(0, FOLDER)

from personad import (AsyncClient, Client, ConnectionLost, Node, PersonadError,  # noqa: E402
                      schema)


@pytest.fixture
def python(daemon):
    with Client(daemon.socket) as made:
        yield made


def test_the_parsed_messages_are_those_of_protoc(tmp_path):
    path = os.path.join(ROOT, "proto/personad.proto")
    made = tmp_path / "set"
    subprocess.run(["protoc", f"--descriptor_set_out={made}", "-I", os.path.dirname(path), path],
                   check=True)
    want = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file[0]
    for message in want.message_type:
        for field in message.field:
            field.ClearField("json_name")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert schema.parse(text) == want
    assert schema.parse(text.replace("limit_value = 4", "limit_value = 5")) != want


def test_a_session_goes_out_as_a_file_and_comes_back(python, daemon, tmp_path):
    session = python.open("keeper", seed=5)
    session.say("Who is there?", n=2, max_tokens=12)
    data = b"".join(session.export())
    again = python.import_(data)
    assert b"".join(again.export()) == data and again.id != session.id
    assert again.cast == session.cast and again.seed == session.seed
    with open(tmp_path / "file", "wb") as file:
        file.writelines(session.export())
    with open(tmp_path / "file", "rb") as file:
        assert b"".join(python.import_(file).export()) == data
    path = b"".join(again.export(again.walk()[-1].id))
    assert path.count(b'"record":"node"') < data.count(b'"record":"node"')

    async def both():
        async with AsyncClient(daemon.socket) as other:
            made = await other.import_(data)
            return b"".join([piece async for piece in made.export()])
    assert asyncio.run(both()) == data
    with pytest.raises(PersonadError):
        python.import_(data[:-30])


def test_a_conversation(python, client):
    session = python.open("plain", seed=3, label="from Python")
    given = session.append("Once upon a time")
    nodes = session.generate(n=3, max_tokens=9, temperature=1.1, numbers=True, top_count=2)
    assert [node.ordinal for node in nodes] == [0, 1, 2]
    assert all(node.parent.node == given.id and node.finish != "none" for node in nodes)
    theirs = client.complete(b"Once upon a time", seed=3, max_tokens=9, temperature=1.1,
                             top_count=2)
    assert nodes[0].raw_text == theirs.text and nodes[0].seed == theirs.seed
    assert nodes[0].numbers.logprobs == list(theirs.numbers.logprobs)
    assert nodes[0].numbers.tops[0][1] == (theirs.numbers.top_tokens[1],
                                           theirs.numbers.top_logprobs[1])
    fork = session.generate(at=nodes[1].position(2), continuing=True, max_tokens=3)[0]
    assert [node.id for node in session.walk(fork)] == [given.id, nodes[1].id, fork.id]
    parts = list(session.say_stream("And then?", max_tokens=5))
    assert b"".join(part.raw_text for part in parts[:-1]) == parts[-1].raw_text
    assert session.head().node == parts[-1].id
    assert [part.raw_text for part in python.follow(parts[-1].id)][-1] == parts[-1].raw_text
    assert python.detokenize(python.tokenize("a lighthouse")) == b"a lighthouse"
    assert session.id in [one.id for one in python.sessions()]


def test_looking(python, client):
    session = python.open("plain", seed=3)
    given = session.append("Once upon a time")
    node = session.generate(max_tokens=6, numbers=True)[0]
    seen = session.distribution(at=given, top_count=3, tokens=node.numbers.tokens[:1])
    assert seen.logprobs == node.numbers.logprobs[:1] and len(seen.top) == 3
    first, second = session.score([node.numbers.tokens[:4], "zebra"], at=given)
    assert first.logprobs == node.numbers.logprobs[:4]
    assert abs(first.share + second.share - 1) < 1e-9
    compared = session.compare(at=node)
    assert list(compared.ratios.values()) == [0]
    groups = session.group(session.generate(at=given, n=5, max_tokens=2))
    assert sum(len(group.nodes) for group in groups) == 5
    steps = []
    checked = python.verify(session=session.id, on_progress=lambda one: steps.append(one))
    assert checked.node_count == checked.equal_count == 6 and not checked.differences and steps
    assert client.call("info").info.numerics_id == python.info().numerics_id


def test_expanding_and_keeping(python):
    session = python.open("plain", seed=3)
    given = session.append("Once upon a time")
    steps = []
    seen = session.expand(depth=3, width=2, probability_min=0,
                          on_progress=lambda one: steps.append((len(one.nodes), one.end)))
    assert [count for count, _ in steps] == sorted(count for count, _ in steps) and len(steps) == 3
    assert seen.end == "depth" == steps[-1][1] and steps[0] == (2, None)
    assert [node.number for node in seen.nodes] == list(range(1, len(seen.nodes) + 1))
    last = seen[len(seen.nodes)]
    path = seen.path(last.number)
    assert [node.level for node in path] == [1, 2, 3]
    scored, = session.score([[node.token for node in path]], at=given)
    assert scored.logprobs == [node.logprob for node in path]
    assert scored.logprob == last.joint_logprob
    assert seen.children()[0].logprob >= seen.children()[1].logprob
    named, numbered = (session.expand(at=given, depth=1, speaker=who).nodes
                       for who in (session.cast[1], 1))
    assert named == numbered
    kept = session.keep(seen, last.number)
    assert kept.origin == "expanded" and kept.content_tokens == 3
    assert session.head().node == kept.id
    walked = session.walk(kept, what="node")[0]
    assert list(walked.content) == [node.token for node in path]
    assert walked.text == seen.text(last.number)
    with pytest.raises(PersonadError) as refused:
        session.keep(seen, len(seen.nodes) + 1)
    assert refused.value.code == "BAD_INPUT"
    with pytest.raises(IndexError):
        _ = seen[0]


def test_replies_held_to_bytes(python):
    session = python.open("plain", seed=3)
    given = session.append("A quick brown fox")
    sure = session.generate(at=given, n=4, choices=["yes", b"no"], temperature=3.0)
    assert {node.text for node in sure} <= {"yes", "no"}
    fork = session.generate(at=given, continuing=True, at_byte=4, max_tokens=3)[0]
    behind = session.append("iet", at=given, continuing=True, at_byte=4)
    for node in (fork, behind):
        path = session.walk(node)
        kept = python.detokenize(path[0].content[:node.parent.offset])
        assert (kept + path[1].raw_text).startswith(b"A qu")
    first = session.generate(at=given, n=8, distinct_first=True, max_tokens=1, ignore_end=True,
                             numbers=True)
    assert len({node.numbers.tokens[0] for node in first}) > 4
    with pytest.raises(TypeError):
        session.say("x", at_byte=3)


def test_what_is_refused_raises(python):
    session = python.open("plain")
    with pytest.raises(PersonadError) as refused:
        session.distribution(tokens=[1] * 300)
    assert refused.value.code == "LIMIT" and refused.value.limit[1] == 256
    with pytest.raises(TypeError):
        session.generate(warmth=1)
    with pytest.raises(OSError):
        Client("/nowhere/at/all")


def test_many_at_once(daemon):
    async def talk(client, seed):
        session = await client.open("plain", seed=seed)
        return (await session.say("Hello", max_tokens=8))[0].raw_text

    async def crowd():
        async with AsyncClient(daemon.socket) as client:
            return await asyncio.gather(*(talk(client, seed % 5) for seed in range(40)))

    texts = asyncio.run(crowd())
    assert texts[:5] * 8 == texts


class Cutter:
    """A socket in front of the daemon's; breaks each connection after so many bytes came back."""

    def __init__(self, folder, target, allowances):
        self.path = os.path.join(folder, "cut")
        self.target = target
        self.allowances = list(allowances)
        self.cuts = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.target)
            most = self.allowances.pop(0) if self.allowances else None
            threading.Thread(target=self.pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, most), daemon=True).start()

    def pump(self, source, sink, most):
        done = 0
        try:
            while most is None or done < most:
                data = source.recv(4096 if most is None else min(4096, most - done))
                if not data:
                    break
                sink.sendall(data)
                done += len(data)
            self.cuts += most is not None and done >= most
            source.shutdown(socket.SHUT_RDWR)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        os.unlink(self.path)
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def tell(path):
    """A conversation: what its two replies were, whole and in pieces."""
    pieces = {}
    nodes = []
    with Client(path, patience=10) as client:
        session = client.open("plain", seed=11)
        session.append("The sea was")
        for part in session.generate_stream(n=2, max_tokens=200, temperature=1.2, ignore_end=True):
            if isinstance(part, Node):
                nodes.append(part)
            else:
                pieces[part.node] = pieces.get(part.node, b"") + part.raw_text
    return {node.ordinal: (node.raw_text, pieces[node.id]) for node in nodes}


def test_a_stream_goes_on_wherever_the_connection_breaks(daemon, folder):
    whole = tell(daemon.socket)
    assert len(whole) == 2 and all(text == pieces for text, pieces in whole.values())
    cuts = 0
    for first in range(60, 1800, 137):
        path = os.path.join(folder, str(first))
        os.mkdir(path)
        cutter = Cutter(path, daemon.socket, [first, first // 2 + 60, 90])
        assert tell(cutter.path) == whole, first
        cuts += cutter.cuts
        cutter.close()
    assert cuts > 15


def test_a_stream_ends_with_the_same_bytes_though_the_daemon_is_killed(start):
    def tell_all(client, daemon):
        session = client.open("plain", seed=11)
        session.append("The sea was")
        texts = b""
        for count, part in enumerate(session.generate_stream(max_tokens=150, ignore_end=True)):
            if isinstance(part, Node):
                assert texts == part.raw_text
                return texts
            texts += part.raw_text
            if daemon is not None and count == 5:
                daemon.kill(signal.SIGKILL)
                daemon.wait()
                daemon = start() and None
        return None

    daemon = start()
    with Client(daemon.socket, patience=30) as client:
        whole = tell_all(client, None)
        assert tell_all(client, daemon) == whole and len(whole) > 50


def test_a_request_that_was_cut_makes_its_nodes_once(daemon, folder, client):
    session = client.open(seed=1)
    given = client.append(session, b"Hello")
    cutter = Cutter(folder, daemon.socket, [70, 30])
    with Client(cutter.path, patience=10) as python:
        mine = next(one for one in python.sessions() if one.id == session)
        node = mine.append("once", at=mine.head())
    assert cutter.cuts >= 1
    nodes = client.call("walk", session=session, what=2, position=position(0)).walk.nodes
    assert [one.id for one in nodes] == [given.id, node.id]
    cutter.close()


def test_an_import_whose_answer_was_cut_makes_one_session(daemon, folder, client):
    with Client(daemon.socket) as python:
        session = python.open("plain", seed=1)
        session.append("Hello")
        data = b"".join(session.export())
    cuts = 0
    for first in range(40, 400, 23):
        path = os.path.join(folder, str(first))
        os.mkdir(path)
        before = len(client.call("session_list", count=1000).session_list.sessions)
        cutter = Cutter(path, daemon.socket, [first])
        with Client(cutter.path, patience=10) as python:
            made = python.import_(data)
            assert b"".join(made.export()) == data
        cuts += cutter.cuts
        cutter.close()
        assert len(client.call("session_list", count=1000).session_list.sessions) == before + 1
    assert cuts > 5


class Listener(Cutter):
    """Keeps what the client said."""

    def __init__(self, folder, target):
        self.said = b""
        super().__init__(folder, target, [])

    def pump(self, source, sink, most):
        if source.getsockname() != self.path:
            super().pump(source, sink, most)
            return
        try:
            while data := source.recv(4096):
                self.said += data
                sink.sendall(data)
        except OSError:
            pass

    def requests(self):
        data = self.said
        while data:
            size = int.from_bytes(data[:4], "little")
            yield MESSAGES["Request"].FromString(data[4:4 + size])
            data = data[4 + size:]


def test_what_changes_something_goes_under_a_key(daemon, folder):
    listener = Listener(folder, daemon.socket)
    with Client(listener.path) as python:
        session = python.open("plain", seed=1)
        session.add("keeper")
        session.append("Hello")
        session.generate(max_tokens=2)
        session.say("And?", max_tokens=2)
        session.set_note("It rains.")
        python.import_(b"".join(session.export()))
        session.walk()
    said = list(listener.requests())
    listener.close()
    keys = {}
    for request in said:
        keys.setdefault(request.WhichOneof("op"), []).append(request.client_key)
    for name in ("session_open", "append", "generate", "say", "session_set", "note",
                 "session_import"):
        assert keys[name] and all(keys[name]), name
    for name in ("hello", "session_export", "walk"):
        assert keys[name] and not any(keys[name]), name


def test_without_patience_the_loss_is_told(daemon, folder):
    cutter = Cutter(folder, daemon.socket, [80])
    with Client(cutter.path, patience=0) as python:
        cutter.close()
        with pytest.raises(ConnectionLost):
            while True:
                python.info()


def environment(daemon, **more):
    return {**os.environ, "PYTHONPATH": FOLDER, "PERSONAD_SOCKET": daemon.socket, **more}


def run_example(daemon, name, *arguments, text=""):
    path = os.path.join(FOLDER, "examples", name)
    return subprocess.run([sys.executable, path, *arguments], input=text, text=True, timeout=120,
                          capture_output=True, check=True, env=environment(daemon)).stdout


def test_the_loom_is_forty_lines_and_works(daemon):
    with open(os.path.join(FOLDER, "examples/loom.py"), encoding="utf-8") as file:
        code = [line for line in file.read().split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 40
    shown = run_example(daemon, "loom.py", "The sea", text="1\ne\n0\nb\nq\n")
    assert shown.count("nats a token") >= 16 and "The sea" in shown


def test_the_readme_runs_and_prints_a_reply_once(daemon):
    with open(os.path.join(FOLDER, "README.md"), encoding="utf-8") as file:
        blocks = [part.split("```")[0] for part in file.read().split("```python\n")[1:]]
    code = blocks[0] + blocks[1] + """
    told = [node.text for node in session.walk(what="path", at=replies[0].parent)]
    print("\\0" + told[-1])
"""
    shown = subprocess.run([sys.executable, "-c", code], text=True, timeout=120, check=True,
                           capture_output=True, env=environment(daemon)).stdout
    streamed, reply = shown.split("\0")
    assert streamed.count(reply.rstrip("\n")) == 1


def test_nobody_there_is_an_error_that_names_the_socket(folder):
    path = os.path.join(folder, "nobody")
    with pytest.raises(FileNotFoundError, match="no daemon answers.*PERSONAD_SOCKET") as failed:
        with Client(path):
            pass
    assert failed.value.filename == path


def test_twenty_questions_narrow_a_superposition(daemon):
    shown = run_example(daemon, "twenty_questions.py", "Is it alive?")
    assert shown.count("different objects in 64 reveals") == 2 and "1. Is it alive?" in shown


def test_a_survey_is_the_same_under_a_seed(daemon, folder):
    tables = []
    for number, seed in enumerate(("5", "5", "6")):
        path = os.path.join(folder, f"{number}.csv")
        run_example(daemon, "survey.py", "--count", "12", "--seed", seed, "--out", path,
                    "Tea?", "yes", "no")
        with open(path, encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert tables[0] == tables[1] != tables[2]
    assert len(tables[0]) == 12
    for row in tables[0]:
        assert abs(float(row["share yes"]) + float(row["share no"]) - 1) < 1e-9


def test_the_package_installs_with_its_messages(tmp_path):
    pytest.importorskip("setuptools")
    copy = tmp_path / "source"
    subprocess.run(["cp", "-rL", FOLDER, str(copy)], check=True)
    subprocess.run([sys.executable, "-c",
                    "from setuptools import build_meta; build_meta.build_wheel('dist')"],
                   cwd=copy, check=True, capture_output=True)
    wheel = next((copy / "dist").glob("*.whl"))
    place = tmp_path / "place"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(place)], check=True)
    code = "import personad.schema as s; print(s.__file__, 'Request' in s.MESSAGES)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, check=True,
                           capture_output=True, env={**os.environ, "PYTHONPATH": str(place)})
    assert shown.stdout == f"{place}/personad/schema.py True\n"
    assert (place / "personad/py.typed").exists()
