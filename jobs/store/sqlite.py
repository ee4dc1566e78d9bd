"""SQLite: the connection, its errors and its transactions; the verbs are in relational.py.

Facts this file is built on (measured, or from SQLite's own pages):
every write begins with BEGIN IMMEDIATE, because a read that turns into a write cannot wait for a lock;
a connection never crosses a fork, and closing an inherited one would drop its owner's POSIX locks;
`synchronous=FULL` makes a commit survive power loss, NORMAL only the death of processes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import quote

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import (
    ForkedStore,
    RowRefused,
    SchemaError,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.job import Job, NewJob
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import Record, Turn, Waker
from jobvisor.jobs.store.checkpoint import Checkpoint, log_settings
from jobvisor.jobs.store.fault import NamedFaults, is_busy, is_refusal
from jobvisor.jobs.store.filesystem import file_system, is_network
from jobvisor.jobs.store.page import INSERTED, SETTLED, ended_rows, new_rows, repeated
from jobvisor.jobs.store.relational import RelationalStore
from jobvisor.jobs.store.rows import new_job_of
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.store.wake import FileWaker, PollWaker, made, touch

SCHEMA = 3  # the number of the newest migration this release knows
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING is older
LOCK_SECONDS = 30.0  # how long somebody else may hold the database before a call gives up
# Between two tries for a lock. SQLite's own waits grow to 100 ms while a turn takes five: with two
# busy workers the database stood idle for a third of the time (measured: 56,000 against 77,000 jobs/s).
TRY_FIRST, TRY_CAP = 0.0002, 0.005
BEAT_NS = 100_000_000  # while waiting, the caller's beat moves this often

_OURS = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta')"

Value = TypeVar("Value")


class SqliteStore(RelationalStore):
    """The queue in one SQLite file, or in memory (`:memory:`) for one process."""

    one_machine = True

    def __init__(self, path: str, *, durable: bool, clock: Clock, events: Events) -> None:
        super().__init__(clock, events)
        self.in_memory = path == ":memory:"
        # SQLite follows a link, and keeps its log beside the file itself; so does all of ours.
        self.path = path if self.in_memory else os.path.realpath(path)
        self._durable = durable
        self._statements = statements("sqlite")
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._depth = 0
        self._place_checked = False
        self._fleeting = False  # opened as a file that nobody writes: not for long
        self._lock = threading.RLock()
        self._named_errors = NamedFaults(self.path, self._drop)
        self._checkpoint = Checkpoint(self.path, clock)

    # -- connection

    def open(self) -> None:
        self._refuse_copy()
        with self._lock:
            self._connected()

    def close(self) -> None:
        if self._connection is not None and self._pid != os.getpid():
            # A copied handle shares the log and its index with the process it was copied from.
            _abandoned.append(self._connection)
            self._connection = None
            return
        # Under the lock: another thread may be in the middle of a transaction.
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def step_aside(self) -> None:
        # A task that opens and closes the database file would drop this process's locks, and with
        # them a later commit.
        if not self.in_memory:
            self.close()

    def descriptors(self) -> list[int]:
        return []  # none is open while a user's function runs

    def check_schema(self) -> None:
        # Every connection begins with it, but one that stays open hears of a migration in no other way.
        with self._lock, self._named_errors:
            connection = self._connected()
            self._refuse_newer(connection, _schema_number(connection))

    def _refuse_copy(self) -> None:
        """Before the lock is taken: a thread that held it at the fork is not in the copy."""
        if self._connection is not None and self._pid != os.getpid():
            raise ForkedStore(
                f"the connection to {self.path} was opened by process {self._pid} and used by its "
                f"copy {os.getpid()}; open a store of its own after a fork"
            )

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._check_place()
            with self._named_errors:
                self._connection = self._patiently(self._connect)
            self._pid = os.getpid()
            self._check_schema(self._connection)
        self._refuse_copy()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri(), uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        # What a stranger wrote must not stop a queue: bytes that are no UTF-8 are replaced.
        connection.text_factory = _text
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            for setting in log_settings(durable=self._durable):
                connection.execute(setting)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _uri(self) -> str:
        """The file as whoever we are may use it; a new one is nobody else's to read."""
        self._fleeting = False
        if self.in_memory:
            return "file::memory:"
        with suppress(OSError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        place = f"file:{quote(os.fsencode(self.path))}"
        if not self._only_readable():
            return place
        # Without a right to write SQLite reads beside the writers that are there, through the index
        # of their log. Where nobody is there it would have to make one, so that the file is taken
        # as it stands: for one look, since whoever begins to write then does not know of us.
        if os.path.exists(f"{self.path}-shm"):
            return f"{place}?mode=ro&readonly_shm=1"
        if _size(f"{self.path}-wal"):
            raise StoreUnavailable(
                f"{self.path} was left with a log that only somebody who may write can carry into "
                f"it; run any command as the owner of the file"
            )
        self._fleeting = True
        return f"{place}?mode=ro&immutable=1"

    def _only_readable(self) -> bool:
        return (
            not self.in_memory
            and os.access(self.path, os.R_OK)
            and not os.access(self.path, os.W_OK)
        )

    def _check_place(self) -> None:
        if self._place_checked or self.in_memory:
            return
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreRefused(
                f"SQLite {sqlite3.sqlite_version} is too old; jobvisor needs "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or newer"
            )
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise StoreRefused(
                f"the folder {folder} of {self.path} does not exist; create it first"
            )
        kind = file_system(folder)
        if is_network(kind):
            raise StoreRefused(
                f"{self.path} lies on a network file system ({kind}), where SQLite's log gets "
                f"damaged; use a local disk"
            )
        self._place_checked = True

    # -- schema

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        try:
            with self._named_errors:
                number = self._patiently(lambda: _schema_number(connection))
                if number >= SCHEMA:
                    self._refuse_newer(connection, number)
                    return
                self._refuse_to_migrate(connection, number)
            self._migrate(connection)
        except BaseException:
            self._drop()  # or the next verb would take it for one whose schema is known to fit
            raise

    def _refuse_to_migrate(self, connection: sqlite3.Connection, number: int) -> None:
        if self._only_readable():
            raise SchemaError(
                f"{self.path} has schema {number}, this release needs {SCHEMA}, and you may only "
                f"read it; run `jobvisor migrate` as the owner of the file"
            )
        if number and not connection.execute(_OURS).fetchone()[0]:
            raise SchemaError(f"{self.path}: its tables are another program's; name another file")

    def _refuse_newer(self, connection: sqlite3.Connection, number: int) -> None:
        if number <= SCHEMA:
            return
        row = connection.execute(self._statements["meta"], {"key": "oldest_schema"}).fetchone()
        try:
            oldest = int(row[0])
        except (TypeError, ValueError):
            raise SchemaError(
                f"{self.path} has schema {number}, and its table meta names no oldest_schema that "
                f"may still work on it; restore that row, or a backup"
            ) from None
        if oldest > SCHEMA:
            raise SchemaError(
                f"{self.path} has schema {number}, and this release knows {SCHEMA}; "
                f"install a newer jobvisor"
            )

    def migrate(self) -> tuple[int, int]:
        self._refuse_copy()
        self._check_place()
        with self._lock, self._named_errors:
            if self._connection is None:
                self._connection = self._patiently(self._connect)
                self._pid = os.getpid()
            connection = self._connection
            before = self._patiently(lambda: _schema_number(connection))
        self._check_schema(self._connection)
        with self._named_errors:
            return before, _schema_number(self._connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self.in_memory:
            _apply_migrations(connection)
            return
        # Two first migrations at once fail in SQLite (measured), so they queue up at a file lock.
        gate = made(self.path)
        try:
            self._wait_for(gate)
            with self._named_errors:
                self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
                if _schema_number(connection) < SCHEMA:
                    self._patiently(lambda: _apply_migrations(connection))
                    say("migrated", version=SCHEMA)
        finally:
            os.close(gate)

    def _wait_for(self, gate: int) -> None:
        deadline = self.clock.monotonic_ns() + int(LOCK_SECONDS * 1e9)
        while True:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if self.clock.monotonic_ns() > deadline:
                    raise StoreUnavailable(
                        f"{self.path} is being migrated by another process for over "
                        f"{LOCK_SECONDS:.0f} s; look who holds {self.path}-wake"
                    ) from error
                self.on_wait()
                self.clock.sleep(0.01)
            else:
                return

    # -- statements

    def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._run(self._fetch, name, parameters)

    def _change(self, name: str, parameters: Mapping[str, Any]) -> int:
        return self._run(self._execute, name, parameters)

    def _change_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        return self._run(self._execute_many, name, parameters)

    def _fetch(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._connected().execute(self._statements[name], self._bound(parameters)).fetchall()

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> int:
        return self._connected().execute(self._statements[name], self._bound(parameters)).rowcount

    def _execute_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        if not parameters:
            return 0
        now = self.clock.now_ms()
        bound = [{**each, "now": now} for each in parameters]
        return self._connected().executemany(self._statements[name], bound).rowcount

    def _bound(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With the clock: the file lives on this machine, so this machine's is the database's."""
        return {**parameters, "now": self.clock.now_ms()}

    def _run(self, action: Callable[..., Value], *arguments: Any) -> Value:
        """One statement: as it is within a transaction, with bounded patience outside of one."""
        self._refuse_copy()
        with self._lock:
            if self._depth:
                return action(*arguments)
            with self._named_errors:
                try:
                    return self._patiently(lambda: action(*arguments))
                finally:
                    self._end_look()

    def _attempted(self, action: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        connection = self._connected()
        connection.execute("SAVEPOINT attempted")
        try:
            value = action(*arguments)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            if not is_refusal(error):
                raise
            connection.execute("ROLLBACK TO attempted")
            connection.execute("RELEASE attempted")
            return None, str(error)
        connection.execute("RELEASE attempted")
        return value, None

    # -- transactions

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction("BEGIN IMMEDIATE")

    def snapshot(self) -> AbstractContextManager[None]:
        return self._transaction("BEGIN")  # nobody has to wait for a reader

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._refuse_copy()
        with self._lock:
            if self._depth:
                yield  # part of the one that is open
                return
            with self._named_errors:
                try:
                    # Within the try: an exception out of a signal handler may come right after it.
                    self._patiently(lambda: self._connected().execute(begin))
                    self._depth = 1
                    yield
                    self._tell_changes()
                    self._connected().execute("COMMIT")
                except BaseException:
                    self._undo()
                    raise
                finally:
                    self._depth = 0
                    self._audience.clear()
                    self._end_look()
            left = self._left_behind()  # under the lock: the next thread notes its own
        self._tell(*left)

    def _left_behind(self) -> tuple[bool, list[Event]]:
        """What is told after the commit: whether a row became claimable, and what happened."""
        wake, self._pending_made = self._pending_made, False
        told, self._events = self._events, []
        return wake, told

    def _tell(self, wake: bool, told: list[Event]) -> None:
        if wake:
            self._wake()
        for event in told:
            self.events.emit(event)

    def _end_look(self) -> None:
        if self._fleeting:
            self.close()

    def _undo(self) -> None:
        self._pending_made = False
        self._events.clear()
        connection = self._connection
        # After a full disk or a failed write SQLite may have rolled back by itself.
        if connection is not None and connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

    def _patiently(self, action: Callable[[], Value]) -> Value:
        """Try while somebody else holds the database, moving the caller's beat, for a bounded time."""
        began = beaten = 0
        pause = TRY_FIRST
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                now = self.clock.monotonic_ns()
                began = began or now
                if now - began > LOCK_SECONDS * 1e9:
                    raise
                if now - beaten > BEAT_NS:
                    beaten = now
                    self.on_wait()
            self.clock.sleep(pause)
            pause = min(pause * 1.05, TRY_CAP)

    def _drop(self) -> None:
        """Start over with a new connection next time: the disk or file may be another by then."""
        if not self.in_memory and self._depth == 0:
            with suppress(sqlite3.Error):
                self.close()

    # -- waking

    def waker(self) -> Waker:
        if self.in_memory:
            return PollWaker()
        with suppress(OSError):
            os.close(made(self.path))
        waker = FileWaker(self.path)
        return waker if waker.fileno() is not None else PollWaker()

    def watcher(self) -> Waker:
        return self.waker()  # the log is written at every change

    def _wake(self) -> None:
        if not self.in_memory:
            touch(self.path)

    # -- the application

    def enqueue_one(self, job: NewJob) -> Job:
        self._refuse_copy()
        with self._lock:
            if self._depth or job.unique_key is not None:
                return super().enqueue_one(job)
            # A statement is a transaction by itself, with the writers' lock from its beginning.
            stored = self._run(self._enqueue_alone, job)
            self._enqueued(stored.id, job)
            left = self._left_behind()
        self._tell(*left)
        return stored

    def _enqueue_alone(self, job: NewJob) -> Job:
        row = new_rows([(None, job)], self.clock.now_ms())
        plain = repeated(self._statements["enqueue_alone"], 1)
        cursor = self._connected().execute(plain, row)
        if cursor.rowcount != 1 or cursor.lastrowid is None:
            raise self._left_out()
        return new_job_of(cursor.lastrowid, row, self.payload)

    def _left_out(self) -> RowRefused:
        return RowRefused(f"{self.path} left the job out: a trigger on the table jobs skips it")

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        with self.transaction():
            answer: list[tuple[int, bool]] = []
            for start in range(0, len(jobs), INSERTED):
                answer += self._enqueue_page(jobs[start : start + INSERTED])
            return answer

    def _enqueue_page(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        page = list(enumerate(jobs, self._rows("reserve", {})[0][0] + 1))
        made, refused = self._attempted(self._insert, page)
        if refused is not None:
            # One of them; or a trigger of theirs enqueues too, and has taken one of these ids.
            return super().enqueue(jobs)
        answer: list[tuple[int, bool]] = []
        for number, job in page:
            if number in made:
                self._enqueued(number, job)
                answer.append((number, True))
            else:  # its key is held, or was a moment ago
                each = self._enqueue(job)
                answer.append((each.id, each.row is not None))
        return answer

    def _insert(self, page: list[tuple[int, NewJob]]) -> set[int]:
        """The ids that were inserted; two statements are prepared, of one row and of a full page."""
        execute, now = self._connected().execute, self.clock.now_ms()
        parts = [page] if len(page) == INSERTED else [[each] for each in page]
        statement = repeated(self._statements["enqueue_many"], len(parts[0]))
        if any(job.unique_key is not None for _number, job in page):
            # What a held key leaves out is seen by nothing else: a trigger may put a row under its id.
            statement += " RETURNING id"
            return {
                row[0]
                for part in parts
                for row in execute(statement, new_rows(part, now)).fetchall()
            }
        inserted = sum(execute(statement, new_rows(part, now)).rowcount for part in parts)
        if inserted < len(page):
            raise self._left_out()
        return {number for number, _job in page}

    # -- workers

    def _turn(self, *asked: Any, **named: Any) -> Turn:
        with self.transaction():
            # Within it: a connection that has been idle may have slept through a migration.
            self.check_schema()
            return super()._turn(*asked, **named)

    def _succeed_all(self, records: list[Record], forget: bool) -> int:
        if forget:
            return super()._succeed_all(records, forget)
        paged = len(records) - len(records) % SETTLED
        pages = [records[start : start + SETTLED] for start in range(0, paged, SETTLED)]
        changed = sum(map(self._succeed_page, pages))
        return changed + super()._succeed_all(records[paged:], forget)

    def _succeed_page(self, page: list[Record]) -> int:
        statement = repeated(self._statements["succeed_many"], SETTLED)
        return self._connected().execute(statement, ended_rows(page, self.clock.now_ms())).rowcount

    # -- upkeep

    def checkpoint(self) -> None:
        """Carry the log into the database while it is small, so that no writer has to."""
        if self._checkpoint.due():
            with self._lock, self._named_errors:
                self._checkpoint.step(self._connected())


_abandoned: list[sqlite3.Connection] = []  # copies of another process's handles: never closed


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _schema_number(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _apply_migrations(connection: sqlite3.Connection) -> None:
    """Each numbered file in one transaction with the record that it ran (sqlite-utils does both)."""
    # Imported here: only the first start of a database or a release needs it.
    from sqlite_utils import Database, Migrations  # noqa: PLC0415

    migrations = Migrations("jobvisor")
    folder = resources.files("jobvisor.jobs.store").joinpath("migrations", "sqlite")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            migrations(name=file.name.removesuffix(".sql"))(_migration(file.read_text("utf-8")))
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
