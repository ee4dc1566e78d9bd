"""Exactness beside much else: a job that kills its worker every time, many workers, a locked database."""

from __future__ import annotations

import os
import random
import signal

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import Build, House
from tests.system.history import (
    SHORT,
    calls,
    check_charges,
    check_each_succeeded,
    check_nothing_left,
    marking,
    marks,
    wait_busy,
)
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]


def test_a_job_that_kills_its_worker_every_time_is_failed_while_others_flow(build: Build) -> None:
    house = build(
        marking("""
        @task
        def short(ctx: Context):
            mark("start", ctx)
            mark("end", ctx)

        @task
        def deadly(ctx: Context):
            mark("start", ctx)
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    ids = calls(house, "short", 500)
    deadly = house.enqueue("deadly", retries=3, retry=Fixed(0))
    ids += calls(house, "short", 500)
    family = house.start()
    house.wait_finished([*ids, deadly])
    assert house.stop(family) == 0
    found = house.client.get(deadly)
    assert (found.state, found.attempt) == ("failed", 4)
    assert "killed by SIGKILL" in str(found.error)
    told = [(a.attempt, a.outcome, a.signal) for a in house.client.attempts(deadly)]
    assert told == [(attempt, "crash", "SIGKILL") for attempt in (1, 2, 3, 4)]
    runs = [mark for mark in marks(house) if mark.job == deadly]
    assert [mark.pid for mark in runs] == [a.pid for a in house.client.attempts(deadly)]
    assert len({mark.pid for mark in runs}) == 4
    check_each_succeeded(house, ids)
    assert check_charges(house, [mark.pid for mark in runs]) == 0
    check_nothing_left(house)


def run_many(house: House, count: int) -> None:
    ids = calls(house, "count", count)
    family = house.start()
    eventually(
        lambda: house.query("SELECT count(*) FROM jobs WHERE finished_at IS NULL") == [(0,)],
        limit=100,
        what="all jobs are finished",
    )
    assert house.stop(family) == 0
    told = house.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2")
    assert told == [("succeeded", 1, count)]
    runs = sorted(map(int, house.lines("count.txt")))
    assert runs == ids
    assert house.query("SELECT count(DISTINCT owner) FROM jobs")[0][0] > 1
    assert not house.said("database is locked")
    assert not house.said("came too late")
    check_nothing_left(house)


COUNT = """
_lines = os.open("count.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@task
def count(ctx: Context):
    os.write(_lines, b"%d\\n" % ctx.job)
"""


def test_eight_workers_run_each_of_twenty_thousand_jobs_once(build: Build) -> None:
    run_many(build(COUNT, processes=8), 20_000)


@pytest.mark.soak
def test_eight_workers_run_each_of_fifty_thousand_jobs_once(build: Build) -> None:
    run_many(build(COUNT, processes=8), 50_000)


def test_a_stranger_that_holds_the_database_stops_nobody_for_good(build: Build) -> None:
    house = build(SHORT)
    ids = calls(house, "short", 600, retry=Fixed(0), retries=20)
    family = house.start()
    wait_busy(house, 25)
    children = set(house.children(family.pid))
    with house.locked():
        held_from = SYSTEM.monotonic_ns()
        victim = random.choice(house.workers())
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: SYSTEM.monotonic_ns() - held_from > 3e9, what="three seconds have passed"
        )
        assert family.poll() is None
        assert children - {victim} <= set(house.children(family.pid)), "somebody else died as well"
        assert len(house.children(family.pid)) == len(children), "the dead one was not replaced"
    house.wait_finished(ids)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    check_charges(house, [victim])
    check_nothing_left(house)
