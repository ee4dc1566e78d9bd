"""The log of SQLite: bounded by what a reader forces, and nobody waits for the reader."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store.checkpoint import KEPT_BYTES, LARGE_BYTES, Checkpoint, log_settings
from tests.clock import MovableClock
from tests.store.database import SqliteDatabase
from tests.store.making import claim, life, new, record

LARGE = 1 << 20


class Log:
    """A database with a writer, a caretaker's connection, and a reader that stays as long as it is told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "some.db"
        self.clock = MovableClock()
        self.writer = self._connected()
        self.writer.execute("PRAGMA journal_mode = WAL")
        self.writer.execute("CREATE TABLE words (text)")
        self.reader = self._connected()
        self.caretaker = self._connected()
        self.asked: list[str] = []
        self.caretaker.set_trace_callback(self.asked.append)
        self.checkpoint = Checkpoint(str(self.path), self.clock, large=LARGE)

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        for setting in log_settings(durable=False):
            connection.execute(setting)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def size(self) -> int:
        return os.stat(f"{self.path}-wal").st_size

    def write(self, size: int) -> None:
        self.writer.execute("INSERT INTO words VALUES (?)", ("x" * size,))

    def read(self) -> None:
        self.reader.execute("BEGIN")
        self.reader.execute("SELECT count(*) FROM words").fetchall()

    def step(self) -> bool:
        """One step; whether it asked for a new beginning, for which writers may have to wait."""
        self.asked.clear()
        self.checkpoint.step(self.caretaker)
        return any("RESTART" in statement for statement in self.asked)

    def close(self) -> None:
        for connection in (self.writer, self.reader, self.caretaker):
            connection.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def test_while_a_reader_needs_the_log_no_writer_has_to_wait(log: Log) -> None:
    log.write(LARGE)
    log.read()
    log.write(LARGE)
    assert log.checkpoint.due()
    assert not log.step()
    assert not log.step()


def test_a_log_that_a_reader_has_made_large_is_cut_after_the_reader_has_left(log: Log) -> None:
    log.read()
    log.write(2 * KEPT_BYTES)
    log.step()
    assert log.size() > 2 * KEPT_BYTES
    log.reader.execute("COMMIT")
    log.step()
    log.write(1)
    assert log.size() <= KEPT_BYTES


def test_a_large_log_begins_anew_though_it_is_written_all_the_time(log: Log) -> None:
    log.write(2 * LARGE)
    assert log.step()
    before = log.size()
    log.write(LARGE)
    assert log.size() == before


def test_a_small_log_is_carried_and_never_asked_to_begin_anew(log: Log) -> None:
    log.write(LARGE // 2)
    assert not log.step()
    assert log.path.stat().st_size > LARGE // 2


def test_after_a_busy_answer_the_beginning_is_left_alone_ever_longer(log: Log) -> None:
    log.write(2 * LARGE)
    log.read()  # at the end of the log: all of it can be carried, and yet it cannot begin anew
    tried = []
    for second in range(40):
        if log.step():
            tried.append(second)
        log.clock.move(1_000)
    assert tried == [0, 1, 3, 7, 15, 31]
    log.reader.execute("COMMIT")
    log.clock.move(60_000)
    assert log.step()


def test_a_writer_goes_on_at_once_after_a_beginning_that_was_refused(log: Log) -> None:
    log.write(2 * LARGE)
    log.read()
    assert log.step()
    log.write(1)


def test_a_log_that_is_not_there_is_not_due(tmp_path: Path) -> None:
    assert not Checkpoint(f"{tmp_path}/none.db", SYSTEM).due()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_reader_of_half_a_minute_costs_enqueue_and_turns_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = SqliteDatabase(tmp_path)
    client = Client(f"sqlite:///{database.path}")
    keeper = database.open()
    leave = threading.Event()

    def keep() -> None:
        while not leave.wait(1):
            keeper.checkpoint()

    def rates(seconds: float) -> tuple[float, float]:
        enqueued = settled = 0
        store, who, number = database.open(), life(), 0
        ends = SYSTEM.monotonic_ns() + int(seconds * 1e9)
        while SYSTEM.monotonic_ns() < ends:
            client.enqueue("app:noop")
            enqueued += 1
            if enqueued % 100 == 0:
                store.enqueue([new() for _ in range(100)])
                number += 1
                jobs = claim(store, who, number, limit=200)
                store.apply([record(who, number, job) for job in jobs], who)
                settled += len(jobs)
        return enqueued / seconds, settled / seconds

    caretaker = threading.Thread(target=keep)
    caretaker.start()
    try:
        rates(5)
        without = rates(25)
        reader = sqlite3.connect(database.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        beside = rates(25)
        largest = os.stat(f"{database.path}-wal").st_size
        reader.close()
        rates(5)
        after = os.stat(f"{database.path}-wal").st_size
    finally:
        leave.set()
        caretaker.join()
        client.close()
        database.close()
    ratios = [one / other for one, other in zip(beside, without, strict=True)]
    with capsys.disabled():
        print(
            f"\nbeside a reader: enqueue {ratios[0]:.2f}, turns {ratios[1]:.2f}; log "
            f"{largest / 1e6:.0f} MB with it, {after / 1e6:.0f} MB after it"
        )
    assert after < LARGE_BYTES
    assert min(ratios) > 0.5  # 0.8 on an idle machine
