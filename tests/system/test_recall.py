"""A long job does not keep the short ones that were claimed with it waiting."""

from __future__ import annotations

import os
import re
import signal

import pytest

from jobvisor import Fixed
from tests.system.harness import Build, House
from tests.system.history import (
    MATES,
    Mark,
    check_charges,
    check_each_succeeded,
    check_nothing_left,
    marking,
    marks,
)
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, True),
]

TASKS = marking("""
    @task
    def gate(ctx: Context):
        mark("gate", ctx)
        while not os.path.exists("gate"):
            time.sleep(0.002)  # task body

    @task
    def short(ctx: Context):
        mark("start", ctx)
        mark("end", ctx)

    @task
    def long(ctx: Context):
        mark("start", ctx)
        open("gate", "w").close()
        while not os.path.exists("done"):
            time.sleep(0.002)  # task body
        mark("end", ctx)

    @task
    def slow(ctx: Context):
        mark("start", ctx)
        time.sleep(0.04)  # task body: below a recall
        mark("end", ctx)
    """)

#: With batch_max = 100 one worker claims 1, 4, 16, 64, and then 100 at a time while jobs are short.
BEFORE = 1 + 4 + 16 + 64 + 2 * 100


def run_of(house: House, job: int) -> list[Mark]:
    return [mark for mark in marks(house) if mark.job == job]


def enqueue_around(house: House) -> tuple[int, list[int]]:
    """A job that holds one worker at a gate, and for the other a hundred around a long one."""
    house.enqueue("gate", priority=9)
    call = house.client.call
    ids = house.client.enqueue_many(
        [call("app:short")] * (BEFORE + 50)
        + [call("app:long", options={"retry": Fixed(0)})]
        + [call("app:short")] * 49
    )
    return ids[BEFORE + 50], ids


def test_the_short_jobs_of_a_batch_are_done_by_others_while_the_long_one_runs(
    build: Build,
) -> None:
    house = build(TASKS, batch_max=100)
    long, ids = enqueue_around(house)
    family = house.start(ready=False)
    house.wait_finished(set(ids) - {long})
    (start,) = run_of(house, long)
    assert house.client.get(long).state == "running"
    # Those behind it were claimed with it, and run by somebody else.
    behind = {mark.pid for mark in marks(house) if mark.job > long}
    assert start.pid not in behind
    # Said after the transaction, by whose commit the others had them.
    told = eventually(lambda: house.said(f"job {long} runs long"), what="the recall is said")
    assert len(told) == 1
    settled, handed = map(int, re.findall(r"(\d+) (?:of its|handed)", told[0]))
    # How many of a batch stand before and behind the long one depends on how fast they ran; the
    # next test lets a job run long only where there are enough of both.
    assert handed > 0
    assert settled + handed > 3
    house.touch("done")
    house.wait_finished([long])
    assert [mark.word for mark in run_of(house, long)] == ["start", "end"]
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    assert len([mark for mark in marks(house) if mark.word == "start"]) == len(ids)
    assert house.query("SELECT max(attempt), count(*) FROM jobs") == [(1, len(ids) + 1)]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    check_nothing_left(house)


EVEN = marking("""
    @task
    def short(ctx: Context):
        pass

    @task
    def slower(ctx: Context):
        mark("start", ctx)
        time.sleep(0.01)  # task body: too short to be recalled for
    """)


def test_a_batch_that_lasts_gives_back_what_it_has_not_begun(build: Build) -> None:
    house = build(EVEN, processes=1)
    call = house.client.call
    house.client.enqueue_many([call("app:short")] * 3000)
    ids = house.client.enqueue_many([call("app:slower")] * 200)
    family = house.start(ready=False)
    house.wait_finished(ids)
    # One that was given back and claimed anew has had two claims, and one attempt.
    assert house.query("SELECT max(attempt), max(claims) > 1 FROM jobs") == [(1, True)]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    ran = [mark.job for mark in marks(house)]
    if house.database:
        ran.sort()  # after a claim that was slow the next ones begin behind it: see store/front.py
    assert ran == ids
    assert house.stop(family) == 0


MIDDLE = MATES + marking("""
    @task
    def short(ctx: Context, n):
        mark("start", ctx)
        before, behind = mates(ctx)
        enough = 10 if n < 2000 else 3  # a machine that is busy with other things has smaller batches
        if len(before) > enough and len(behind) > enough:
            if only_once("long", f"{ctx.job} {len(before)} {len(behind)}"):
                while not os.path.exists("go"):
                    time.sleep(0.002)  # task body
        mark("end", ctx)
    """)


def test_all_before_a_long_job_is_settled_and_all_behind_it_handed_on(build: Build) -> None:
    house = build(MIDDLE, batch_max=100)
    ids = house.client.enqueue_many(house.client.call("app:short", n) for n in range(3000))
    family = house.start(ready=False)
    eventually(lambda: house.lines("long"), limit=60, what="a job in the middle runs long")
    long, before, behind = map(int, house.lines("long")[0].split())
    house.wait_finished(set(ids) - {long})
    assert house.client.get(long).state == "running"
    (told,) = eventually(lambda: house.said(f"job {long} runs long"), what="the recall is said")
    settled, handed = map(int, re.findall(r"(\d+) (?:of its|handed)", told))
    assert (settled, handed) == (before, behind)
    house.touch("go")
    house.wait_finished([long])
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    assert len([mark for mark in marks(house) if mark.word == "start"]) == len(ids)
    assert house.query("SELECT max(attempt), count(*) FROM jobs") == [(1, len(ids))]
    check_nothing_left(house)


def test_a_worker_killed_behind_its_recall_costs_the_long_job_alone(build: Build) -> None:
    house = build(TASKS, batch_max=100)
    long, ids = enqueue_around(house)
    family = house.start(ready=False)
    house.wait_finished(set(ids) - {long})
    (start,) = run_of(house, long)
    os.kill(start.pid, signal.SIGKILL)
    house.touch("done")
    house.wait_finished([long])
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    assert check_charges(house, [start.pid]) == 0
    assert [mark.word for mark in run_of(house, long)] == ["start", "start", "end"]
    check_nothing_left(house)


def test_an_unstarted_job_of_a_batch_can_be_cancelled(build: Build) -> None:
    house = build(TASKS, batch_max=100, processes=1)
    call = house.client.call
    ids = house.client.enqueue_many([call("app:short")] * BEFORE + [call("app:slow")] * 50)
    family = house.start(ready=False)
    eventually(lambda: run_of(house, ids[BEFORE]), what="the first of them runs")
    victim = ids[-1]
    answer = house.client.cancel(victim)
    house.wait_finished(ids)
    assert house.stop(family) == 0
    assert answer in ("requested", "cancelled")
    assert house.client.get(victim).state == "cancelled"
    assert run_of(house, victim) == []
    check_each_succeeded(house, ids[:-1])
    assert house.query("SELECT max(attempt) FROM jobs") == [(1,)]
