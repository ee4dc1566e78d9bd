"""kill -9 of a worker at a random moment: the job it ran pays one attempt, nobody else anything."""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import suppress
from statistics import median

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import Build, House, alive
from tests.system.history import (
    MATES,
    SHORT,
    Mark,
    calls,
    check_charges,
    check_each_succeeded,
    check_nothing_left,
    crashes,
    left_in,
    marking,
    marks,
    wait_busy,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]


def kill_at_random_moments(
    house: House, kills: int, *, with_caretaker: bool = False
) -> dict[int, int]:
    """Kill one busy worker after another; the moment (ns) of each pid's death."""
    killed: dict[int, int] = {}
    while len(killed) < kills:
        wait_busy(house, 3)
        SYSTEM.sleep(random.uniform(0, 0.05))  # not a wait for anything: the random moment itself
        pids = [pid for pid in house.workers() if pid not in killed and alive(pid)]
        if not pids:
            continue
        killed[random.choice(pids)] = SYSTEM.monotonic_ns()
        os.kill(list(killed)[-1], signal.SIGKILL)
        if with_caretaker:
            with suppress(ProcessLookupError):
                os.kill(house.caretaker(), signal.SIGKILL)
    return killed


def report_delays(house: House, killed: dict[int, int]) -> None:
    """From a kill to the next start of the job it hit: the p50, for whoever reads the output."""
    found = marks(house)
    delays = []
    for pid, moment in killed.items():
        last = left_in(found, pid)
        if last is not None and last.word == "start":
            delays.append(min(m.at for m in found if _runs_again(m, last)) - moment)
    if delays:
        print(
            f"{len(delays)} kills in a job, running again after {median(delays) / 1e6:.1f} ms (p50)"
        )


def _runs_again(mark: Mark, last: Mark) -> bool:
    return mark.word == "start" and mark.job == last.job and mark.attempt > last.attempt


def check_after_kills(house: House, kills: int, jobs: int, *, with_caretaker: bool = False) -> None:
    ids = calls(house, "short", jobs, retry=Fixed(0), retries=20)
    family = house.start()
    killed = kill_at_random_moments(house, kills, with_caretaker=with_caretaker)
    house.wait_finished(ids, limit=120)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    between = check_charges(house, killed)
    # Some tens of microseconds of three milliseconds. Of a few kills two or three may fall there by luck.
    assert between <= max(3, 1 + kills // 20), f"{between} of {kills} fell between job and record"
    check_nothing_left(house)
    report_delays(house, killed)


def test_a_killed_worker_costs_only_its_current_job_one_attempt(build: Build) -> None:
    check_after_kills(build(SHORT), kills=15, jobs=1500)


def test_a_caretaker_that_dies_with_the_worker_leaves_its_grave_to_the_next(build: Build) -> None:
    house = build(SHORT)
    check_after_kills(house, kills=3, jobs=500, with_caretaker=True)
    assert house.query("SELECT count(*) FROM attempts WHERE signal IS NULL") == [(0,)]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_hundred_killed_workers_cost_only_their_current_jobs(build: Build) -> None:
    check_after_kills(build(SHORT), kills=100, jobs=10_000)


def test_a_batch_of_many_loses_nothing_but_the_attempt_of_one(build: Build) -> None:
    # One job in the middle kills its worker; hundreds of finished and unstarted ones are around it.
    house = build(
        MATES
        + marking("""
        @task(retry=Fixed(0))
        def quick(ctx: Context):
            mark("start", ctx)
            before, behind = mates(ctx)
            # A machine that is busy with other things has smaller batches: better one than none.
            enough = 20 if ctx.job < 2000 else 1
            if len(before) >= enough and len(behind) >= enough:
                if only_once("deadly", f"{ctx.job} {behind}"):
                    os.kill(os.getpid(), signal.SIGKILL)
            mark("end", ctx)
        """),
        processes=1,
    )
    ids = calls(house, "quick", 3000)
    family = house.start()
    house.wait_finished(ids)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    found = marks(house)
    first, told = house.lines("deadly")[0].split(maxsplit=1)
    deadly, behind = int(first), json.loads(told)
    (victim,) = crashes(house)
    assert left_in(found, victim) == next(mark for mark in found if mark.job == deadly)
    assert check_charges(house, [victim]) == 0
    given_back = house.query("SELECT id FROM jobs WHERE claims > 1 AND attempt = 1")
    assert set(behind) <= {job for (job,) in given_back}
    assert house.query("SELECT max(attempt) FROM jobs WHERE id <> ?", deadly) == [(1,)]
    check_nothing_left(house)
