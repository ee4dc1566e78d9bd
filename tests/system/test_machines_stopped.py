"""Machines that stand still and go on: a suspended virtual machine, a caretaker that gets no turn."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.machines import Machine, Site
from tests.waiting import eventually

pytestmark = pytest.mark.system

#: Quick jobs with doors between them, at which only one machine waits; it ends them in its own way.
TASKS = """
@task
def quick(ctx: Context):
    mark("start", ctx)
    if HOST == "slept" and is_open(f"door {ctx.job}"):
        gate(f"open {ctx.job}")
    mark("end", ctx)
    if HOST == "slept" and ctx.job % 3 == 1:
        raise Fail("as the one that slept has it")
    if HOST == "slept" and ctx.job % 3 == 2:
        raise Retry(after="1h")
    return HOST

@task
def here(ctx: Context):
    mark("here", ctx)
    time.sleep(0.05)  # task body
"""


@pytest.fixture
def site(tmp_path: Path, lanes: int) -> Iterator[Site]:
    with Site(tmp_path, lanes=lanes) as made:
        yield made


def suspend_in_a_batch(site: Site, machine: Machine) -> tuple[set[int], set[int]]:
    """Stand still in the middle of a batch: which jobs of it were begun, and all it holds.

    The caretaker is stopped first, or it would settle the batch behind the job that waits at a door.
    """
    os.kill(machine.caretaker(), signal.SIGSTOP)
    doors = range(300, 800, 50)
    for door in doors:
        site.touch(f"door {door}")
    assert site.calls("quick", 800, retries=3) == list(range(1, 801))
    for door in doors:
        eventually(partial(began, site, door), what="it waits at the door")
        held = {row[0] for row in site.query("SELECT id FROM jobs WHERE state = 'running'")}
        begun = {mark.job for mark in site.marks("start")} & held
        if len(begun) > 2 and held - begun:
            machine.suspend()
            return begun, held
        site.touch(f"open {door}")
    raise AssertionError("no door was in the middle of a batch")


def began(site: Site, job: int) -> bool:
    return any(mark.job == job for mark in site.marks("start"))


def test_a_machine_that_slept_past_its_death_changes_nothing_and_comes_back_as_another(
    site: Site,
) -> None:
    slept = site.machine("slept", TASKS, dead_after="2s", processes=1)
    slept.power_on()
    family = site.families()["slept"]
    begun, held = suspend_in_a_batch(site, slept)
    woke = site.machine("woke", TASKS, dead_after="2s", processes=1)
    woke.power_on()
    site.wait_finished(held)
    eventually(lambda: set(site.families()) == {"woke"}, what="the dead family is removed")
    before = everything(site, held)
    assert len(woke.said("on slept is declared dead")) == 1

    for job in begun:
        site.touch(f"open {job}")
    slept.resume()
    eventually(lambda: slept.said("new ones take their places"), what="it learns of its death")
    eventually(lambda: "slept" in site.families(), what="it is in again")
    assert site.families()["slept"] != family
    more = site.calls("here", 40)
    site.wait_marks("here", host="slept")
    site.wait_finished(more)

    late = [line.split("job ")[1].split(":")[0] for line in slept.said("came too late")]
    assert sorted(map(int, late)) == sorted(begun)
    assert everything(site, held) == before
    rows, history = before
    assert {row[1:] for row in rows} == {("succeeded", '"woke"', None, 1, 1)}
    assert [row[1:] for row in history] == [("vanished", 1)] * len(held)
    again = [mark.job for mark in site.marks("start") if mark.host == "slept" and mark.job in held]
    assert sorted(again) == sorted(begun), "it started what was no longer its own"
    assert not woke.said("came too late")
    assert len(site.declared_dead()) == 1
    assert (slept.shut_down(), woke.shut_down()) == (0, 0)
    assert site.query("SELECT count(*) FROM owners") == [(0,)]


def everything(site: Site, jobs: set[int]) -> list[list[tuple[Any, ...]]]:
    """What the database says of these jobs and of their history."""
    wanted = list(jobs)
    return [
        site.query(
            "SELECT id, state, result::text, error, attempt, losses FROM jobs"
            " WHERE id = ANY (?) ORDER BY id",
            wanted,
        ),
        site.query(
            "SELECT job, outcome, attempt FROM attempts WHERE job = ANY (?) ORDER BY job, id",
            wanted,
        ),
    ]


def test_a_caretaker_stopped_alone_past_dead_after_declares_nobody_dead(site: Site) -> None:
    # Its parent would kill it after a third of its own `dead_after`; the other's is what it would judge by.
    stopped = site.machine("stopped", TASKS, dead_after="30s", processes=1)
    other = site.machine("other", TASKS, dead_after="2s", processes=1)
    stopped.power_on(ready=False)
    other.power_on()
    stopped.wait_in()
    families = site.families()
    caretaker = stopped.caretaker()
    for beats in (3, 4):
        site.wait_heartbeats(beats, "other")  # it watches the other one
        os.kill(caretaker, signal.SIGSTOP)
        site.wait_heartbeats(5, "other")  # more than its dead_after
        os.kill(caretaker, signal.SIGCONT)
    site.wait_heartbeats(5, "other")
    assert stopped.caretaker() == caretaker
    assert site.declared_dead() == []
    assert site.families() == families
    site.wait_finished(site.calls("here", 4))


@pytest.mark.lanes(1, 4)
def test_machines_that_were_suspended_together_declare_nobody_dead(site: Site) -> None:
    first = site.machine("first", TASKS, dead_after="3s", processes=1)
    second = site.machine("second", TASKS, dead_after="3s", processes=1)
    first.power_on(ready=False)
    second.power_on()
    first.wait_in()
    families = site.families()
    for beats in (1, 2):
        site.wait_heartbeats(beats)
        first.suspend()
        second.suspend()
        site.wait_silence(4)
        first.resume()
        site.wait_heartbeats(1, "first")
        second.resume()
    site.wait_heartbeats(4)
    assert site.declared_dead() == []
    assert site.families() == families
    site.wait_finished(site.calls("here", 4))


#: Where a machine can be caught between two statements of one transaction.
SLOW = {
    "heartbeat": "UPDATE ON families FOR EACH ROW WHEN (OLD.host = 'slept')",
    "turn": "UPDATE ON jobs FOR EACH ROW WHEN (NEW.state = 'failed')",
}


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize("where", sorted(SLOW))
def test_a_machine_that_sleeps_in_the_middle_of_a_transaction_is_rescued_as_soon(
    site: Site, where: str
) -> None:
    slept = site.machine("slept", TASKS, dead_after="3s", processes=1)
    woke = site.machine("woke", TASKS, dead_after="3s", processes=1, queues=["other"])
    for machine in (slept, woke):
        machine.power_on(ready=False)
    for machine in (slept, woke):
        machine.wait_in()
    site.query(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;"
        f"CREATE TRIGGER dawdle BEFORE {SLOW[where]} EXECUTE FUNCTION dawdle()"
    )
    if where == "heartbeat":
        site.touch("door 1")
    failing = site.enqueue("quick")
    assert failing == 1
    eventually(lambda: began(site, failing), what="it runs")
    eventually(
        lambda: site.query(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database()"
        ),
        what="it is in the middle of a transaction",
    )
    slept.suspend()
    suspended_at = SYSTEM.boottime_ns()
    assert site.client.get(failing).state == "running"
    eventually(lambda: site.client.get(failing).state == "pending", what="it is rescued")
    assert (SYSTEM.boottime_ns() - suspended_at) / 1e9 < 3 + 5
    assert len(woke.said("the database cannot be used")) <= 1
