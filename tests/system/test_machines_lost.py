"""Machines that are lost with their disks: nobody is charged, and a rescue outlives its rescuers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build, alive
from tests.system.machines import Machine, Site
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

DEAD_AFTER = 2.0
PAGE = 500  # rows that a rescue gives back in one transaction

TASKS = """
@task
def quick(ctx: Context):
    mark("start", ctx)
    mark("end", ctx)

@task
def gated(ctx: Context):
    mark("start", ctx)
    gate("go")
    mark("end", ctx)
"""


@pytest.fixture
def site(tmp_path: Path, lanes: int, preload: bool) -> Iterator[Site]:
    with Site(tmp_path, lanes=lanes, preload=preload) as made:
        yield made


def machine(site: Site, name: str, *queues: str) -> Machine:
    return site.machine(
        name,
        TASKS,
        dead_after=f"{DEAD_AFTER}s",
        processes=1,
        queues=list(queues) or ["default"],
    )


@pytest.mark.lanes(1, 4)
def test_a_job_whose_machine_is_lost_is_not_charged_and_the_fourth_loss_fails_it(
    site: Site,
) -> None:
    caring = machine(site, "caring", "other")
    working = {name: machine(site, name) for name in ("one", "two", "three", "four")}
    for each in (caring, *working.values()):
        each.power_on(ready=False)
    for each in (caring, *working.values()):
        each.wait_in()
    quick = site.calls("quick", 5, retries=0)
    site.wait_finished(quick)
    job = site.enqueue("gated", retries=0)  # one charge would fail it

    for loss in range(1, 5):
        begun = [mark for mark in site.wait_marks("start", 5 + loss) if mark.job == job]
        lost_at = SYSTEM.boottime_ns()
        working.pop(begun[-1].host).power_off()
        eventually(partial(has_losses, site, job, loss), what=f"loss {loss} is noticed")
        assert DEAD_AFTER * 0.6 < (SYSTEM.boottime_ns() - lost_at) / 1e9 < DEAD_AFTER + 5
        told = site.client.get(job)
        if loss < 4:
            assert told.state in ("pending", "running")
            assert told.attempt == (told.state == "running")

    assert (told.state, told.error, told.attempt) == ("failed", "its worker vanished 4 times", 0)
    history = site.client.attempts(job)
    assert [(a.outcome, a.attempt) for a in history] == [("vanished", 1)] * 4
    assert {a.host for a in history} == {"one", "two", "three", "four"}
    assert site.query("SELECT state, attempt, losses FROM jobs WHERE id <> ?", job) == [
        ("succeeded", 1, 0)
    ] * len(quick)
    eventually(lambda: set(site.families()) == {"caring"}, what="the dead are removed")
    assert caring.shut_down() == 0
    assert site.query("SELECT count(*) FROM owners") == [(0,)]


def has_losses(site: Site, job: int, count: int) -> bool:
    return site.client.get(job).losses == count


def lose_with_rows(site: Site, count: int) -> int:
    """A machine is lost that held a job, and so many more that it is said to have claimed; its owner."""
    lost = machine(site, "lost")
    lost.power_on()
    job = site.enqueue("gated", retries=0)
    site.wait_marks("start")
    lost.power_off()
    (row,) = site.query("SELECT owner, claim FROM jobs WHERE id = ?", job)
    site.query(
        "INSERT INTO jobs (task, state, attempt, attempts_max, claims, owner, claim, claimed_at)"
        " SELECT 'app:quick', 'running', 1, 1, 1, ?, ?, now() FROM generate_series(1, ?)",
        *row,
        count,
    )
    return int(row[0])


def rescued(site: Site) -> int:
    return int(site.query("SELECT count(*) FROM attempts")[0][0])


@contextmanager
def locked(site: Site, jobs: list[int]) -> Iterator[None]:
    """Somebody else is in a transaction that has changed these rows."""
    with psycopg.connect(site.database) as connection:
        connection.execute("SELECT id FROM jobvisor.jobs WHERE id = ANY (%s) FOR UPDATE", [jobs])
        yield


def check_rescued_once(site: Site, count: int) -> None:
    """Each row went back uncharged, and says so once."""
    eventually(lambda: "lost" not in site.families(), what="the dead family is removed")
    assert site.query("SELECT count(*), count(DISTINCT job) FROM attempts") == [(count, count)]
    assert site.query("SELECT DISTINCT outcome, attempt FROM attempts") == [("vanished", 1)]
    assert site.query("SELECT losses, state, attempt, count(*) FROM jobs GROUP BY 1, 2, 3") == [
        (1, "pending", 0, count)
    ]


def test_a_rescue_that_is_killed_between_two_pages_is_finished_by_its_successor(
    site: Site,
) -> None:
    count = 3 * PAGE + 100
    caring = machine(site, "caring", "other")
    caring.power_on()
    owner = lose_with_rows(site, count - 1)
    first = caring.caretaker()
    rows = [row[0] for row in site.query("SELECT id FROM jobs WHERE owner = ? ORDER BY id", owner)]
    # The second page cannot be had, so that the rescuer stands between the two.
    with locked(site, [rows[PAGE + 100]]):
        eventually(lambda: rescued(site) == PAGE, what="the first page is rescued")
        assert site.query("SELECT count(died_at) FROM families WHERE host = 'lost'") == [(1,)]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(first), what="the rescuer is dead")
        assert site.running([owner]) == count - PAGE
    eventually(lambda: not site.running([owner]), what="its successor finishes the rescue")
    check_rescued_once(site, count)
    assert len(caring.said("caretaker started as pid")) == 2
    assert len(caring.said("on lost is declared dead")) == 1
    assert caring.shut_down() == 0


@pytest.mark.lanes(1, 4)
def test_a_family_declared_dead_by_one_who_died_too_is_settled_by_the_next_at_once(
    site: Site,
) -> None:
    caring = site.machine("caring", TASKS, dead_after="20s", processes=1, queues=["other"])
    declaring = machine(site, "declaring", "other")
    declaring.power_on()
    owner = lose_with_rows(site, 9)
    rows = [row[0] for row in site.query("SELECT id FROM jobs WHERE owner = ?", owner)]
    with locked(site, rows):
        eventually(
            lambda: site.query("SELECT count(died_at) FROM families WHERE host = 'lost'") == [(1,)],
            what="it is declared dead",
        )
        declaring.power_off()
    assert rescued(site) == 0
    began = SYSTEM.boottime_ns()
    caring.power_on()  # which would watch a silent family for long, were it not declared dead
    eventually(lambda: not site.running([owner]), what="the next one settles it")
    assert (SYSTEM.boottime_ns() - began) / 1e9 < 18
    check_rescued_once(site, 10)
    assert not caring.said("on lost is declared dead")
    assert caring.shut_down() == 0


def test_a_family_shows_how_it_is_in_the_middle_of_a_long_rescue(build: Build) -> None:
    house = build(f"{MARK}\n@task\ndef quick():\n    pass\n", processes=1)
    house.client.counts()
    house.query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
        " INSERT INTO jobs (task, queue, state, attempt, attempts_max, claims, owner, claim, claimed_at)"
        " SELECT 'app:quick', 'elsewhere', 'running', 1, 1, 1, 1 + i / 500, 1, 0 FROM n"
    )
    family = house.start(ready=False)
    eventually(house.status, what="its first word")
    ((rows,),) = house.query("SELECT count(*) FROM jobs WHERE state = 'running'")
    assert rows > 0
    assert house.stop(family) == 0
