"""kill -9 of a whole family, with its ledgers and without; and a ledger that is settled twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobvisor import Fixed
from jobvisor.jobs.identity import Identity
from jobvisor.supervisor.ledger.layout import parse_name
from tests.system.harness import MARK, Build, House
from tests.system.history import (
    SHORT,
    calls,
    check_charges,
    check_each_succeeded,
    check_nothing_left,
    left_in,
    marking,
    marks,
    wait_begun,
    wait_busy,
)

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

JOBS = 800

#: Short jobs that end in each way a ledger can hold.
MIXED = marking("""
    @task(retry=Fixed(0))
    def mixed(ctx: Context):
        mark("start", ctx)
        time.sleep(0.002)  # task body
        mark("end", ctx)
        if ctx.job % 4 == 1:
            raise Fail("no use")
        if ctx.job % 4 == 2 and ctx.attempt == 1:
            raise Retry(after=0)
        return ctx.job
    """)


PROGRAM = f"""{MARK}
import subprocess

@task
def program():
    told = open("programs").read().split() if os.path.exists("programs") else []
    if told:
        from jobvisor.jobs.identity import Identity
        mark("alive", Identity.of(int(told[0])) is not None)  # a zombie is none
        return
    child = subprocess.Popen(["sleep", "600"])
    mark("programs", child.pid)
    child.wait()
"""


def kill_busy_family(house: House) -> list[int]:
    """Start, let it work, kill -9 everybody; the workers that were there."""
    family = house.start()
    wait_busy(house, 75)
    workers = house.workers()
    house.kill_family(family)
    return workers


def test_a_family_killed_in_its_batches_resumes_exactly_from_its_ledgers(build: Build) -> None:
    house = build(SHORT)
    ids = calls(house, "short", JOBS, retry=Fixed(0), retries=20)
    killed = kill_busy_family(house)
    killed += kill_busy_family(house)
    assert house.drain() == 0
    check_each_succeeded(house, ids)
    assert check_charges(house, killed) <= 1
    assert house.query("SELECT max(losses) FROM jobs") == [(0,)]
    check_nothing_left(house)


@pytest.mark.stores("sqlite")
def test_the_programs_of_a_killed_family_end_before_their_jobs_run_again(build: Build) -> None:
    house = build(PROGRAM, processes=1)
    job = house.enqueue("program", retry=Fixed(0), retries=1)
    family = house.start()
    (first,) = house.wait_lines("programs")
    house.kill_family(family)
    assert Identity.of(int(first)) is not None, "it outlived the family"
    family = house.start()
    house.wait_lines("alive")
    house.wait_finished([job])
    assert house.lines("alive") == ["False"]
    assert house.heard("ended 1 processes that the tasks of the dead worker")
    assert house.stop(family) == 0


def test_without_its_ledgers_every_job_still_runs_and_none_is_charged(build: Build) -> None:
    house = build(SHORT)
    ids = calls(house, "short", JOBS, retry=Fixed(0), retries=0)  # one charge would fail a job
    held = 0
    for _ in range(5):  # the kill may come just when nothing is held
        kill_busy_family(house)
        held = house.query("SELECT count(*) FROM jobs WHERE state = 'running'")[0][0]
        if held:
            break
    assert held > 0
    shutil.rmtree(house.state_dir / "ledger")
    assert house.drain() == 0
    check_each_succeeded(house, ids)
    assert house.query("SELECT sum(losses), max(losses), max(attempt) FROM jobs") == [(held, 1, 1)]
    told = house.query("SELECT outcome, count(*) FROM attempts GROUP BY outcome")
    assert told == [("vanished", held)]
    check_nothing_left(house)


def test_a_job_whose_worker_vanished_four_times_is_failed_and_says_so(build: Build) -> None:
    house = build(SHORT, processes=1)
    job = house.client.enqueue(house.client.call("app:short", 600)).id
    for loss in range(1, 5):
        family = house.start()
        wait_begun(house, loss)
        house.kill_family(family)
        shutil.rmtree(house.state_dir / "ledger")
    family = house.start()
    house.wait_finished([job])
    assert house.stop(family) == 0
    found = house.client.get(job)
    assert (found.state, found.error, found.losses) == (
        "failed", "its worker vanished 4 times", 4,
    )  # fmt: skip
    assert len(marks(house)) == 4


def everything(house: House) -> list[object]:
    """All that is known of jobs and of their history."""
    return [house.query(f"SELECT * FROM {table} ORDER BY id") for table in ("jobs", "attempts")]


def test_a_ledger_that_is_settled_twice_changes_nothing_the_second_time(
    build: Build, tmp_path: Path
) -> None:
    house = build(MIXED)
    ids = calls(house, "mixed", JOBS)
    killed = kill_busy_family(house)
    kept = tmp_path / "kept"
    shutil.copytree(house.state_dir / "ledger", kept)
    assert house.drain() == 0
    house.wait_finished(ids)
    before = everything(house)
    assert all(left_in(marks(house), pid) for pid in killed), "the ledgers held nothing"
    runs = len(marks(house))
    copied = [path for path in kept.iterdir() if parse_name(path.name)]
    assert len(copied) == 2
    for path in copied:
        shutil.copy(path, house.state_dir / "ledger" / path.name)
    assert house.drain() == 0
    ledgers = house.state_dir / "ledger"
    assert not [path for path in ledgers.iterdir() if path.name[0].isdigit()], (
        "they were not settled"
    )
    assert everything(house) == before
    assert len(marks(house)) == runs
    assert not house.said("came too late")
