"""The parent as the judge of running jobs, where it was late, short of descriptors or idle."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from tests.system.harness import MARK, Build, House, alive, seconds_for_sleeps
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task
def gated():
    mark("began", os.getpid())
    gate("go")

@task
def stuck():
    mark("stuck")
    while True:
        time.sleep(60)  # task body

@task
def hog():
    held = bytearray(200_000_000)
    time.sleep(60)  # task body
"""


def test_a_parent_that_slept_over_a_deadline_judges_again_a_second_later(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("stuck", timeout="500ms", retries=0)
    house.wait_lines("stuck")
    family.send_signal(signal.SIGSTOP)
    # Over the deadline, and late by more than a second even for an idle sleep.
    eventually(lambda: (house.status()["workers"][0]["job_seconds"] or 0) > 3.5, what="it is late")
    assert house.client.get(job).state == "running"
    family.send_signal(signal.SIGCONT)
    eventually(lambda: house.client.get(job).finished, what="the job is killed")
    assert house.history(job) == ["timeout"]
    assert len(house.heard("no timeout for the next second")) == 1
    assert house.stop(family) == 0


def test_a_parent_without_a_free_descriptor_lives_and_judges_memory_later(build: Build) -> None:
    house = build(TASKS, processes=1)
    family = house.start()
    job = house.enqueue("gated", memory="100MB", retries=0)
    house.wait_lines("began")
    numbers = {int(name) for name in os.listdir(f"/proc/{family.pid}/fd")}
    lowest_free = next(number for number in range(1000) if number not in numbers)
    before = resource.prlimit(family.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(family.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    # It looks at the memory of the job, and cannot open a file.
    seconds_for_sleeps(family.pid, 50)
    assert alive(family.pid)
    house.touch("go")
    house.wait_state(job, "succeeded")
    resource.prlimit(family.pid, resource.RLIMIT_NOFILE, before)
    large = house.enqueue("hog", memory="100MB", retries=0)
    house.wait_state(large, "failed")
    assert house.history(large) == ["memory"]
    assert not house.said("unexpected error")
    assert house.stop(family) == 0


def test_a_parent_that_waits_for_the_last_job_of_a_stop_looks_fifty_times_a_second(
    build: Build,
) -> None:
    house = build(TASKS, processes=3)
    family = house.start()
    house.enqueue("gated")
    house.wait_lines("began")
    family.send_signal(signal.SIGTERM)
    wait_two_left(house, family.pid)
    assert seconds_for_sleeps(family.pid, 30) > 0.3
    house.touch("go")
    assert family.wait(20) == 0


def wait_two_left(house: House, pid: int) -> None:
    eventually(lambda: len(house.children(pid)) == 2, what="the idle workers have left")


def test_a_drain_looks_fifty_times_a_second_while_its_last_job_runs(build: Build) -> None:
    house = build(TASKS, processes=2)
    house.enqueue("gated")
    family = house.start("--drain", ready=False)
    house.wait_lines("began")
    assert seconds_for_sleeps(family.pid, 30) > 0.3
    house.touch("go")
    assert family.wait(20) == 0
