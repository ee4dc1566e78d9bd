"""A database that goes away under a running family, or is kept by a stranger: wait, quietly."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build, House, alive
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def gated(size):
    mark("began", os.getpid())
    gate("go")
    mark("ended")
    return "x" * size
"""

FILES = ("jobs.db", "jobs.db-wal", "jobs.db-shm")
TICK = os.sysconf("SC_CLK_TCK")


def take_away(house: House) -> None:
    """A folder stands where the database was."""
    (house.folder / "away").mkdir()
    for name in FILES:
        if (house.folder / name).exists():
            (house.folder / name).rename(house.folder / "away" / name)
    (house.folder / "jobs.db").mkdir()


def bring_back(house: House) -> None:
    (house.folder / "jobs.db").rmdir()
    for name in reversed(FILES):
        if (house.folder / "away" / name).exists():
            (house.folder / "away" / name).rename(house.folder / name)


def seconds_used(pids: list[int]) -> dict[int, float]:
    """Processor time of each of these processes so far."""
    told = {pid: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids}
    return {pid: (int(fields[11]) + int(fields[12])) / TICK for pid, fields in told.items()}


@pytest.mark.parametrize("size", [1, 900_000], ids=["in the ledger", "too large for the ledger"])
def test_a_worker_waits_for_a_database_that_went_away_without_spinning_or_shouting(
    build: Build, size: int
) -> None:
    house = build(TASKS, processes=2)
    family = house.start()
    job = house.enqueue("gated", size, retries=0)
    house.wait_lines("began")
    house.client.close()
    take_away(house)
    house.touch("go")
    house.wait_lines("ended")
    eventually(lambda: house.said("the database cannot be used"), what="it is noticed")
    pids = [family.pid, *house.children(family.pid)]
    before, began = seconds_used(pids), SYSTEM.monotonic_ns()
    house.wait_rounds(2)  # the first may come at once, and the processor's time is told in 10 ms
    seconds = (SYSTEM.monotonic_ns() - began) / 1e9
    shares = {pid: (used - before[pid]) / seconds for pid, used in seconds_used(pids).items()}
    assert max(shares.values()) < 0.10, shares
    assert len(house.said("the database cannot be used")) <= 3  # one of each child that needs it
    bring_back(house)
    house.wait_state(job, "succeeded")
    assert house.lines("began") == house.lines("began")[:1]
    assert house.client.get(job).attempt == 1
    assert {*house.children(family.pid)} == {*pids[1:]}
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.stop(family) == 0


def test_an_orphan_does_not_wait_for_ever_to_store_an_outcome_too_large_for_its_ledger(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, config={"supervisor": {"stop_timeout": "300ms"}})
    job = house.enqueue("gated", 900_000, retries=0)
    family = house.start()
    house.wait_lines("began")
    children = house.children(family.pid)
    house.client.close()
    take_away(house)
    family.kill()
    family.wait()
    house.touch("go")
    eventually(lambda: not any(map(alive, children)), what="the children have left")
    (line,) = house.heard("its outcome could not be stored")
    assert f"job {job} " in line
    bring_back(house)
    second = house.start()
    house.wait_state(job, "succeeded")
    assert len(house.lines("began")) == 2, "it was given back, and not charged"
    assert house.client.get(job).attempt == 1
    assert house.stop(second) == 0


def test_a_task_module_with_a_connection_of_its_own_is_not_blamed_for_a_strangers_lock(
    build: Build,
) -> None:
    source = """
import sqlite3
mine = sqlite3.connect("jobs.db")
mine.execute("SELECT count(*) FROM sqlite_master").fetchall()
"""
    house = build(TASKS + source, processes=2)
    house.client.counts()  # the database is there when the module opens it
    family = house.start()
    jobs = [house.enqueue("gated", 1, retries=0) for _ in range(2)]
    house.wait_lines("began", 2)
    workers = house.workers()
    stranger = sqlite3.connect(house.folder / "jobs.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    house.touch("go")
    house.wait_lines("ended", 2)
    house.wait_rounds(4)  # a worker asks itself after two seconds
    stranger.execute("ROLLBACK")
    stranger.close()
    house.wait_finished(jobs)
    assert house.workers() == workers
    assert not house.said("left the database open and locked")
    assert len(house.lines("began")) == 2
    assert [house.client.get(job).attempt for job in jobs] == [1, 1]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.stop(family) == 0
