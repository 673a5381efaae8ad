"""How the daemon starts, refuses to start, and stops."""
import os
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest

from client import CODES, FINISHES, ROOT, Generated
from conftest import Daemon, bin_folder, tiny_model, wait_until

NOBODY_IN_PARTICULAR = 4711


def fails(daemon):
    """Its one sentence, after it ended with 1."""
    assert daemon.wait() == 1
    rest = daemon.process.stdout.read()
    assert rest == "", "nothing on standard output"
    lines = [line for line in daemon.log().splitlines() if line.startswith("personad: ")]
    assert len(lines) == 1, daemon.log()
    return lines[0]


def test_it_says_that_it_is_ready_once_and_stops_with_0(start):
    daemon = start()
    assert daemon.ready_line == f"personad: ready on {daemon.socket}\n"
    with daemon.client() as client:
        assert client.call("info").info.pid == daemon.process.pid
    assert daemon.end() == ""
    assert daemon.process.returncode == 0
    assert not os.path.exists(daemon.socket)
    assert not os.path.exists(daemon.socket + ".lock")


@pytest.mark.tsan
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_is_open(start, number):
    """A stream in progress is ended properly, so that a client can tell a stop from a crash."""
    daemon = start()
    client = daemon.client()
    session = client.open()
    client.append(session, b"Going")
    request = client.send_generate(session, n=2, max_tokens=3000, ignore_end=True)
    made = Generated()
    made.feed(client.next_of(request))
    made.feed(client.next_of(request))
    daemon.kill(number)
    while True:
        reply = client.next_of(request)
        made.feed(reply)
        if not reply.more:
            break
    assert reply.WhichOneof("result") == "done"
    for node in made.replies():
        assert node.finish == FINISHES["INTERRUPTED"]
        assert node.error.code == CODES["STOPPING"]
        assert node.text == made.text.get(node.id, b"")
    assert len(made.replies()) == 2
    assert daemon.wait() == 0


def test_a_second_signal_skips_the_flush(start):
    """A reader that reads nothing would hold the daemon for the time of a flush."""
    daemon = start()
    client = daemon.client()
    session = client.open()
    client.append(session, b"Going")
    client.send_generate(session, n=16, max_tokens=400, ignore_end=True, numbers=True,
                         top_count=32)
    time.sleep(0.3)
    began = time.monotonic()
    daemon.kill()
    time.sleep(0.1)
    if daemon.process.poll() is None:
        daemon.kill()
    assert daemon.wait() == 0
    assert time.monotonic() - began < 30


def test_a_reader_that_never_reads_delays_the_stop_by_two_seconds_at_most(start):
    daemon = start()
    client = daemon.client()
    session = client.open()
    client.append(session, b"Going")
    client.send_generate(session, n=16, max_tokens=400, ignore_end=True, numbers=True,
                         top_count=32)
    time.sleep(0.5)
    began = time.monotonic()
    daemon.kill()
    assert daemon.wait() == 0
    assert time.monotonic() - began < 15


def test_a_killed_daemon_leaves_a_socket_that_the_next_one_takes(folder, start):
    first = Daemon(folder)
    first.kill(signal.SIGKILL)
    first.wait()
    first.process.stdout.close()
    assert os.path.exists(first.socket)
    second = start()
    with second.client() as client:
        assert client.call("info").info.pid == second.process.pid


def test_a_second_daemon_on_the_socket_is_refused(start, folder):
    first = start()
    other = os.path.join(folder, "other")
    os.mkdir(other)
    second = Daemon(other, socket=first.socket, expect_ready=False)
    assert "another daemon" in fails(second)
    second.process.stdout.close()
    with first.client() as client:
        assert client.call("info").info.pid == first.process.pid


def test_a_second_daemon_on_the_data_folder_is_refused(start, folder):
    start()
    second = Daemon(folder, socket=os.path.join(folder, "t"), expect_ready=False)
    assert "data" in fails(second)
    second.process.stdout.close()


def test_the_socket_and_the_data_are_the_owner_s_alone(start, folder):
    daemon = start()
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.join(folder, "data")).st_mode) == 0o700


def test_something_else_at_the_socket_s_path_stays(folder, start):
    path = os.path.join(folder, "s")
    with open(path, "w", encoding="ascii") as file:
        file.write("precious")
    daemon = start(expect_ready=False)
    assert "no socket" in fails(daemon)
    with open(path, encoding="ascii") as file:
        assert file.read() == "precious"


def test_another_program_s_socket_stays(folder, start):
    path = os.path.join(folder, "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(1)
        daemon = start(expect_ready=False)
        assert "another program" in fails(daemon)
        assert os.path.exists(path)


def test_a_path_too_long_for_a_socket_is_refused(folder, start):
    daemon = start(socket=os.path.join(folder, "s" * 120), expect_ready=False)
    sentence = fails(daemon)
    assert "--socket" in sentence and "107" in sentence


@pytest.mark.parametrize("name,content,word", [
    ("missing", None, "missing"), ("empty", b"", "empty"), ("text", b"no model at all", "text"),
    ("cut", "cut", "cut")])
def test_a_model_that_is_none_is_named(folder, start, name, content, word):
    path = os.path.join(folder, name + ".gguf")
    if content == "cut":
        with open(tiny_model(), "rb") as file:
            content = file.read()[:300_000]
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    daemon = start(model=path, expect_ready=False)
    sentence = fails(daemon)
    assert word + ".gguf" in sentence and len(sentence) > len(path) + 20


def test_a_folder_is_no_model(folder, start):
    daemon = start(model=folder, expect_ready=False)
    assert folder in fails(daemon)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_an_unreadable_model_is_named(folder, start):
    """As another user: root reads everything."""
    path = os.path.join(folder, "secret.gguf")
    with open(tiny_model(), "rb") as source, open(path, "wb") as file:
        file.write(source.read())
    os.chmod(path, 0o600)
    os.chmod(folder, 0o777)
    own = os.path.join(folder, "own")
    os.mkdir(own)
    os.chown(own, NOBODY_IN_PARTICULAR, NOBODY_IN_PARTICULAR)
    daemon = Daemon(own, model=path, expect_ready=False, user=NOBODY_IN_PARTICULAR)
    sentence = fails(daemon)
    daemon.process.stdout.close()
    assert "secret.gguf" in sentence and "ermission" in sentence


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_data_folder_of_another_user_is_refused(folder):
    os.chmod(folder, 0o755)
    os.mkdir(os.path.join(folder, "data"))
    own = os.path.join(folder, "own")
    os.mkdir(own)
    os.chown(own, NOBODY_IN_PARTICULAR, NOBODY_IN_PARTICULAR)
    made = subprocess.run(
        [os.path.join(bin_folder(), "personad"), "--model", tiny_model(), "--socket",
         os.path.join(own, "s"), "--data", os.path.join(folder, "data")],
        user=NOBODY_IN_PARTICULAR, capture_output=True, text=True, timeout=60)
    assert made.returncode == 1
    assert "data" in made.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("what, words", [
    ("a file that may only be read", ["journal.db", "may read it and not write it", "chmod"]),
    ("a file that may not be read", ["journal.db", "cannot be written"]),
    ("a folder that cannot be made", ["data", "could not be made", "ermission"]),
    ("a file in the folder's place", ["data", "not a folder"])])
def test_data_that_cannot_be_written_is_named(folder, what, words):
    """As another user: root writes everything."""
    os.chmod(folder, 0o755)
    own = os.path.join(folder, "own")
    data = os.path.join(own, "data")
    os.makedirs(data)
    for path in (own, data):
        os.chown(path, NOBODY_IN_PARTICULAR, NOBODY_IN_PARTICULAR)
    daemon = Daemon(own, user=NOBODY_IN_PARTICULAR)
    daemon.end()
    if what.startswith("a folder") or what.endswith("place"):
        shutil.rmtree(data)
    if what.endswith("place"):
        with open(data, "w", encoding="ascii") as file:
            file.write("precious")
    elif what.startswith("a folder"):
        os.chmod(own, 0o500)
    else:
        os.chmod(os.path.join(data, "journal.db"), 0o400 if "only" in what else 0)
    daemon = Daemon(own, socket=os.path.join(own, "s"), user=NOBODY_IN_PARTICULAR,
                    expect_ready=False)
    sentence = fails(daemon)
    daemon.process.stdout.close()
    assert all(word in sentence for word in words), sentence


def run(*arguments, **environment):
    made = subprocess.run([os.path.join(bin_folder(), "personad"), *arguments], timeout=60,
                          capture_output=True, text=True, env={**os.environ, **environment})
    return made.returncode, made.stdout, made.stderr


def test_options_that_are_wrong_are_named():
    for arguments, words in [
            ((), ["--model"]),
            (("--model", "x", "--threads", "many"), ["--threads", "many"]),
            (("--model", "x", "--context", "-1"), ["--context"]),
            (("--model", "x", "--backend", "abacus"), ["abacus"]),
            (("--model", "x", "--kv-type", "int3"), ["kv-type", "int3", "fp8"]),
            (("--model", "x", "--weights", "int3"), ["weights", "int3", "as-is", "fp8"]),
            (("--model", "x", "--speculation", "on"), ["speculation", "on", "auto and off"]),
            (("--model", "x", "--numerics", "vague"), ["numerics", "vague", "fast", "precise"]),
            (("--model", "x", "--log", "loud"), ["loud"]),
            (("--model", "x", "--config", "/nowhere.ini"), ["/nowhere.ini"])]:
        code, out, err = run(*arguments)
        assert code == 1 and out == "", (arguments, err)
        assert all(word in err for word in words), err


def test_a_config_file_has_the_same_names(folder, start):
    path = os.path.join(folder, "personad.ini")
    with open(path, "w", encoding="ascii") as file:
        file.write("; a comment\ncontext = 1024\nthreads = 1\nconnections = 5\n")
    daemon = start("--config", path, "--context", "2048")
    with daemon.client() as client:
        info = client.call("info").info
        assert info.context_tokens_max == 2048, "the command line wins"
        assert "1 thread" in info.backend.decode()
        limits = {limit.name.decode(): limit.value for limit in info.limits}
        assert limits["CONNECTION_COUNT_MAX"] == 5


def test_the_example_config_is_sound(start):
    daemon = start("--config", os.path.join(ROOT, "packaging/personad.ini"))
    with daemon.client() as client:
        limits = {limit.name: limit.value for limit in client.call("info").info.limits}
    assert limits[b"CONNECTION_COUNT_MAX"] == 1024


@pytest.mark.parametrize("line", ["colour = blue", "threads = 0.5", "just words", "[section]\nx=1"])
def test_a_wrong_line_of_the_config_is_named_by_number(folder, line):
    path = os.path.join(folder, "personad.ini")
    with open(path, "w", encoding="ascii") as file:
        file.write("context = 1024\n" + line + "\n")
    code, out, err = run("--model", "x", "--config", path)
    assert code == 1 and out == ""
    assert f"{path}:" in err and (":2:" in err or ":3:" in err)


def starts_on(folder, path, **environment):
    made = subprocess.Popen(
        [os.path.join(bin_folder(), "personad"), "--model", tiny_model(), "--data",
         os.path.join(folder, "data"), "--personas", os.path.join(ROOT, "personas"),
         "--kv-memory", "16"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment})
    line = made.stdout.readline()
    made.send_signal(signal.SIGTERM)
    assert made.wait(30) == 0
    made.stdout.close()
    assert line == f"personad: ready on {path}\n"


def test_the_default_socket_follows_the_environment(folder):
    named = os.path.join(folder, "named")
    starts_on(folder, named, PERSONAD_SOCKET=named)
    runtime = os.path.join(folder, "personad/personad.sock")
    starts_on(folder, runtime, PERSONAD_SOCKET="", XDG_RUNTIME_DIR=folder)
    assert stat.S_IMODE(os.stat(os.path.dirname(runtime)).st_mode) == 0o700


def test_log_lines_have_levels_and_request_ids(start):
    daemon = start("--log", "debug")
    with daemon.client() as client:
        client.call("info")
        client.call("tokenize", text=b"secret words")
    wait_until(lambda: "closed" in daemon.log())
    log = daemon.log()
    assert " info  wire: connection 1 opened uid=" in log
    assert " debug wire: 1.2 " in log, "connection and request"
    assert "secret words" not in log


def test_bytes_are_the_same_after_a_restart(start, folder):
    first = start()
    with first.client() as client:
        before = client.complete(b"Restart", seed=6, max_tokens=50, ignore_end=True)
    first.end()
    second = start("--threads", "1")
    with second.client() as client:
        after = client.complete(b"Restart", seed=6, max_tokens=50, ignore_end=True)
    assert list(before.numbers.tokens) == list(after.numbers.tokens)
    assert list(before.numbers.logprobs) == list(after.numbers.logprobs)
    assert before.finish == FINISHES["LENGTH"]
