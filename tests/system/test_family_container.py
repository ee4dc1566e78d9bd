"""A family in a container that is restarted: its pids mean nothing to the next one on its volume."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def short(n):
    mark("short", n)

@task
def gated():
    mark("began", os.getpid())
    gate("go")
"""

CONTAINER = ["unshare", "-fp", "--mount-proc", "--kill-child"]


def start(house: House) -> tuple[subprocess.Popen[bytes], int]:
    """A family as pid 1 of a pid namespace of its own; and that first process, seen from here."""
    probe = subprocess.run([*CONTAINER, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no pid namespace of one's own here: {probe.stderr.decode().strip()}")
    outside = house.start(ready=False, prefix=CONTAINER)
    eventually(lambda: house.children(outside.pid), what="there is a first process")
    return outside, house.children(outside.pid)[0]


def test_a_job_of_a_container_that_was_killed_is_rescued_by_the_next_after_dead_after(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, config={"supervisor": {"dead_after": "2s"}})
    done = [house.enqueue("short", n) for n in range(5)]
    job = house.enqueue("gated", retries=1, retry="0s")
    outside, first = start(house)
    house.wait_lines("began")
    before = eventually(lambda: house.query("SELECT id FROM families"), what="the first heartbeat")
    with open(f"/proc/{first}/ns/pid", "rb"):  # kept, so that the next one has another number
        os.kill(first, signal.SIGKILL)
        outside.wait(10)
        began = SYSTEM.monotonic_ns()
        outside, first = start(house)
        house.wait_lines("began", 2)
    assert SYSTEM.monotonic_ns() - began > 2_000_000_000
    house.touch("go")
    house.wait_finished([*done, job])
    assert house.history(job) == ["crash"]
    assert house.client.get(job).attempt == 2
    assert house.lines("short") == [str(n) for n in range(5)]
    eventually(
        lambda: before[0] not in house.query("SELECT id FROM families"), what="the dead is removed"
    )
    os.kill(first, signal.SIGTERM)
    assert outside.wait(20) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]


def test_a_container_that_died_before_its_first_heartbeat_is_rescued_too(build: Build) -> None:
    house = build(TASKS, processes=1, config={"supervisor": {"dead_after": "2s"}})
    job = house.enqueue("gated", retries=1, retry="0s")
    outside, first = start(house)
    house.wait_lines("began")
    with open(f"/proc/{first}/ns/pid", "rb"):
        os.kill(first, signal.SIGKILL)
        outside.wait(10)
        house.query("DELETE FROM families")  # as if its caretaker had not come to write it
        outside, first = start(house)
        house.wait_lines("began", 2)
    house.touch("go")
    house.wait_finished([job])
    assert house.history(job) == ["crash"]
    os.kill(first, signal.SIGTERM)
    assert outside.wait(20) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
