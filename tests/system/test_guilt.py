"""Jobs that end the process they run in, among hundreds that do not: who pays, how many deaths it takes."""

from __future__ import annotations

import math
import os
import random
import signal

import pytest

from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
]

LANES, INNOCENTS, RETRIES = 50, 500, 1
FEW = 5

TASKS = f"""{MARK}
import asyncio, ctypes, threading

@task
def innocent(n):
    time.sleep(0.02)  # task body

@task
async def ainnocent(n):
    await asyncio.sleep(0.02)

@task
def busy(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    time.sleep(0.3)  # task body
    mark("ended", os.getpid())

@task
def killed():
    os.kill(os.getpid(), signal.SIGKILL)

@task
def exits():
    os._exit(7)

@task
def breaks():
    thread = threading.Thread(target=ctypes.string_at, args=(0,))
    thread.start()
    thread.join()

@task
def struck():
    ctypes.string_at(0)

@task
async def astruck():
    await asyncio.sleep(0)
    ctypes.string_at(0)

@task
def stays(n):
    mark("began", f"{{n}} {{os.getpid()}}")
    gate("go")

@task
def limited(n):
    mark("limited", f"{{n}} {{os.getpid()}}")
    mark("alone", len([line for line in open("inside")]) if os.path.exists("inside") else 0)
"""


def innocents(house: House, count: int) -> list[int]:
    calls = [house.client.call(f"app:{'a' * (n % 2)}innocent", n) for n in range(count)]
    return house.client.enqueue_many(calls)


def deaths(house: House) -> int:
    return len(house.said("died:"))


@pytest.mark.parametrize(
    ("task", "cause"), [("killed", "SIGKILL"), ("exits", "exit code 7"), ("breaks", "SIGSEGV")]
)
def test_a_job_that_ends_every_process_fails_and_costs_no_innocent_an_attempt(
    build: Build, task: str, cause: str
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    before = innocents(house, 20)
    poison = house.enqueue(task, retries=RETRIES, retry="0s")
    others = innocents(house, INNOCENTS - 20)
    family = house.start()
    house.wait_state(poison, "failed")
    house.wait_finished([*before, *others])
    found = house.query(f"SELECT DISTINCT state, attempt FROM jobs WHERE id <> {poison}")
    assert found == [("succeeded", 1)]
    paid = [each for each in house.client.attempts(poison) if each.outcome != "stopped"]
    assert [each.outcome for each in paid] == ["crash"] * (RETRIES + 1)
    assert cause in (house.client.get(poison).error or "")
    assert deaths(house) <= math.log2(LANES) + 1 + RETRIES + 1
    assert house.stop(family) == 0


@pytest.mark.parametrize("task", ["struck", "astruck"])
def test_a_job_whose_thread_a_fatal_signal_strikes_runs_alone_after_one_death(
    build: Build, task: str
) -> None:
    house = build(TASKS, processes=1, concurrency=LANES)
    others = innocents(house, 60)
    poison = house.enqueue(task, retries=RETRIES, retry="0s")
    family = house.start()
    house.wait_state(poison, "failed")
    house.wait_finished(others)
    assert house.history(poison) in (["stopped", "crash", "crash"], ["crash", "crash"])
    assert deaths(house) == len(house.history(poison))
    assert house.query(f"SELECT DISTINCT attempt FROM jobs WHERE id <> {poison}") == [(1,)]
    assert house.stop(family) == 0
    assert not list(house.state_dir.glob("ledger/*.stack"))


def test_suspects_whose_pool_is_busy_get_a_worker_of_their_own_which_leaves(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    long = [house.enqueue("stays", n) for n in range(2)]
    family = house.start()
    house.wait_lines("began", 2)
    limited = [house.enqueue("limited", n, memory="1GB") for n in range(3)]
    house.wait_finished(limited)
    assert [house.client.get(job).state for job in long] == ["running"] * 2
    (added,) = house.heard("is added to pool default")
    assert "a job that may have ended its process waits" in added
    assert not {line.split()[1] for line in house.lines("limited")} & {
        line.split()[1] for line in house.lines("began")
    }
    eventually(lambda: house.said("leaving: no job waits"), what="it leaves")
    eventually(lambda: len(house.workers()) == 1, what="it is gone")
    house.touch("go")
    house.wait_finished(long)
    assert house.stop(family) == 0


def kill_at_random(house: House, times: int) -> None:
    """Kill the worker so many times while its lanes are busy: nothing is lost, and nobody charged for it."""
    calls = [house.client.call("app:busy", n) for n in range(150 * times)]
    ids = house.client.enqueue_many(calls)
    family = house.start()
    for _ in range(times):
        eventually(lambda: is_full(house), limit=60, what="no suspect is left, and all lanes work")
        house.wait_lines("began", len(house.lines("began")) + random.randint(20, 60))
        pid = eventually(lambda: busy_worker(house), what="a worker has begun several jobs")
        os.kill(pid, signal.SIGKILL)
    house.wait_finished(ids, limit=300)
    assert house.query("SELECT DISTINCT state, attempt, company FROM jobs") == [
        ("succeeded", 1, None)
    ]
    assert house.query("SELECT DISTINCT outcome FROM attempts") == [("stopped",)]
    assert deaths(house) == times
    assert house.stop(family) == 0


def is_full(house: House) -> bool:
    ((running, suspects),) = house.query(
        "SELECT count(*), count(company) FROM jobs WHERE state = 'running'"
    )
    return int(running) >= LANES - 5 and not suspects


def busy_worker(house: House) -> int:
    """By what its jobs have said, which is newer than the status; a job alone would be to blame for it."""
    pid = house.lines("began")[-1].split()[1]
    ended = house.lines("ended").count(
        pid
    )  # first: what ends meanwhile counts as running, not twice
    began = sum(line.split()[1] == pid for line in house.lines("began"))
    return int(pid) if began - ended > FEW else 0


def test_a_worker_killed_at_random_loses_nothing(build: Build) -> None:
    kill_at_random(build(TASKS, processes=1, concurrency=LANES), 4)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.preload(False, True)
def test_a_worker_killed_a_hundred_times_loses_nothing(build: Build) -> None:
    kill_at_random(build(TASKS, processes=1, concurrency=LANES), 100)
