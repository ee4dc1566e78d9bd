"""A database that a test may open several times, speak plain SQL to, and make refuse a row.

What differs between the kinds of store stands here, so that the suite itself is the same for all.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from jobs.events import Events
from jobs.store import Store, open_store
from jobs.store.sqlite import SqliteStore
from tests.clock import MovableClock


class Database(ABC):
    """One database with its clock; every store and plain connection of it ends with `close`."""

    #: Whether one connection is all there is, and its end the end of the database.
    alone: ClassVar[bool] = False

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.events = Events()

    @abstractmethod
    def open(self) -> Store:
        """A store with a connection of its own, where this kind of database has more than one."""

    @abstractmethod
    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """A stranger's plain SQL, committed."""

    @abstractmethod
    def refuse(self, condition: str, reason: str) -> None:
        """Have the database refuse each change of a job to a row (`new`) of this condition."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


class _Sqlite(Database):
    def refuse(self, condition: str, reason: str) -> None:
        self.sql(
            f"CREATE TRIGGER refuse_{len(self.sql('SELECT name FROM sqlite_schema'))} "
            f"BEFORE UPDATE ON jobs WHEN {condition} BEGIN SELECT RAISE(ABORT, '{reason}'); END"
        )


class SqliteDatabase(_Sqlite):
    """A file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "jobs.db"
        self._stores: list[Store] = []

    def open(self) -> SqliteStore:
        # Not durable: no test cuts the power, and each commit is then without an fsync.
        store = open_store(
            f"sqlite:///{self.path}", durable=False, clock=self.clock, events=self.events
        )
        store.open()
        self._stores.append(store)
        return store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        for store in self._stores:
            store.close()


class MemoryDatabase(_Sqlite):
    """In memory: one connection, so every `open` is the same store, and so is the stranger."""

    alone = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        del folder
        self._store = open_store("memory://", clock=self.clock, events=self.events)

    def open(self) -> Store:
        self._store.open()
        return self._store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._store._connected().execute(statement, parameters).fetchall()

    def close(self) -> None:
        self._store.close()


KINDS: dict[str, type[SqliteDatabase | MemoryDatabase]] = {
    "sqlite": SqliteDatabase,
    "memory": MemoryDatabase,
}
