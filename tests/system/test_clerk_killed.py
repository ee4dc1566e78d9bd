"""The clerk of a worker is killed: the worker's jobs end and count, and it is replaced."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.harness import Build, House, is_gone
from tests.system.history import calls, check_each_succeeded, check_nothing_left, marking, marks
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.preload(False, True)]

TASKS = marking("""
import asyncio

@task
async def waits(ctx: Context):
    mark("start", ctx)
    while not os.path.exists("gate"):
        await asyncio.sleep(0.01)
    mark("end", ctx)

@task(retry=Fixed(0))
def short(ctx: Context):
    mark("start", ctx)
    time.sleep(0.001)  # task body
    mark("end", ctx)

@task
def enqueues(ctx: Context):
    mark("start", ctx)
    while not os.path.exists("gate"):
        time.sleep(0.01)  # task body
    short.enqueue()
    mark("end", ctx)
""")


def clerks(house: House) -> list[int]:
    """The processes that hold the connections of the only worker: of its turns, of its clients."""
    (worker,) = house.workers()
    return house.children(worker)  # in the order of their forks


def test_what_runs_when_the_clerk_dies_is_settled_once_and_nobody_pays(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=8)
    waiting = calls(house, "waits", 4)
    family = house.start()
    house.wait_lines("runs.txt", 4)
    ids = calls(house, "short", 300)
    eventually(lambda: len(marks(house)) > 50, what="the short ones run")
    (worker,) = house.workers()
    os.kill(clerks(house)[0], signal.SIGKILL)
    # The others are another worker's, and what this one has ended is settled while it waits.
    house.wait_finished(ids)
    assert not is_gone(worker)
    house.touch("gate")
    house.wait_finished(waiting)
    eventually(lambda: is_gone(worker), what="the worker has left")
    check_each_succeeded(house, [*waiting, *ids])
    assert house.query("SELECT count(*) FROM jobs WHERE attempt <> 1") == [(0,)]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert len(house.heard("claims nothing more, and is replaced when its jobs have ended")) == 1
    assert house.stop(family) == 0
    check_nothing_left(house)


def test_a_task_that_enqueues_when_the_clerk_of_the_clients_dies_is_tried_again(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    number = house.enqueue("enqueues", retry=0)
    family = house.start()
    house.wait_lines("runs.txt")
    (worker,) = house.workers()
    os.kill(clerks(house)[1], signal.SIGKILL)
    house.touch("gate")
    house.wait_state(number, "succeeded")
    eventually(lambda: is_gone(worker), what="the worker has left")
    assert house.history(number) == ["error"]
    assert "is gone" in str(house.client.attempts(number)[0].message)
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM jobs WHERE task = 'app:short'") == [(1,)]
    check_nothing_left(house)
