"""`./dev run` starts a daemon, waits for it, talks, and leaves nothing behind.

Goal: its exit status tells the truth, and the daemon ends whichever way the run does.
Method: the daemon and the client are shell scripts that note what happened to them.
"""
import os
import pty
import select
import signal
import sys
import time

import pytest

DAEMON = """
while [ "$1" != --socket ]; do shift; done
trap 'echo "daemon stopped" >>"$CALLS"; exit 0' TERM
trap 'echo "daemon interrupted" >>"$CALLS"; exit 3' INT
echo "a line of the log" >&2
echo "personad: ready on $2"
while :; do sleep 0.05; done
"""

CLIENT = """
import os, signal
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
os.write(1, b"chatting\\n")
os.write(1, b"heard " + os.read(0, 100))
"""


@pytest.fixture
def running(world):
    programs = world.root / "build" / "release" / "bin"
    (world.root / "model.gguf").write_bytes(b"GGUF")
    world.daemon = lambda body: world.program(
        "personad", body.replace("$CALLS", str(world.calls_file)), programs)
    world.client = lambda body: world.program("persona", body, programs)
    world.run = ("run", "--model", str(world.root / "model.gguf"), "--data",
                 str(world.root / "data"))
    world.daemon(DAEMON)
    world.client('echo "Hello yourself."')
    return world


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def nothing_left(world):
    return world.calls("daemon") == ["daemon stopped"] and os.listdir(world.temporary) == []


def test_without_a_terminal_one_reply_is_printed_and_the_daemon_stopped(running):
    result = running.dev(*running.run)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Hello yourself.\n"
    assert running.calls("persona say --socket ")
    assert nothing_left(running)


def test_options_reach_the_daemon_and_the_client(running):
    running.dev(*running.run, "--threads", "3", "--persona", "plain")
    assert "--threads 3" in running.calls("personad")[0]
    assert "--persona plain" in running.calls("persona say")[0]
    running.dev(*running.run, "--session", "3")
    assert "--session 3" in running.calls("persona say")[1]


def test_a_failing_client_fails_the_run_and_shows_the_log(running):
    running.client("exit 7")
    result = running.dev(*running.run)
    assert result.returncode == 7
    assert "a line of the log" in result.stderr
    assert nothing_left(running)


def test_a_daemon_that_cannot_start_fails_the_run_and_shows_the_log(running):
    running.daemon('echo "the model is broken" >&2; exit 1')
    result = running.dev(*running.run)
    assert result.returncode == 1
    assert "the model is broken" in result.stderr
    assert not running.calls("persona ")
    assert os.listdir(running.temporary) == []


def test_a_daemon_that_ends_badly_fails_the_run(running):
    running.daemon(DAEMON.replace("exit 0", "exit 9"))
    result = running.dev(*running.run)
    assert result.returncode == 1
    assert "status 9" in result.stderr


def test_a_missing_model_file_is_named_before_anything_is_built(running):
    result = running.dev("run", "--model", "/nowhere/model.gguf")
    assert result.returncode == 1
    assert "/nowhere/model.gguf" in result.stderr
    assert not running.calls("cmake")


def test_an_unknown_option_is_named(running):
    result = running.dev("run", "--models", "x")
    assert result.returncode == 1
    assert "--models" in result.stderr and "--model FILE" in result.stderr


@pytest.mark.parametrize("number,status", [(signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_kill_stops_the_client_and_the_daemon(running, number, status):
    running.client("while :; do sleep 0.05; done")
    process = running.start(*running.run)
    wait_for(lambda: running.calls("persona "))
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == status
    assert nothing_left(running)


def test_in_a_terminal_a_chat_is_opened_and_ctrl_c_reaches_it_alone(running):
    client = running.root / "client.py"
    client.write_text(CLIENT)
    running.client(f'exec "{sys.executable}" "{client}"')
    child, terminal = pty.fork()
    if child == 0:
        start = running.arguments(*running.run)
        os.execve(start["args"][0], start["args"], start["env"])
    seen = b""

    def read_until(words):
        nonlocal seen
        while words not in seen:
            assert select.select([terminal], [], [], 20)[0], seen
            seen += os.read(terminal, 1000)

    read_until(b"chatting")
    assert running.calls("persona chat --socket ")
    os.write(terminal, b"\x03")
    read_until(b"interrupted")
    os.write(terminal, b"words\n")
    read_until(b"heard words")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert nothing_left(running)
