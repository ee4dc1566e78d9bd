"""The schema of an SQLite database: of which release it is, and how it comes to be of ours.

The number of the last migration is in the file's header (`user_version`); with a prefix the file is
another program's, and so is its header, and the number is in our own table.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import SchemaError, StoreUnavailable, shown
from jobvisor.jobs.log import say
from jobvisor.jobs.store.fault import NAME_ANOTHER, NamedFaults
from jobvisor.jobs.store.patience import BEAT_NS, LOCK_SECONDS, Patience
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.shipped import read_migrations
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.store.wake import made

SCHEMA = 6  # the number of the newest migration this release knows
STEPS_BETWEEN = 10_000  # of SQLite's machine, between two looks at the clock: some milliseconds

_OURS = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta')"
_NUMBER = "SELECT value FROM meta WHERE key = 'schema'"


class Schema:
    """The schema of one file, or of a database in memory."""

    def __init__(
        self,
        path: str,
        prefix: str,
        clock: Clock,
        patience: Patience,
        faults: NamedFaults,
        *,
        beat: Callable[[], None],
        show: Callable[[], None],
    ) -> None:
        """`beat` is called while a lock is waited for, `show` during a migration, ours or another's."""
        self._path = path
        self._prefix = prefix
        #: Of the newest migration that the database has; asked in each turn.
        self._number = header_number if not prefix else partial(told_number, path, prefix)
        self._clock = clock
        self._patience = patience
        self._faults = faults
        self._beat = beat
        self._show = show

    def number(self, connection: sqlite3.Connection) -> int:
        """The number of the newest migration that the database has."""
        return self._patience.take(lambda: self._number(connection))

    def refuse_newer(self, connection: sqlite3.Connection) -> None:
        """SchemaError where this release may not work on the database any more."""
        number = self._number(connection)
        if number <= SCHEMA:
            return
        query = statements("sqlite", self._prefix)["meta"]
        row = connection.execute(query, {"key": "oldest_schema"}).fetchone()
        try:
            oldest = int(row[0])
        except (TypeError, ValueError):
            raise SchemaError(
                f"{self._path} has schema {number}, and its table {self._prefix}meta names no "
                f"oldest_schema that may still work on it; restore that row, or a backup, or {NAME_ANOTHER}"
            ) from None
        if oldest > SCHEMA:
            raise SchemaError(
                f"{self._path} has schema {number}, and this release knows {SCHEMA}; "
                f"install a newer jobvisor"
            )

    def bring_up(self, connection: sqlite3.Connection, *, writable: bool) -> None:
        """Migrate where that is needed; SchemaError where it may not be done."""
        with self._faults:
            number = self.number(connection)
            if number >= SCHEMA:
                self.refuse_newer(connection)
                return
            self._refuse_to_migrate(connection, number, writable=writable)
        self._migrate(connection)

    def _refuse_to_migrate(
        self, connection: sqlite3.Connection, number: int, *, writable: bool
    ) -> None:
        if not writable:
            which = f" with the prefix {self._prefix}" if self._prefix else ""
            raise SchemaError(
                f"{self._path} has schema {number}{which}, this release needs {SCHEMA}, and you may only "
                f"read it; run `jobvisor migrate` as the owner of the file"
            )
        if number and not has_meta(connection, self._prefix):
            raise SchemaError(f"{self._path}: its tables are another program's; {NAME_ANOTHER}")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._path == ":memory:":
            _apply_migrations(connection, self._prefix)
            return
        # Two first migrations at once fail in SQLite (measured), so they queue up at a file lock.
        gate = made(self._path)
        try:
            self._wait_for(gate)
            with self._faults:
                self._patience.take(lambda: connection.execute("PRAGMA journal_mode = WAL"))
                if self._number(connection) < SCHEMA:
                    self._patience.take(lambda: self._apply_migrations(connection))
                    say("migrated", version=SCHEMA)
        finally:
            os.close(gate)

    def _apply_migrations(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._shown(), STEPS_BETWEEN)
        try:
            _apply_migrations(connection, self._prefix)
        finally:
            connection.set_progress_handler(None, 0)

    def _shown(self) -> Callable[[], None]:
        """For SQLite to call every so many steps of its machine; it calls `show` about every 100 ms."""
        told = 0

        def show() -> None:
            nonlocal told
            now = self._clock.monotonic_ns()
            if now - told > BEAT_NS:
                told = now
                self._show()

        return show

    def _wait_for(self, gate: int) -> None:
        deadline = self._clock.monotonic_ns() + int(LOCK_SECONDS * 1e9)
        while True:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if self._clock.monotonic_ns() > deadline:
                    raise StoreUnavailable(
                        f"{self._path} is being migrated by another process for over "
                        f"{LOCK_SECONDS:.0f} s; look who holds {self._path}-wake"
                    ) from error
                self._beat()
                self._show()
                self._clock.sleep(0.01)
            else:
                return


def header_number(connection: sqlite3.Connection) -> int:
    """The number of the newest migration where the file is ours alone; 0 where there was none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def told_number(path: str, prefix: str, connection: sqlite3.Connection) -> int:
    """The same where the file is another program's too."""
    try:
        row = connection.execute(prefixed(_NUMBER, prefix)).fetchone()
    except sqlite3.OperationalError:
        if has_meta(connection, prefix):
            raise
        return 0
    try:
        return int(row[0]) if row else 0
    except ValueError:
        raise SchemaError(
            f"{path}: its table {prefix}meta says schema = {shown(row[0])}, which is no number of a "
            f"migration; restore that row from a backup, or {NAME_ANOTHER}"
        ) from None


def has_meta(connection: sqlite3.Connection, prefix: str) -> bool:
    """Whether there is a table of that name, be it ours or not."""
    return bool(connection.execute(prefixed(_OURS, prefix)).fetchone()[0])


def _apply_migrations(connection: sqlite3.Connection, prefix: str) -> None:
    """Each numbered file in one transaction with the record that it ran (sqlite-utils does both)."""
    # Imported here: only the first start of a database or a release needs it.
    from sqlite_utils import Database, Migrations  # noqa: PLC0415

    migrations = Migrations("jobvisor")
    if prefix:  # else in the table that sqlite-utils has for all who use it
        migrations.migrations_table = f"{prefix}migrations"
    for name, text in read_migrations("sqlite"):
        migrations(name=name)(_migration(prefixed(text, prefix)))
    migrations.apply(Database(connection, execute_plugins=False))


def _migration(script: str) -> Callable[[Any], None]:
    def run(database: Any) -> None:
        statement = ""
        for line in script.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                database.conn.execute(statement)
                statement = ""

    return run
