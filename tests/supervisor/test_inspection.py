"""When a process is looked over, and who is named where it was changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.errors import EX_DESCRIPTORS, EX_LOCKED
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.inspection import EVERY, FIRST_RUNS, LONG_NS, TASKS_MAX, Inspection


@pytest.fixture(autouse=True)
def _umask_put_back() -> Iterator[None]:
    mask = os.umask(0o22)
    yield
    os.umask(mask)


def inspection(board: Board | None = None, database: str = "") -> Inspection:
    return Inspection(Cleanliness([]), board or Board(), database)


def settled(task: str = "app:f", board: Board | None = None) -> Inspection:
    """One that has looked after the first runs of a task."""
    made = inspection(board)
    for _ in range(FIRST_RUNS):
        assert made.is_due(task, 1)
        assert made.look() is None
    return made


def test_the_first_runs_of_each_task_are_looked_over() -> None:
    made = settled()
    assert not made.is_due("app:f", 1)
    assert [made.is_due("app:g", 1) for _ in range(FIRST_RUNS + 1)] == [True] * FIRST_RUNS + [False]


def test_a_long_run_and_every_hundredth_are_looked_over() -> None:
    made = settled()
    assert made.is_due("app:f", LONG_NS + 1)
    assert made.look() is None
    assert [made.is_due("app:f", 1) for _ in range(EVERY)] == [False] * (EVERY - 1) + [True]


def test_before_a_rest_there_is_something_to_look_at_or_not() -> None:
    made = settled()
    assert not made.is_behind()
    made.is_due("app:f", 1)
    assert made.is_behind()
    assert made.look() is None
    assert not made.is_behind()


def test_a_change_after_one_run_names_it_and_after_several_none_of_them() -> None:
    made = settled()
    os.umask(0o77)
    made.is_due("app:f", LONG_NS + 1)
    found = made.look()
    assert found is not None
    assert (found.tasks, found.jobs) == (("app:f",), 1)
    assert "umask" in found.what
    for task in ("app:f", "app:g", "app:f"):
        made.is_due(task, 1)
    found = made.look()
    assert found is not None
    assert (found.tasks, found.jobs) == (("app:f", "app:g"), 3)


def test_a_task_once_found_is_looked_over_after_each_run_by_every_later_worker() -> None:
    board = Board()
    made = settled(board=board)
    os.umask(0o77)
    made.is_due("app:f", 1)
    assert made.look() is not None
    os.umask(0o22)
    later = inspection(board)
    for _ in range(FIRST_RUNS * 2):
        assert later.is_due("app:f", 1)
        assert later.look() is None


def test_any_number_of_names_is_remembered_in_bounds() -> None:
    made = inspection()
    for number in range(TASKS_MAX * 2):
        assert made.is_due(f"app:{number}", 1)
        assert made.look() is None
    assert len(made._left) <= TASKS_MAX


def test_a_database_left_locked_is_found_after_a_first_run(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        made = inspection(database=path)
        made.is_due("app:f", 1)
        assert made.look() is None
        connection.execute("BEGIN IMMEDIATE")
        made.is_due("app:f", 1)
        found = made.look()
    assert found is not None
    assert (found.what, found.code) == ("the database is open and locked", EX_LOCKED)


def test_a_lost_descriptor_is_found_by_each_look_and_before_any_other_change(
    tmp_path: Path,
) -> None:
    ours = os.open(tmp_path / "ours", os.O_RDWR | os.O_CREAT)
    made = Inspection(Cleanliness([ours]), Board(), "")
    for _ in range(FIRST_RUNS):
        made.is_due("app:f", 1)
        assert made.look() is None
    os.close(ours)
    os.umask(0o77)
    assert made.is_due("app:f", LONG_NS + 1)
    found = made.look()
    assert found is not None
    assert (found.what, found.code) == (f"its descriptor {ours} was closed", EX_DESCRIPTORS)
