"""Runs the command line client, alone and in a terminal of its own."""
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time

from conftest import bin_folder

SECONDS_MAX = 60


def program():
    return os.path.join(bin_folder(), "persona")


def environment(**more):
    """Without what the caller's environment would change."""
    kept = {name: value for name, value in os.environ.items()
            if name not in ("PERSONAD_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR")}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm", **more}


def persona(daemon, *arguments, text="", status=0, **more):
    """Standard output of a command that ends with this status."""
    names = {"PERSONAD_SOCKET": daemon.socket} if daemon else {}
    made = subprocess.run([program(), *arguments], input=text.encode(), capture_output=True,
                          env=environment(**names, **more), timeout=SECONDS_MAX, check=False)
    assert made.returncode == status, (made.returncode, made.stdout, made.stderr)
    assert b"Sanitizer" not in made.stderr, made.stderr
    if status != 0:
        assert made.stderr.startswith(b"persona: ") or status == 2, made.stderr
    return made.stdout.decode()


def objects(output):
    """JSON lines, read strictly."""
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")
    assert output == "" or output.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in output.split("\n")[:-1]]


class Terminal:
    """`persona chat` in a pseudo terminal, as a person has it."""

    def __init__(self, daemon, *arguments, **more):
        self.seen = b""
        self.read_up_to = 0
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            names = environment(PERSONAD_SOCKET=daemon.socket, **more)
            os.execve(program(), [program(), "chat", *arguments], names)

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # how Linux says that the other side is closed
            data = b""
        self.seen += data
        return data != b""

    def wait_for(self, wanted, seconds=SECONDS_MAX):
        """What was printed since the last wait, up to and with these bytes."""
        deadline = time.monotonic() + seconds
        while wanted not in self.seen[self.read_up_to:]:
            left = deadline - time.monotonic()
            assert left > 0 and self.read(left), (wanted, self.seen[-2000:])
        end = self.seen.index(wanted, self.read_up_to) + len(wanted)
        part, self.read_up_to = self.seen[self.read_up_to:end], end
        return part

    def type(self, text):
        os.write(self.fd, text if isinstance(text, bytes) else text.encode())

    def wait_until_reading(self):
        """A prompt is shown before the line editor takes the keys; until then the terminal
        itself makes something else of Ctrl-C and Ctrl-D."""
        deadline = time.monotonic() + SECONDS_MAX
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            assert time.monotonic() < deadline, self.seen[-2000:]
            self.read(0.001)

    def say(self, line):
        self.wait_until_reading()
        self.type(line + "\r")
        return self.wait_for(line.encode())

    def is_alive(self):
        return self.status is None and os.waitpid(self.pid, os.WNOHANG)[0] == 0

    def end(self):
        """Exit status, once the output has ended."""
        deadline = time.monotonic() + SECONDS_MAX
        while self.read(max(0, deadline - time.monotonic())):
            pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return self.status

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.fd)
