"""A command that waits for a reply while the daemon goes away ends with the whole reply once it is
back: by a signal or by a crash, streamed or at once, and with the bytes of a run that nothing
disturbed."""
import signal
import subprocess

import pytest

from cli import environment, persona, program
from conftest import count_of, wait_until

TOKENS = 1500
COMMAND = ["complete", "--seed", "5", "--ignore-end", "--max-tokens", str(TOKENS)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("more", [[], ["--json"], ["-n", "3"]])
def test_a_command_outlives_its_daemon(start, number, more):
    daemon = start()
    expected = persona(daemon, *COMMAND, *more, "Once upon")
    child = subprocess.Popen([program(), *COMMAND, *more, "--socket", daemon.socket, "Once upon"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    wait_until(lambda: count_of(daemon, "branch_running_count") > 0)
    wait_until(lambda: count_of(daemon, "sample_count") > TOKENS + TOKENS // 10)
    daemon.kill(number)
    daemon.wait()
    assert child.poll() is None, "it ended before the daemon did"
    start()
    output, complaints = child.communicate(timeout=60)
    assert child.returncode == 0, complaints
    assert complaints.count(b"the daemon went away") == 1
    assert complaints.count(b"the daemon is back") == 1
    assert shorn(output.decode()) == shorn(expected)


def shorn(output):
    """Without the ids that two sessions cannot share."""
    return [line.partition('"ordinal":')[2] or line for line in output.split("\n")]
