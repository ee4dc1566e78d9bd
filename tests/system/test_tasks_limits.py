"""Timeouts, memory limits and recycling: enforced from outside, whatever the task does about it."""

from __future__ import annotations

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
import ctypes

@task
def quick(n):
    mark("quick", n)

@task
def pid(n):
    return os.getpid()

@task
def slow(how):
    mark("began", time.monotonic_ns())
    if how == "native":
        ctypes.PyDLL(None).sleep(600)  # task body: holds the interpreter's lock
    if how == "native loop":
        sum(range(10**12))
    if how == "sleep":
        time.sleep(600)  # task body
    if how == "alarm":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    if how == "all signals":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        try:
            time.sleep(0.01)  # task body
        except:
            pass

@task
def deadline(ctx: Context):
    return [ctx.remaining, ctx.deadline is not None]

@task
def greedy(megabytes):
    mark("greedy")
    held = bytearray(megabytes << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    gate("never")

@task
def greedy_child(megabytes):
    if os.fork() == 0:
        held = bytearray(megabytes << 20)
        for at in range(0, len(held), 4096):
            held[at] = 1
        gate("never")
    os.wait()

LEAKED = []

@task
def leak(megabytes):
    LEAKED.append(bytearray(os.urandom(1 << 16) * (16 * megabytes)))
    return os.getpid()

@task
def large(n):
    gate("locked")
    return "x" * 200_000
"""


@pytest.mark.parametrize("how", ["native", "native loop", "sleep", "alarm", "all signals"])
def test_a_task_past_its_timeout_is_killed_at_once_and_recorded_once(
    build: Build, how: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("slow", how, timeout="300ms", retries=0)
    family = house.start()
    house.wait_finished([job])
    ended = SYSTEM.monotonic_ns()
    (began,) = house.lines("began")
    assert 0.3e9 <= ended - int(began) < 20e9  # nothing else ends it
    assert house.client.get(job).state == "failed"
    (attempt,) = house.client.attempts(job)
    assert (attempt.outcome, attempt.verdict, attempt.signal) == ("timeout", "timeout", "SIGKILL")
    assert "timeout of 0.3 s" in (attempt.message or "")
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_a_timeout_is_retried_by_the_jobs_policy(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("slow", "sleep", timeout="100ms", retries=2, retry="0s")
    family = house.start()
    house.wait_finished([job])
    assert house.history(job) == ["timeout"] * 3
    assert [attempt.attempt for attempt in house.client.attempts(job)] == [1, 2, 3]
    assert house.client.get(job).state == "failed"
    assert house.stop(family) == 0


def test_a_timeout_charges_only_the_job_it_was_for(build: Build) -> None:
    house = build(TASKS, processes=1)
    # Once the worker takes many at a time, one of a batch runs out of time.
    first = [house.enqueue("quick", n, retries=0) for n in range(200)]
    late = house.enqueue("slow", "sleep", timeout="200ms", retries=0)
    rest = [house.enqueue("quick", n, retries=0) for n in range(200, 400)]
    family = house.start()
    house.wait_finished([*first, late, *rest])
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == [(400,)]
    assert house.query("SELECT DISTINCT job FROM attempts") == [(late,)]
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(400)]
    assert house.stop(family) == 0


def test_a_job_knows_its_deadline(build: Build) -> None:
    house = build(TASKS, processes=1)
    limited = house.enqueue("deadline", timeout="30s")
    unlimited = house.enqueue("deadline")
    family = house.start()
    house.wait_finished([limited, unlimited])
    remaining, has_deadline = house.client.get(limited).result
    assert (29 < remaining <= 30, has_deadline) == (True, True)
    assert house.client.get(unlimited).result == [None, False]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_a_finished_job_is_not_killed_while_its_result_waits_for_the_database(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("large", 1, timeout="500ms", retries=0)
    family = house.start(ready=False)
    eventually(lambda: house.client.get(job).state == "running")
    with house.locked():
        house.touch("locked")
        until = SYSTEM.monotonic_ns() + 1_000_000_000
        eventually(lambda: SYSTEM.monotonic_ns() > until)
    house.wait_finished([job])
    assert house.client.get(job).state == "succeeded"
    assert house.stop(family) == 0


@pytest.mark.parametrize("name", ["greedy", "greedy_child"])
def test_a_job_over_its_memory_limit_is_killed_with_outcome_memory(build: Build, name: str) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue(name, 300, memory="150MB", retries=0)
    within = house.enqueue("quick", 1, memory="150MB", retries=0)
    family = house.start()
    house.wait_finished([job, within])
    (attempt,) = house.client.attempts(job)
    assert (attempt.outcome, attempt.verdict) == ("memory", "memory")
    assert house.client.get(job).state == "failed"
    assert house.client.get(within).state == "succeeded"
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_max_jobs_recycles_the_worker_without_losing_a_job(build: Build) -> None:
    house = build(TASKS, processes=2, max_jobs=10)
    ids = [house.enqueue("pid", n, retries=0) for n in range(100)]
    family = house.start()
    house.wait_finished(ids)
    ran = [house.client.get(job).result for job in ids]
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == [(100,)]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert max(ran.count(pid) for pid in ran) <= 10
    assert len(set(ran)) >= 10
    assert not house.said("keeps dying")
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_max_memory_recycles_a_worker_that_grew_after_its_job(build: Build) -> None:
    house = build(TASKS, processes=1, max_memory="120MB")
    ids = [house.enqueue("leak", 30, retries=0) for _ in range(12)]
    family = house.start()
    house.wait_finished(ids)
    ran = [house.client.get(job).result for job in ids]
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == [(12,)]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert 2 <= len(set(ran)) <= 6
    assert house.stop(family) == 0
