"""Workers of several lanes that are copies of a template: whoever is killed, all come to their end."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress

import pytest

from tests.system.harness import Build, House, alive
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

pytestmark = [pytest.mark.system, pytest.mark.preload(True)]

TASKS = f"""{SHORT_OF_BOTH}
IMPORTED = os.getpid()

@task
async def who():
    return [IMPORTED, os.getpid(), os.getppid()]
"""


def template(house: House) -> int:
    """The pid of a template that serves; 0 where there is none."""
    told = house.status().get("template") or {}
    return int(told["pid"]) if told.get("state") == "idle" else 0


@pytest.mark.stores("sqlite", "postgres")
def test_a_worker_of_several_lanes_is_a_copy_and_so_is_who_comes_after_it(build: Build) -> None:
    house = build(TASKS, processes=1, concurrency=4)
    family = house.start()
    (first,) = house.workers()
    beside = house.children(first)  # its clerks
    assert bool(beside) == (not house.database)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: house.workers() not in ([first], []), what="it is replaced")
    eventually(lambda: not any(map(alive, beside)), what="the clerks have left")
    job = house.enqueue("who")
    assert house.client.wait(job, timeout=60).result == [
        template(house),
        house.workers()[0],
        family.pid,
    ]
    assert house.stop(family) == 0
    check_nothing_left(house)


def kill(house: House, chance: random.Random) -> int:
    """One of a template, a worker and a clerk; the worker that was killed, else 0."""
    who = chance.choice(["template", "worker", "clerk"])
    pid = template(house) if who == "template" else chance.choice(house.workers() or [0])
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended by itself
        if who == "clerk" and pid:
            pid = chance.choice(house.children(pid) or [0])
        if pid:
            os.kill(pid, signal.SIGKILL)
    return pid if who == "worker" else 0


@pytest.mark.parametrize(
    ("jobs", "kills"),
    [(1_000, 6), pytest.param(20_000, 150, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_templates_workers_and_clerks_are_killed_and_no_job_is_lost(
    build: Build, jobs: int, kills: int
) -> None:
    house = build(TASKS, processes=2, concurrency=8)
    ids = [*calls(house, "short", jobs // 2), *calls(house, "ashort", jobs // 2)]
    family = house.start()
    chance = random.Random()
    killed: set[int] = set()
    for _ in range(kills):
        wait_busy(house, 30)
        killed.add(kill(house, chance))
    house.wait_finished(ids, limit=60 + jobs // 20)
    children = house.children(family.pid)
    assert house.stop(family) == 0
    assert not any(map(alive, children))
    check_each_succeeded(house, ids)
    found = marks(house)
    never_overlapped(found, lambda before: before.pid in killed)
    starts = Counter(mark.job for mark in found if mark.word == "start")
    # Only a worker that was killed begins something that is begun again.
    again = {job for job, count in starts.items() if count > 1}
    assert again <= {mark.job for mark in found if mark.pid in killed}
    check_nothing_left(house)
