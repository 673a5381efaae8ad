"""Daemons for the flows: the built program on a tiny model, one for all tests that leave it alone
and fresh ones for those that stop it, crowd it or set it up differently.

PERSONAD_BIN_DIR names the folder of the programs, PERSONAD_TINY_DIR that of the tiny models.
"""
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from client import ROOT, Client

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


def pytest_configure(config):
    config.addinivalue_line("markers", "tsan: also run against the ThreadSanitizer build")


def bin_folder():
    return os.environ.get("PERSONAD_BIN_DIR", os.path.join(ROOT, "build/release/bin"))


def flow_backend():
    """The same flows run on every backend; "cuda" is the emulator's, by PERSONAD_BACKEND_PATH."""
    return os.environ.get("PERSONAD_FLOW_BACKEND", "cpu")


def tiny_model(name="Q4_1-bpe"):
    folder = os.environ.get("PERSONAD_TINY_DIR", os.path.join(ROOT, "build/tiny"))
    path = os.path.join(folder, f"tiny-{name}.gguf")
    if not os.path.exists(path):
        pytest.skip(f"{path} is missing; ./dev test makes it")
    return path


class Daemon:
    """One running daemon in a folder of its own."""

    def __init__(self, folder, *options, model=None, socket=None, expect_ready=True, user=None,
                 environment=None):
        self.folder = folder
        self.socket = socket or os.path.join(folder, "s")
        self.log_path = os.path.join(folder, "log")
        self.arguments = [os.path.join(bin_folder(), "personad"), "--model", model or tiny_model(),
                          "--socket", self.socket, "--data", os.path.join(folder, "data"),
                          "--personas", os.path.join(ROOT, "personas"), "--kv-memory", "64",
                          "--backend", flow_backend(), *options]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, stderr=log,
                                            text=True, user=user,
                                            env={**os.environ, **(environment or {})})
        self.ready_line = ""
        if expect_ready:
            self.ready_line = self.first_line()
            assert self.ready_line == f"personad: ready on {self.socket}\n", self.log()

    def first_line(self):
        if not select.select([self.process.stdout], [], [], START_SECONDS_MAX)[0]:
            return ""
        return self.process.stdout.readline()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def client(self, **options):
        return Client(self.socket, **options)

    def kill(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=STOP_SECONDS_MAX):
        return self.process.wait(seconds)

    def end(self):
        """What it prints after the first line, once it ended."""
        if self.process.poll() is None:
            self.kill()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill(signal.SIGKILL)
                self.wait()
                raise
        if self.process.stdout.closed:
            return ""
        rest = self.process.stdout.read()
        self.process.stdout.close()
        return rest


def assert_clean(daemon):
    """Sanitizers and failed checks speak on standard error and end the program."""
    log = daemon.log()
    for word in ("Sanitizer", "runtime error", "check failed"):
        assert word not in log, log[-8000:]


@pytest.fixture
def folder():
    """Short, for the bound on a socket's path."""
    path = tempfile.mkdtemp(prefix="pd-", dir="/tmp")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(folder):
    """Starts daemons that end with the test."""
    started = []

    def start_one(*options, **more):
        made = Daemon(folder, *options, **more)
        started.append(made)
        return made

    yield start_one
    for daemon in started:
        daemon.end()
        assert_clean(daemon)


@pytest.fixture(scope="session")
def shared_daemon():
    path = tempfile.mkdtemp(prefix="pd-", dir="/tmp")
    made = Daemon(path)
    yield made
    rest = made.end()
    log = made.log()
    shutil.rmtree(path, ignore_errors=True)
    assert made.process.returncode == 0, log[-8000:]
    assert rest == "", "one line on standard output and no more"
    for word in ("Sanitizer", "runtime error", "check failed"):
        assert word not in log, log[-8000:]


@pytest.fixture
def daemon(shared_daemon):
    """Alive before and after, and with no branch left over."""
    assert shared_daemon.process.poll() is None, shared_daemon.log()[-8000:]
    yield shared_daemon
    assert shared_daemon.process.poll() is None, shared_daemon.log()[-8000:]


@pytest.fixture
def client(daemon):
    with daemon.client() as made:
        yield made


MIDDLE_TRIES = 20


def until_in_the_middle(once):
    """What once(number) gives: None where what was to be interrupted had ended already, as it may
    when this process sleeps at the wrong moment on a busy machine; then it is tried again."""
    for number in range(MIDDLE_TRIES):
        made = once(number)
        if made is not None:
            return made
    raise AssertionError(f"{MIDDLE_TRIES} times it had ended before it was interrupted")


def wait_until(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)


def count_of(daemon, name):
    with daemon.client() as client:
        return getattr(client.call("stats").stats, name)
