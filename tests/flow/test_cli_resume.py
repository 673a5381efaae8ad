"""A command that waits for a reply while the daemon goes away ends with the whole reply once it is
back: by a signal or by a crash, streamed or at once, and with the bytes of a run that nothing
disturbed."""
import signal
import subprocess

import pytest

from cli import environment, persona, program
from conftest import count_of, until_in_the_middle, wait_until

TOKENS = 1500
COMMAND = ["complete", "--seed", "5", "--ignore-end", "--max-tokens", str(TOKENS)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("more", [[], ["--json"], ["-n", "3"]])
def test_a_command_outlives_its_daemon(start, number, more):
    def killed(_):
        """A command that waits, and the output of one that did not."""
        daemon = start()
        expected = persona(daemon, *COMMAND, *more, "Once upon")
        sampled = count_of(daemon, "sample_count")
        child = subprocess.Popen(
            [program(), *COMMAND, *more, "--socket", daemon.socket, "Once upon"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        wait_until(lambda: count_of(daemon, "sample_count") > sampled + TOKENS // 10)
        daemon.kill(number)
        daemon.wait()
        complaint = child.stderr.readline()  # empty: it has ended
        if complaint:
            assert b"the daemon went away" in complaint
            return child, expected
        assert child.communicate(timeout=60)[0] and child.returncode == 0
        return None

    child, expected = until_in_the_middle(killed)
    start()
    output, complaints = child.communicate(timeout=60)
    assert child.returncode == 0, complaints
    assert complaints.count(b"the daemon went away") == 0
    assert complaints.count(b"the daemon is back") == 1
    assert shorn(output.decode()) == shorn(expected)


def shorn(output):
    """Without the ids that two sessions cannot share."""
    return [line.partition('"ordinal":')[2] or line for line in output.split("\n")]
