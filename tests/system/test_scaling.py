"""Pools with a range: more workers while jobs wait, fewer when workers do, and no job interrupted."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.harness import MARK, Build, House, is_gone
from tests.waiting import eventually

pytestmark = pytest.mark.system
on_both_stores = pytest.mark.stores("sqlite", "postgres")

TASKS = f"""{MARK}
@task
def gated(n):
    mark("began", n)
    gate("go")

@task
def checking(ctx: Context, n):
    mark("began", n)
    while not os.path.exists("go"):
        ctx.check()
        time.sleep(0.005)  # task body

@task
def short(n):
    mark("began", n)
    time.sleep(0.05)  # task body
"""

RANGE = {"processes": "1-6", "scale_latency": "20ms", "scale_idle": "300ms", "batch_max": 1}


def scaling(house: House) -> dict[str, object]:
    return dict(house.status()["scaling"]["default"])


def wait_workers(house: House, count: int) -> None:
    """Until there are so many workers, and none besides them."""
    eventually(
        lambda: scaling(house)["now"] == len(house.workers()) == count,
        what=f"{count} workers",
    )


@on_both_stores
def test_workers_come_while_jobs_wait_and_go_when_nobody_needs_them(build: Build) -> None:
    house = build(TASKS, **RANGE)
    family = house.start()
    assert scaling(house) == {
        "least": 1, "most": 6, "wanted": 1, "now": 1, "why": "as configured",
        "queues": ["default"],
    }  # fmt: skip
    jobs = [house.enqueue("gated", n) for n in range(8)]
    house.wait_lines("began", 6)
    eventually(lambda: "jobs waited" in str(scaling(house)["why"]))
    house.touch("go")
    house.wait_finished(jobs)
    wait_workers(house, 1)
    assert "workers were idle" in str(scaling(house)["why"])
    assert {house.client.get(job).attempt for job in jobs} == {1}
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.heard("pool default is to have 6 workers (1 to 6): jobs waited")
    assert house.stop(family) == 0


@pytest.mark.soak
@on_both_stores
def test_twenty_bursts_interrupt_no_job(build: Build) -> None:
    house = build(TASKS, **RANGE)
    family = house.start()
    for _ in range(20):
        house.wait_finished([house.enqueue("short", n) for n in range(40)])
        wait_workers(house, 1)
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    told = house.query("SELECT state, attempt, count(*) FROM jobs GROUP BY state, attempt")
    assert told == [("succeeded", 1, 800)]
    assert len(house.lines("began")) == 800
    assert len(house.said("workers were idle")) >= 20
    assert house.stop(family) == 0


def test_workers_that_cannot_start_are_not_doubled_and_the_first_serves_on(build: Build) -> None:
    source = f"{TASKS}\nif '_JOBVISOR_LIFE' in os.environ and os.path.exists('broken'):\n    os._exit(3)\n"
    house = build(source, **RANGE)
    family = house.start()
    house.touch("broken")
    jobs = [house.enqueue("gated", n) for n in range(3)]
    eventually(lambda: len(house.said("keeps dying")) >= 3, what="a second worker keeps dying")
    assert scaling(house)["wanted"] == 2
    (house.folder / "broken").unlink()
    house.wait_lines("began", 3)
    house.touch("go")
    house.wait_finished(jobs)
    assert house.stop(family) == 0


@pytest.mark.parametrize("who", ["parent", "worker", "caretaker"])
def test_a_kill_in_the_middle_of_scaling_costs_one_job_at_most(build: Build, who: str) -> None:
    house = build(TASKS, **RANGE)
    family = house.start()
    jobs = [house.enqueue("gated", n, retries=0) for n in range(8)]
    house.wait_lines("began", 2)
    at_work = eventually(lambda: [w["pid"] for w in house.status()["workers"] if w["job"]])
    victim = {"parent": family.pid, "worker": at_work[0], "caretaker": house.caretaker()}[who]
    children = house.children(family.pid)
    os.kill(victim, signal.SIGKILL)
    if who == "parent":
        family.wait()
        house.touch("go")
        for pid in children:
            eventually(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
        family = house.start()
    else:
        house.wait_lines("began", 6)
        house.touch("go")
    house.wait_finished(jobs)
    failed = [job for job in jobs if house.client.get(job).state != "succeeded"]
    assert len(failed) == (1 if who == "worker" else 0)
    wait_workers(house, 1)
    assert house.stop(family) == 0


def test_a_database_that_takes_no_changes_changes_nothing(build: Build) -> None:
    house = build(TASKS, **{**RANGE, "processes": "2-6"})
    family = house.start()
    jobs = [house.enqueue("gated", n) for n in range(8)]
    house.wait_lines("began", 6)
    with house.locked():
        house.touch("go")
        house.wait_rounds(2)
        assert scaling(house)["wanted"] == 6
    house.wait_finished(jobs)
    wait_workers(house, 2)
    assert house.stop(family) == 0


def test_no_job_is_asked_to_end_because_there_are_to_be_fewer_workers(build: Build) -> None:
    house = build(TASKS, processes=2, config={"supervisor": {"stop_timeout": "300ms"}})
    jobs = [house.enqueue("checking", n) for n in range(2)]
    family = house.start()
    house.wait_lines("began", 2)
    family.send_signal(signal.SIGTTOU)
    eventually(lambda: [w["leaving"] for w in house.status()["workers"]] == [None, "scale"])
    house.wait_rounds(2)
    house.touch("go")
    house.wait_finished(jobs)
    wait_workers(house, 1)
    assert len(house.lines("began")) == 2
    assert {house.client.get(job).attempt for job in jobs} == {1}
    assert house.stop(family) == 0


def test_scale_moves_the_least_and_says_so(build: Build) -> None:
    house = build(TASKS, **{**RANGE, "scale_idle": "1h"})
    family = house.start()
    family.send_signal(signal.SIGTTIN)
    wait_workers(house, 2)
    assert scaling(house)["why"] == "as asked for"
    assert scaling(house)["least"] == 2
    family.send_signal(signal.SIGTTOU)
    eventually(lambda: scaling(house)["least"] == 1)
    assert scaling(house)["wanted"] == 2, "who is there stays until nobody needs it"
    asked = house.command("scale", "3")
    assert (asked.returncode, asked.stderr) == (
        0,
        "pool default has 3 workers, at least 3 and at most 6\n",
    )
    wait_workers(house, 3)
    shown = house.command("status").stdout
    assert "LEAST  MOST  WANTED  NOW  WHY" in shown
    assert "as asked for" in shown
    assert house.stop(family) == 0


def test_workers_of_several_lanes_come_when_all_lanes_are_taken(build: Build) -> None:
    house = build(TASKS, **{**RANGE, "concurrency": 3})
    family = house.start()
    jobs = [house.enqueue("gated", n) for n in range(7)]
    house.wait_lines("began", 7)
    house.touch("go")
    house.wait_finished(jobs)
    wait_workers(house, 1)
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.stop(family) == 0
