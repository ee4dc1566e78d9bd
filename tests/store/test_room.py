"""Room in the log of durable commits."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.store.checkpoint import DURABLE_NET_PAGES
from jobvisor.jobs.store.room import FIRST_LOOK, FRAME, Room

MUCH = 30  # commits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (n INTEGER)")
        yield connection


def log_size(path: Path) -> int:
    return path.with_name("jobs.db-wal").stat().st_size


def commit(connection: sqlite3.Connection, room: Room, times: int) -> None:
    for number in range(times):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        room.committed(connection)


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def test_a_log_that_grows_is_given_room_and_grows_no_more(
    path: Path, connection: sqlite3.Connection
) -> None:
    room = Room(str(path), first=3, pages=MUCH)
    commit(connection, room, 3)
    size = log_size(path)
    assert size >= (3 + MUCH) * FRAME
    commit(connection, room, MUCH)
    assert log_size(path) == size
    assert count(connection) == 3 + MUCH


def test_after_a_crash_the_log_is_read_up_to_the_room(
    tmp_path: Path, path: Path, connection: sqlite3.Connection
) -> None:
    commit(connection, Room(str(path), first=1, pages=MUCH), 5)
    (tmp_path / "crashed").mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / "crashed" / name)
    with closing(sqlite3.connect(tmp_path / "crashed" / "jobs.db")) as again:
        assert count(again) == 5
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_process_that_commits_a_few_times_makes_no_room(
    path: Path, connection: sqlite3.Connection
) -> None:
    alone = Room(str(path))
    commit(connection, alone, FIRST_LOOK - 1)
    assert log_size(path) < 2 * FIRST_LOOK * FRAME


def test_a_log_that_is_written_over_is_given_no_more_room(
    path: Path, connection: sqlite3.Connection
) -> None:
    # 1 page a commit: the log is as large as the net lets it become, and begins anew.
    room = Room(str(path), first=1, between=100)
    commit(connection, room, 2 * DURABLE_NET_PAGES)
    size = log_size(path)
    commit(connection, room, 3 * DURABLE_NET_PAGES)
    assert log_size(path) == size


def test_a_log_that_a_reader_keeps_grows_by_rooms(
    path: Path, connection: sqlite3.Connection
) -> None:
    room = Room(str(path), first=1, pages=MUCH, between=1)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        commit(connection, room, 1)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        grown = 0
        for _ in range(2 * DURABLE_NET_PAGES):
            size = log_size(path)
            connection.execute("INSERT INTO t VALUES (0)")
            grown += log_size(path) > size
            room.committed(connection)
    assert grown <= 2 * DURABLE_NET_PAGES // MUCH + 1  # once for each room
    assert log_size(path) < 2 * (2 * DURABLE_NET_PAGES + MUCH) * FRAME


def test_two_that_make_room_do_not_make_it_for_each_other(
    path: Path, connection: sqlite3.Connection
) -> None:
    rooms = [Room(str(path), first=1, pages=MUCH, between=1) for _ in range(2)]
    commit(connection, rooms[0], 1)
    size = log_size(path)
    for _ in range(MUCH // 4):
        for room in rooms:
            commit(connection, room, 1)
    assert log_size(path) == size


def test_no_room_is_made_while_somebody_writes(path: Path, connection: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        commit(connection, Room(str(path), first=2), 1)
        room = Room(str(path), first=1)
        other.execute("BEGIN IMMEDIATE")
        size = log_size(path)
        room.committed(connection)
        assert log_size(path) == size
        other.execute("INSERT INTO t VALUES (0)")
        other.execute("COMMIT")
    assert count(connection) == 2
