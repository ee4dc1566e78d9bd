"""Many jobs at once in one worker: beside each other, and what ends one of them is its own affair."""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial

import pytest

from tests.system.harness import MARK, Build, House
from tests.system.history import (
    SHORT_OF_BOTH,
    calls,
    check_each_succeeded,
    check_nothing_left,
    marks,
    never_overlapped,
    wait_busy,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
import asyncio

async def agate(name):
    while not os.path.exists(name):
        await asyncio.sleep(0.005)

@task(retries=0)
def gated(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    gate("go")
    mark("ended", n)

@task(retries=0)
async def agated(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    await agate("go")
    mark("ended", n)

@task(retries=0)
def stays(n, name):
    mark("began", f"{{n}} {{os.getpid()}}")
    gate(name)

@task(retries=0)
async def astays(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    try:
        await agate("never")
    finally:
        mark("cancelled", n)

@task(retries=0)
async def deaf(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    while True:
        try:
            await agate("never")
        except asyncio.CancelledError:
            mark("cancelled", n)

@task(retries=0)
async def blocks(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    gate("go")

@task
def pid(n):
    mark("pids", os.getpid())

@task
def large(n):
    return str(n % 10) * 60_000

@task
async def larger(n):
    return str(n % 10) * 100_000

@task
def changes(n):
    mark("pids", os.getpid())
    sys.setrecursionlimit(5_000)
"""

GRACE = {"supervisor": {"cancel_grace": "300ms"}}
LANES = 20


def of_both_kinds(house: House, count: int) -> list[int]:
    return [house.enqueue("agated" if n % 2 else "gated", n) for n in range(count)]


def workers_of(house: House) -> set[str]:
    return {line.split()[1] for line in house.lines("began")}


def test_as_many_jobs_of_both_kinds_run_at_once_as_there_are_lanes(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    ids = of_both_kinds(house, LANES + 10)
    family = house.start()
    house.wait_lines("began", LANES)
    house.wait_rounds(2)
    assert len(house.lines("began")) == LANES
    (worker,) = house.status()["workers"]
    assert (worker["state"], worker["started"]) == ("busy", LANES)
    house.touch("go")
    house.wait_finished(ids)
    assert len(house.lines("ended")) == LANES + 10
    assert len(workers_of(house)) == 1
    assert house.query("SELECT DISTINCT state, attempt FROM jobs") == [("succeeded", 1)]
    assert house.stop(family) == 0


def test_what_waits_is_begun_as_lanes_are_free_while_long_jobs_run_on(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    long = [house.enqueue("stays", 0, "never"), house.enqueue("astays", 1)]
    family = house.start()
    house.wait_lines("began", 2)
    ids = house.client.enqueue_many([house.client.call("app:pid", n) for n in range(300)])
    house.wait_finished(ids)
    assert [house.client.get(job).state for job in long] == ["running"] * 2
    house.wait_finished([house.enqueue("pid", 301)])
    assert len(set(house.lines("pids"))) == 1
    family.send_signal(signal.SIGQUIT)
    assert family.wait(30) == 75


def test_an_async_job_past_its_timeout_is_cancelled_and_harms_nobody(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=GRACE)
    others = of_both_kinds(house, 10)
    family = house.start()
    house.wait_lines("began", 10)
    late = house.client.enqueue(
        house.client.call(
            "app:astays", 99, options={"timeout": "100ms", "retries": 1, "retry": "0s"}
        )
    ).id
    house.wait_finished([late])
    assert house.history(late) == ["timeout", "timeout"]
    (attempt, _) = house.client.attempts(late)
    assert (attempt.verdict, attempt.message) == (None, "cancelled at its timeout of 0.1 s")
    house.touch("go")
    house.wait_finished(others)
    assert len(workers_of(house)) == 1
    assert house.query("SELECT DISTINCT job FROM attempts") == [(late,)]
    assert house.stop(family) == 0


@pytest.mark.parametrize("task", ["stays", "deaf"])
def test_one_timeout_among_many_charges_none_of_the_others(build: Build, task: str) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, config=GRACE)
    others = of_both_kinds(house, 10)
    arguments = ("never",) if task == "stays" else ()
    late = house.enqueue(task, 99, *arguments, timeout="200ms", retries=0)
    family = house.start()
    house.wait_lines("began", 11)
    house.wait_state(late, "failed")
    (attempt,) = house.client.attempts(late)
    assert (attempt.outcome, attempt.verdict, attempt.signal) == ("timeout", "timeout", "SIGKILL")
    house.touch("go")
    house.wait_finished(others)
    rows = house.query("SELECT DISTINCT state, attempt FROM jobs WHERE id <> " + str(late))
    assert rows == [("succeeded", 1)]
    assert {outcome for job in others for outcome in house.history(job)} == {"stopped"}
    assert len(workers_of(house)) == 2
    assert house.stop(family) == 0


def test_neighbours_that_end_in_the_grace_are_done_before_the_kill(build: Build) -> None:
    house = build(
        TASKS, processes=1, concurrency=LANES, config={"supervisor": {"cancel_grace": "60s"}}
    )
    others = of_both_kinds(house, 6)
    late = house.enqueue("stays", 99, "never", timeout="200ms", retries=0)
    family = house.start()
    house.wait_lines("began", 7)
    eventually(lambda: house.said("starts nothing more"), what="notice is given")
    unbegun = house.enqueue("pid", 7)
    house.wait_rounds(1)
    assert house.client.get(unbegun).state == "pending"
    house.touch("go")
    house.wait_finished([*others, late, unbegun])
    assert [house.history(job) for job in others] == [[]] * 6
    assert house.history(late) == ["timeout"]
    assert house.stop(family) == 0


def test_a_job_that_ends_after_all_lets_its_worker_go_on(build: Build) -> None:
    house = build(
        TASKS, processes=1, concurrency=LANES, config={"supervisor": {"cancel_grace": "60s"}}
    )
    others = of_both_kinds(house, 6)
    late = house.enqueue("stays", 99, "after all", timeout="200ms", retries=0)
    family = house.start()
    house.wait_lines("began", 7)
    eventually(lambda: house.said("starts nothing more"), what="notice is given")
    house.touch("after all")
    house.wait_state(late, "succeeded")
    house.wait_finished([house.enqueue("pid", 7)])
    house.touch("go")
    house.wait_finished(others)
    assert house.lines("pids") == [house.lines("began")[0].split()[1]]
    assert house.stop(family) == 0


def test_a_cancel_reaches_an_async_job_and_no_other(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    others = of_both_kinds(house, 6)
    job = house.enqueue("astays", 99)
    family = house.start()
    house.wait_lines("began", 7)
    house.client.cancel(job)
    house.wait_state(job, "cancelled")
    assert house.lines("cancelled") == ["99"]
    house.touch("go")
    house.wait_finished(others)
    assert house.query("SELECT DISTINCT job FROM attempts") in ([], [(job,)])
    assert house.stop(family) == 0


def test_a_job_that_blocks_the_loop_is_named_in_the_log(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    job = house.enqueue("blocks", 1)
    family = house.start()
    house.wait_lines("began", 1)
    eventually(lambda: house.said("kept the event loop waiting"), what="it is logged")
    (line,) = house.heard("kept the event loop waiting")
    assert f"job {job} (app:blocks)" in line
    assert 'gate("go")' in house.log.read_text()
    assert "run_forever" not in house.log.read_text()
    house.touch("go")
    house.wait_finished([job])
    assert house.stop(family) == 0


def test_what_a_blocked_loop_has_not_begun_is_run_by_others(build: Build) -> None:
    source = (
        TASKS
        + """
@task
async def blocks():
    mark("blocks", os.getpid())
    while not os.path.exists("go"):
        time.sleep(0.01)  # task body

@task
async def quick(n):
    mark("quick", f"{n} {os.getpid()}")
"""
    )
    house = build(source, processes=2, concurrency=20)
    family = house.start()
    ids = [house.enqueue("blocks")]
    house.wait_lines("blocks", 1)
    ids += house.client.enqueue_many([house.client.call("app:quick", n) for n in range(60)])
    house.wait_finished(ids[1:])
    assert house.client.get(ids[0]).state == "running"
    house.touch("go")
    house.wait_finished(ids)
    assert sorted(int(line.split()[0]) for line in house.lines("quick")) == list(range(60))
    assert house.query("SELECT DISTINCT state, attempt FROM jobs") == [("succeeded", 1)]
    assert house.stop(family) == 0


def test_a_stop_lets_what_runs_end_and_gives_back_what_has_not_begun(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    ids = of_both_kinds(house, 10)
    family = house.start()
    house.wait_lines("began", 4)
    family.send_signal(signal.SIGTERM)
    eventually(lambda: house.said("stopping:"), what="the stop is heard")
    house.touch("go")
    assert family.wait(30) == 0
    rows = house.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1")
    assert rows == [("pending", 0, 6), ("succeeded", 1, 4)]
    assert len(ids) == 10


def test_outcomes_of_every_size_are_kept(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    calls = [house.client.call("app:larger" if n % 2 else "app:large", n) for n in range(120)]
    ids = house.client.enqueue_many(calls)
    family = house.start()
    house.wait_finished(ids)
    for n, job in enumerate(ids):
        result = house.client.get(job).result
        assert result == str(n % 10) * (100_000 if n % 2 else 60_000)
    assert house.stop(family) == 0


def test_max_jobs_is_exact(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=LANES, max_jobs=30)
    ids = house.client.enqueue_many([house.client.call("app:pid", n) for n in range(90)])
    family = house.start()
    house.wait_finished(ids)
    pids = house.lines("pids")
    assert sorted(pids.count(pid) for pid in set(pids)) == [30, 30, 30]
    assert house.query("SELECT DISTINCT state, attempt FROM jobs") == [("succeeded", 1)]
    assert house.stop(family) == 0


def test_a_changed_process_is_replaced_when_no_job_runs_in_it(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    held = house.enqueue("gated", 1)
    family = house.start()
    house.wait_lines("began", 1)
    house.wait_finished([house.enqueue("changes", n) for n in range(5)])
    assert house.client.get(held).state == "running"
    assert not house.said("recursion limit")
    house.touch("go")
    house.wait_finished([held])
    eventually(lambda: house.said("recursion limit"), what="the worker says why it leaves")
    house.wait_finished([house.enqueue("pid", 9)])
    assert house.lines("pids")[-1] != house.lines("began")[0].split()[1]
    assert house.stop(family) == 0


@pytest.mark.stores("sqlite")
def test_without_a_clerk_a_worker_ends_what_runs_and_is_replaced(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    ids = of_both_kinds(house, 4)
    family = house.start()
    house.wait_lines("began", 4)
    (worker,) = house.workers()
    clerk = min(house.children(worker))  # the other one is that of the clients
    os.kill(clerk, signal.SIGKILL)
    rest = house.client.enqueue_many([house.client.call("app:pid", n) for n in range(5)])
    house.touch("go")
    house.wait_finished([*ids, *rest])
    eventually(lambda: house.workers() not in ([worker], []), what="the worker is replaced")
    assert sorted(house.lines("ended")) == ["0", "1", "2", "3"]
    assert house.query("SELECT DISTINCT state, attempt FROM jobs") == [("succeeded", 1)]
    house.check_whole()
    assert house.stop(family) == 0


@pytest.mark.preload(False, True)
def test_killed_workers_lose_nothing_and_repeat_only_what_ran_in_them(build: Build) -> None:
    house = build(SHORT_OF_BOTH, processes=2, concurrency=8)
    ids = [*calls(house, "short", 600), *calls(house, "ashort", 600)]
    family = house.start()
    killed: list[int] = []
    for _ in range(4):
        wait_busy(house, 30)
        killed.append(house.workers()[0])
        os.kill(killed[-1], signal.SIGKILL)
        eventually(partial(is_replaced, house, killed[-1]), what="it is replaced")
    house.wait_finished(ids)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    found = marks(house)
    never_overlapped(found, lambda before: before.pid in killed)
    starts = Counter(mark.job for mark in found if mark.word == "start")
    again = {job for job, count in starts.items() if count > 1}
    last = {mark.job: mark for mark in found if mark.pid in killed}
    assert {job for job, count in starts.items() if count - 1 > len(killed)} == set()
    assert again <= set(last)
    assert sum(count - 1 for count in starts.values()) <= 8 * len(killed)
    check_nothing_left(house)


def is_replaced(house: House, pid: int) -> bool:
    return len(house.workers()) == 2 and pid not in house.workers()
