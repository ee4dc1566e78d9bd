"""What others write into the table with plain SQL: their row may fail, the queue goes on."""

from __future__ import annotations

import sqlite3

import pytest

from tests.system.harness import MARK, Build, House

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)
"""

BROKEN = "CAST(x'5b22ff225d' AS TEXT)"  # ["<a byte that begins no character>"]


def insert(house: House, columns: str, values: str) -> int:
    house.query(f"INSERT INTO jobs (task, {columns}) VALUES ('app:quick', {values})")
    return int(house.query("SELECT max(id) FROM jobs")[0][0])


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("args", BROKEN),
        ("args, kwargs", "'[1]', CAST(x'7b22ff223a317d' AS TEXT)"),
        ("args, policy", "'[1]', CAST(x'ff' AS TEXT)"),
        ("args, timeout_ms", "'[1]', 9300000000000000"),
        ("args, timeout_ms", "'[1]', 9223372036854775807"),
        ("args, memory_bytes", "'[1]', 9223372036854775807"),
    ],
    ids=["args", "kwargs", "policy", "timeout", "longest timeout", "memory"],
)
def test_a_strangers_row_stops_neither_the_queue_nor_whoever_looks(
    build: Build, columns: str, values: str
) -> None:
    house = build(TASKS, processes=1)
    house.client.counts()
    theirs = insert(house, columns, values)
    ours = [house.enqueue("quick", n) for n in range(2)]
    family = house.start()
    house.wait_finished([theirs, *ours], limit=20)
    assert {house.client.get(job).state for job in ours} == {"succeeded"}
    assert {"0", "1"} <= {*house.lines("quick")}
    assert {job.id for job in house.client.list()} == {theirs, *ours}
    assert house.client.get(theirs).finished
    assert not [line for line in house.said("died: ") if "worker" in line]
    assert house.stop(family) == 0


def test_progress_that_a_stranger_broke_hides_no_job(build: Build) -> None:
    house = build(TASKS)
    house.client.counts()
    theirs = insert(house, "progress", "'{\"done'")
    other = insert(house, "progress", "'[1]'")
    assert [house.client.get(job).progress for job in (theirs, other)] == [None, None]
    assert [job.progress for job in house.client.list()] == [None, None]


def test_a_text_that_is_no_utf8_is_shown_with_a_mark_in_its_place(build: Build) -> None:
    house = build(TASKS)
    house.client.counts()
    theirs = insert(house, "args", BROKEN)
    assert house.client.get(theirs).args == ["�"]
    with sqlite3.connect(house.folder / "jobs.db") as connection:
        kept = connection.execute("SELECT hex(args) FROM jobs").fetchone()[0]
    connection.close()
    assert kept == "5B22FF225D"  # to look at a row changes nothing in it
