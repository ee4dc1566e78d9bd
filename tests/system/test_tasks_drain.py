"""`start --drain`: it ends when the work is done, and knows whose work to wait for."""

from __future__ import annotations

import signal

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.lanes(1, 4),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def second_time(ctx: Context):
    if ctx.attempt == 1:
        raise ValueError("not yet")

@task
def chain(n):
    mark("chain", n)
    if n:
        chain.enqueue(n - 1)

@task
def snoozing():
    mark("snoozed")
    if len(open("snoozed").readlines()) < 3:
        raise Snooze("50ms")

@task
def gated():
    mark("began")
    gate("go")

@task
def die(ctx: Context):
    mark("died")
    if ctx.attempt == 1:
        os._exit(1)
"""


@pytest.mark.preload(False, True)
def test_a_drain_runs_all_that_is_pending_and_exits_0(build: Build) -> None:
    house = build(TASKS)
    ids = [house.enqueue("quick", n) for n in range(300)]
    assert house.drain() == 0
    assert {house.client.get(job).state.value for job in ids} == {"succeeded"}
    assert house.query("SELECT count(*) FROM owners") == [(0,)]


def test_a_drain_of_an_empty_queue_ends_at_once(build: Build) -> None:
    house = build(TASKS)
    began = SYSTEM.monotonic_ns()
    assert house.drain() == 0
    assert SYSTEM.monotonic_ns() - began < 15e9  # far less than any patience of its


@pytest.mark.parametrize(("task", "outcome"), [("second_time", "error"), ("die", "crash")])
def test_a_drain_waits_for_a_retry(build: Build, task: str, outcome: str) -> None:
    house = build(TASKS)
    job = house.enqueue(task, retries=1, retry="700ms")
    assert house.drain() == 0
    assert (house.client.get(job).state, house.history(job)) == ("succeeded", [outcome])


def test_a_drain_waits_for_what_its_jobs_enqueue(build: Build) -> None:
    house = build(TASKS)
    house.enqueue("chain", 20)
    assert house.drain() == 0
    assert len(house.lines("chain")) == 21


def test_a_drain_leaves_what_is_scheduled_or_unknown_and_says_so(build: Build) -> None:
    house = build(TASKS)
    later = house.enqueue("quick", 1, run_in="1h")
    unknown = house.enqueue("not_yet")
    now = house.enqueue("quick", 2)
    assert house.drain() == 0
    left = [house.client.get(job).state.value for job in (later, unknown)]
    assert left == ["scheduled"] * 2
    assert house.client.get(now).state == "succeeded"
    assert house.heard("2 scheduled")


def test_a_drain_waits_for_what_snoozes_until_others_have_ended(build: Build) -> None:
    house = build(TASKS)
    last = house.enqueue("snoozing")
    others = [house.enqueue("quick", n) for n in range(3)]
    assert house.drain() == 0
    states = {house.client.get(job).state.value for job in (last, *others)}
    assert states == {"succeeded"}


def test_a_drain_does_not_wait_for_queues_nobody_here_serves(build: Build) -> None:
    house = build(TASKS)
    other = house.enqueue("quick", 1, queue="other")
    assert house.drain() == 0
    assert house.client.get(other).state == "pending"


@pytest.mark.lanes(1)  # the second job waits for the first
def test_a_drain_can_be_stopped_before_its_end(build: Build) -> None:
    house = build(TASKS, processes=1)
    house.enqueue("gated")
    waiting = house.enqueue("quick", 1)
    family = house.start("--drain", ready=False)
    house.wait_lines("began")
    family.send_signal(signal.SIGTERM)
    eventually(lambda: house.said("stopping: running jobs have"))
    house.touch("go")
    assert family.wait(20) == 0
    assert house.client.get(waiting).state == "pending"


def test_a_drain_never_overlooks_a_job_between_two_looks(build: Build) -> None:
    for number in range(10):
        house = build(TASKS, name=f"house-{number}")
        house.enqueue("chain", 3)
        assert house.drain() == 0
        assert len(house.lines("chain")) == 4


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_drain_with_a_broken_import_ends_with_78_and_says_why(build: Build, jobs: int) -> None:
    house = build("raise ValueError('no such thing')")
    for n in range(jobs):
        house.enqueue("quick", n)
    assert house.drain() == 78
    assert house.heard("ValueError: no such thing")
    assert house.heard("the configuration is wrong")
    assert not house.said("unexpected error")
    assert {job.state for job in house.client.list()} <= {"pending"}
