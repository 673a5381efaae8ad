"""Goal: a daemon that has nothing to do uses no processor, however many of them run here, and it
starts no more threads than it may use processors.
Method: processor time of idle daemons over a while, as the kernel counts it, against that of one
that generates; threads counted by name under a narrowed affinity mask. The bounds are generous: a
thread that spins takes its whole share of a processor.
"""
import os
import time

import pytest

from client import FINAL_ONLY
from conftest import flow_backend

WATCH_SECONDS = 2
IDLE_SECONDS_MAX = 0.2  # of all daemons together
TICKS = os.sysconf("SC_CLK_TCK")

pytestmark = pytest.mark.skipif(flow_backend() != "cpu", reason="is about the CPU's threads")


def processor_seconds(daemon):
    with open(f"/proc/{daemon.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def used_by(daemons):
    before = sum(map(processor_seconds, daemons))
    time.sleep(WATCH_SECONDS)
    return sum(map(processor_seconds, daemons)) - before


def kernel_threads(daemon):
    count = 0
    folder = f"/proc/{daemon.process.pid}/task"
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/comm", encoding="ascii") as file:
            count += file.read() == "kernels\n"
    return count


def test_idle_daemons_use_no_processor(folder, start):
    daemons = [start("--threads", "4", "--data", os.path.join(folder, f"data{number}"),
                     socket=os.path.join(folder, f"s{number}")) for number in range(3)]
    clients = [daemon.client() for daemon in daemons]
    for client in clients:  # each has computed, and its clients stay
        client.complete(b"Hello", max_tokens=8, ignore_end=True)
    assert used_by(daemons) < IDLE_SECONDS_MAX
    # Twin: one that computes is seen at once.
    session = clients[0].open()
    number = clients[0].send_generate(session, n=8, max_tokens=2000, ignore_end=True,
                                      delivery=FINAL_ONLY)
    assert used_by(daemons) > IDLE_SECONDS_MAX
    assert number
    for client in clients:
        client.close()


@pytest.mark.parametrize("options, computing", [((), 1), (("--threads", "3"), 3)])
def test_threads_follow_the_affinity_mask(start, options, computing):
    one = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one)
    try:
        daemon = start(*options)
    finally:
        os.sched_setaffinity(0, before)
    assert kernel_threads(daemon) == computing - 1, "the engine's own thread computes too"
    with daemon.client() as client:
        assert f"{computing} thread".encode() in client.call("info").info.backend
        assert client.complete(b"Hello", max_tokens=8, ignore_end=True).text
