"""kill -9 of the parent alone: its children finish what they run, settle, and leave."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import Build, alive
from tests.system.history import (
    check_each_succeeded,
    check_nothing_left,
    marking,
    marks,
    never_overlapped,
    wait_begun,
)
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

TASKS = marking("""
    @task
    def gated(ctx: Context):
        mark("start", ctx)
        while not os.path.exists("gate"):
            time.sleep(0.01)  # task body
        mark("end", ctx)

    @task
    def endless(ctx: Context):
        mark("start", ctx)
        while ctx.attempt == 1:
            time.sleep(0.01)  # task body
        mark("end", ctx)

    @task
    def half_a_second():
        time.sleep(0.5)  # task body
    """)


def kill_parent(family: subprocess.Popen[bytes]) -> None:
    family.kill()
    assert family.wait(10) == -signal.SIGKILL


def wait_gone(pids: list[int], limit: float) -> None:
    eventually(lambda: not any(map(alive, pids)), limit=limit, what=f"{pids} are gone")


@pytest.mark.preload(False, True)
def test_idle_children_leave_when_their_parent_has_died(build: Build, preload: bool) -> None:
    house = build(TASKS)
    family = house.start()
    children = house.children(family.pid)
    assert len(children) == 3 + preload
    kill_parent(family)
    wait_gone(children, limit=20.0)
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    assert house.query("SELECT count(*) FROM families") == [(0,)]


def test_a_busy_child_ends_its_job_settles_and_leaves_without_its_parent(build: Build) -> None:
    house = build(TASKS)
    first = house.enqueue("gated")
    family = house.start()
    wait_begun(house)
    waiting = [house.enqueue("endless")]  # taken by the other worker, which dies of it at the end
    wait_begun(house, 2)
    later = house.enqueue("gated")
    children = house.children(family.pid)
    kill_parent(family)
    house.touch("gate")
    house.wait_state(first, "succeeded")
    assert len(marks(house)) == 3, "an orphan began a job"
    assert house.client.get(later).state == "pending"
    (endless,) = [mark.pid for mark in marks(house) if mark.job == waiting[0]]
    os.kill(endless, signal.SIGKILL)
    wait_gone(children, limit=20.0)
    check_nothing_left(house)
    assert house.client.get(waiting[0]).state == "scheduled"
    assert house.client.get(later).state == "pending"


def test_the_timeout_of_an_orphans_job_is_still_enforced(build: Build) -> None:
    house = build(TASKS)
    job = house.enqueue("endless", timeout="1s", retry=Fixed(0))
    family = house.start()
    wait_begun(house)
    children = house.children(family.pid)
    kill_parent(family)
    wait_gone(children, limit=20.0)
    check_nothing_left(house)
    assert house.client.get(job).state == "pending"
    (attempt,) = house.client.attempts(job)
    assert (attempt.outcome, attempt.verdict) == ("timeout", "timeout")
    assert house.drain() == 0
    assert house.client.get(job).state == "succeeded"


def test_the_next_family_enforces_it_where_the_caretaker_is_dead_too(build: Build) -> None:
    house = build(TASKS)
    job = house.enqueue("endless", timeout="3s", retry=Fixed(0))
    family = house.start()
    wait_begun(house)
    orphan = marks(house)[0].pid
    caretaker = house.caretaker()
    kill_parent(family)
    os.kill(caretaker, signal.SIGKILL)
    began = SYSTEM.monotonic_ns()
    second = house.start()
    assert alive(orphan)
    house.wait_state(job, "succeeded")
    assert not alive(orphan)
    assert SYSTEM.monotonic_ns() - began > 1e9, "it was killed before its time"
    found = marks(house)
    assert [(mark.word, mark.attempt) for mark in found] == [("start", 1), ("start", 2), ("end", 2)]
    assert found[1].at - found[0].at > 3e9
    assert house.history(job) == ["timeout"]
    assert house.stop(second) == 0
    check_nothing_left(house)


@pytest.mark.parametrize("also_the_caretaker", [False, True])
def test_a_new_family_leaves_the_jobs_of_living_orphans_alone(
    build: Build, also_the_caretaker: bool
) -> None:
    house = build(TASKS)
    ids = [house.enqueue("gated", retries=0), house.enqueue("gated", retries=0)]
    family = house.start()
    wait_begun(house, 2)
    caretaker = house.caretaker()
    kill_parent(family)
    if also_the_caretaker:
        os.kill(caretaker, signal.SIGKILL)
    second = house.start()
    more = [house.enqueue("gated"), house.enqueue("gated")]
    wait_begun(house, 4)
    house.touch("gate")
    house.wait_finished(ids + more)
    check_each_succeeded(house, ids + more)
    found = marks(house)
    never_overlapped(found, lambda _mark: False)
    assert len(found) == 8
    assert house.stop(second) == 0
    eventually(
        lambda: house.query("SELECT count(*) FROM owners") == [(0,)], what="the orphans have left"
    )
    check_nothing_left(house)


def test_an_orphaned_caretaker_keeps_its_hands_off_the_next_familys_dead(build: Build) -> None:
    # It lives on beside the new family, whose parent alone knows why its children died.
    house = build(TASKS)
    house.enqueue("gated")
    family = house.start()
    wait_begun(house)
    kill_parent(family)
    second = house.start()
    job = house.enqueue("endless", retry=Fixed(0))
    wait_begun(house, 2)
    victim = marks(house)[1].pid
    caretaker = house.hang_caretaker()
    os.kill(victim, signal.SIGKILL)
    # The orphan looks every tenth of a second; this takes five of them.
    house.wait_finished([house.enqueue("half_a_second")])
    assert house.client.get(job).state == "running"
    os.kill(caretaker, signal.SIGCONT)
    house.wait_state(job, "succeeded")
    (attempt,) = house.client.attempts(job)
    assert (attempt.pid, attempt.signal) == (victim, "SIGKILL")
    house.touch("gate")
    assert house.stop(second) == 0


def test_an_orphaned_caretaker_does_not_speak_for_the_next_family(build: Build) -> None:
    house = build(TASKS)
    house.enqueue("gated")
    family = house.start()
    wait_begun(house)
    kill_parent(family)
    second = house.start()
    caretaker = house.hang_caretaker()
    house.wait_finished([house.enqueue("half_a_second")])
    house.touch("gate")
    wait_gone([marks(house)[0].pid], limit=20.0)
    house.wait_finished([house.enqueue("half_a_second")])
    assert (house.status()["pid"], house.status()["state"]) == (second.pid, "running")
    os.kill(caretaker, signal.SIGCONT)
    assert house.stop(second) == 0
