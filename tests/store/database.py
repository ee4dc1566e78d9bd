"""A database that a test may open several times, speak plain SQL to, and make refuse a row.

What differs between the kinds of store stands here, so that the suite itself is the same for all.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.events import Events
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.sqlite import SqliteStore
from tests.clock import MovableClock
from tests.postgres import Stranger, shared
from tests.waiting import STEP


class Database(ABC):
    """One database with its clock; every store and plain connection of it ends with `close`."""

    #: Whether one connection is all there is, and its end the end of the database.
    alone: ClassVar[bool] = False
    #: Before the names of ours, where the plain ones are another program's tables.
    prefix: ClassVar[str] = ""

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


#: Another program's, with columns that are none of ours: a statement that names one fails.
THEIRS = "; ".join(
    f"CREATE TABLE {name} (theirs integer)"
    for name in ("jobs", "attempts", "families", "owners", "meta", "changes", "stats", "actions",
                 "tasks", "requests", "limits", "limit_keys", "turns", "queues", "schedules", "ticks",
                 "uniques", "jobs_readable", "attempts_readable", "incarnation")
)  # fmt: skip


class SqliteDatabase(_Sqlite):
    """A file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "jobs.db"
        self._stores: list[Store] = []

    def open(self) -> SqliteStore:
        # Not durable: no test cuts the power, and each commit is then without an fsync.
        store = open_store(
            f"sqlite:///{self.path}",
            durable=False,
            prefix=self.prefix,
            clock=self.clock,
            events=self.events,
        )
        assert isinstance(store, SqliteStore)
        store.open()
        self._stores.append(store)
        return store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(prefixed(statement, self.prefix), parameters).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        for store in self._stores:
            store.close()


class MemoryDatabase(_Sqlite):
    """In memory: one connection, so every `open` is the same store, and so is the stranger.

    And beside another program's tables, so that the suite is run with a prefix too.
    """

    alone = True
    prefix = "our_"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        del folder
        store = open_store("memory://", prefix=self.prefix, clock=self.clock, events=self.events)
        assert isinstance(store, SqliteStore)
        self._store = store
        store._connected().executescript(THEIRS)

    def open(self) -> Store:
        self._store.open()
        return self._store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        statement = prefixed(statement, self.prefix)
        return self._store._connected().execute(statement, parameters).fetchall()

    def close(self) -> None:
        self._store.close()


# The time of a PostgreSQL is its own, and comes from one function: here it is that of a row.
_CLOCK = """
CREATE TABLE test_clock (now timestamptz NOT NULL);
INSERT INTO test_clock VALUES (to_timestamp(0));
CREATE OR REPLACE FUNCTION {prefix}clock() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT now FROM {schema}.test_clock';
"""
_REFUSE = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '{reason}'; END $$;
CREATE TRIGGER {name} BEFORE UPDATE ON jobs FOR EACH ROW WHEN ({condition})
    EXECUTE FUNCTION {name}();
"""


class PostgresDatabase(Database):
    """A schema of its own in one PostgreSQL, whose time is the test's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        del folder
        self.url = _postgres_url()
        self._stores: list[Store] = []
        self._furnish()
        self._tell_time()
        self.clock.on_move.append(self._tell_time)

    def _furnish(self) -> None:
        self.schema = f"t_{uuid.uuid4().hex}"
        self._stranger = Stranger(self.url, self.schema)
        self._store().migrate()
        if self.prefix:
            self._stranger.sql(THEIRS)
        self._stranger.sql(_CLOCK.format(schema=self.schema, prefix=self.prefix))

    def _tell_time(self) -> None:
        self.sql("UPDATE test_clock SET now = to_timestamp(? / 1000.0)", self.clock.now_ms())

    def _store(self) -> Store:
        store = open_store(
            self.url,
            schema=self.schema,
            prefix=self.prefix,
            durable=False,
            clock=self.clock,
            events=self.events,
        )
        self._stores.append(store)
        return store

    def open(self) -> Store:
        store = self._store()
        store.open()
        return store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._stranger.sql(prefixed(statement, self.prefix), *parameters)

    def refuse(self, condition: str, reason: str) -> None:
        # JSON as it was written has no equality of its own, only its text has.
        condition = condition.replace("new.result", "new.result::text")
        name = f"refuse_{uuid.uuid4().hex}"
        self.sql(_REFUSE.format(name=name, condition=condition, reason=reason))

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.sql(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        self._stranger.close()


# What a test may have left, row by row: a new schema costs the server ten times as much.
_REMEMBER = "CREATE TABLE test_meta AS TABLE meta"
_REMAINS = """
SELECT format('DELETE FROM %I', tablename) FROM pg_tables
    WHERE schemaname = ? AND tablename NOT IN ('test_clock', 'test_meta')
UNION ALL SELECT format('SELECT setval(%L, 1, false)', sequencename) FROM pg_sequences
    WHERE schemaname = ?
"""
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND application_name <> 'stranger'
"""
_SIZE = (
    "SELECT sum(pg_relation_size(relname::regclass)) FROM pg_stat_user_tables WHERE schemaname = ?"
)
_SPOILS = re.compile(
    r"\b(CREATE|ALTER|DROP|TRUNCATE|GRANT|REVOKE|SET|ANALYZE|VACUUM)\b", re.IGNORECASE
)
_LARGEST = 1 << 20  # bytes of rows, the dead ones too
_LOOKS = 20


class RecycledDatabase(PostgresDatabase):
    """As any other, in a schema that an earlier test left as it had found it, where there is one."""

    _left: ClassVar[list[tuple[str, Stranger]]] = []

    def __init__(self, folder: Path) -> None:
        self._spoilt = False
        super().__init__(folder)

    def _furnish(self) -> None:
        if self._left:
            self.schema, self._stranger = self._left.pop()
        else:
            super()._furnish()
            self._stranger.sql(prefixed(_REMEMBER, self.prefix))

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        # An UPDATE has a SET too, and changes only rows.
        changed = _SPOILS.search(re.sub(r"(?i)\bUPDATE\s+\w+\s+SET\b", "", statement))
        self._spoilt = self._spoilt or changed is not None
        return super().sql(statement, *parameters)

    def close(self) -> None:
        for store in self._stores:
            store.close()
        if self._spoilt or not self._is_alone() or self._size() > _LARGEST:
            super().close()
            return
        remains = [row[0] for row in self.sql(_REMAINS, self.schema, self.schema)]
        again = prefixed("INSERT INTO meta SELECT * FROM test_meta", self.prefix)
        words = ["SET session_replication_role = replica", *remains, again]
        self._stranger.sql("; ".join([*words, "SET session_replication_role = origin"]))
        self._left.append((self.schema, self._stranger))

    def _is_alone(self) -> bool:
        """Whether the connections of the test have ended; the server takes a moment for each."""
        for _ in range(_LOOKS):
            if self.sql(_OTHERS) == [(0,)]:
                return True
            SYSTEM.sleep(STEP)
        return False

    def _size(self) -> int:
        return int(self.sql(_SIZE, self.schema)[0][0] or 0)


class PrefixedDatabase(RecycledDatabase):
    """In a schema of another program's, beside tables and functions of the same plain names."""

    prefix = "our_"
    _left: ClassVar[list[tuple[str, Stranger]]] = []


@cache
def _postgres_url() -> str:
    return shared().new_database()


KINDS: dict[str, type[SqliteDatabase | MemoryDatabase | PostgresDatabase]] = {
    "sqlite": SqliteDatabase,
    "memory": MemoryDatabase,
    "postgres": RecycledDatabase,
}
