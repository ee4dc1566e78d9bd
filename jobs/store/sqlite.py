"""SQLite: the connection, its errors and its transactions; the verbs are in relational.py.

Facts this file is built on (measured, or from SQLite's own pages):
every write begins with BEGIN IMMEDIATE, because a read that turns into a write cannot wait for a lock;
a connection never crosses a fork, and closing an inherited one would drop its owner's POSIX locks;
`synchronous=FULL` makes a commit survive power loss, NORMAL only the death of processes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import ForkedStore, IllegalMove, RowRefused
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.job import Job, NewJob
from jobvisor.jobs.store.base import Record, Turn, Waker
from jobvisor.jobs.store.checkpoint import Checkpoint
from jobvisor.jobs.store.enqueueing import keys_of, needs_look
from jobvisor.jobs.store.fault import NamedFaults, is_refusal
from jobvisor.jobs.store.file import DatabaseFile, readable
from jobvisor.jobs.store.page import (
    INSERTED,
    SETTLED,
    by_claim,
    ended_rows,
    new_rows,
    repeated,
    rows_on_terms,
    stored_of,
)
from jobvisor.jobs.store.patience import Patience
from jobvisor.jobs.store.placing import Placing
from jobvisor.jobs.store.relational import RelationalStore
from jobvisor.jobs.store.room import Room
from jobvisor.jobs.store.rows import Row, new_job_of
from jobvisor.jobs.store.schema import Schema
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.store.wake import PollWaker, touch, waker_of

Value = TypeVar("Value")


class SqliteStore(Placing, RelationalStore):
    """The queue in one SQLite file, or in memory (`:memory:`) for one process."""

    one_machine = True
    _claims_tell_turns = True

    def __init__(
        self, path: str, *, durable: bool, prefix: str, clock: Clock, events: Events
    ) -> None:
        super().__init__(clock, events)
        self._file = DatabaseFile(path, durable=durable)
        self.in_memory = self._file.in_memory
        self.path = self._file.path
        self._statements = statements("sqlite", prefix)
        self._prefix = prefix
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._named_errors = NamedFaults(self.path, self._drop)
        self._patience = Patience(clock, self._beat)
        self._schema = Schema(
            self.path,
            prefix,
            clock,
            self._patience,
            self._named_errors,
            beat=self._beat,
            show=self._show_migration,
        )
        self._checkpoint = Checkpoint(self.path, clock)
        self._room = Room(self.path) if durable and not self.in_memory else None
        self.on_commit: Callable[[], None] = _nothing
        """Called in each transaction right before its COMMIT: who must not commit any more ends here."""

    # -- connection

    def open(self) -> None:
        self._refuse_copy()
        with self._lock:
            self._connected()

    def close(self) -> None:
        if self._pid != os.getpid():
            # A copied handle shares the log and its index with the process it was copied from.
            # And without the lock: a thread that held it at the fork is not in the copy.
            if self._connection is not None:
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
            self._schema.refuse_newer(self._connected())

    def _refuse_copy(self) -> None:
        """Before the lock is taken: a thread that held it at the fork is not in the copy."""
        if self._connection is not None and self._pid != os.getpid():
            raise ForkedStore(
                f"the connection to {self.path} was opened by process {self._pid} and used by its "
                f"copy {os.getpid()}; open a store of its own after a fork"
            )

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._new_connection()
            self._check_schema(connection)
            return connection
        self._refuse_copy()
        return self._connection

    def _new_connection(self) -> sqlite3.Connection:
        self._file.check_place()
        with self._named_errors:
            connection = self._connection = self._patience.take(self._file.connect)
        self._pid = os.getpid()
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        try:
            self._schema.bring_up(connection, writable=not self._file.is_only_readable())
        except BaseException:
            self._drop()  # or the next verb would take it for one whose schema is known to fit
            raise

    def migrate(self) -> tuple[int, int]:
        self._refuse_copy()
        with self._lock:
            connection = self._connection or self._new_connection()
            with self._named_errors:
                before = self._schema.number(connection)
            self._check_schema(connection)
            with self._named_errors:
                return before, self._schema.number(connection)

    def _beat(self) -> None:
        self.on_wait()  # whoever uses the store says what that is

    def _show_migration(self) -> None:
        self.on_migrate()

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
                    return self._patience.take(action, *arguments)
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
        except IllegalMove:
            connection.execute("ROLLBACK TO attempted")
            connection.execute("RELEASE attempted")
            raise
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
                    self._patience.take(lambda: self._connected().execute(begin))
                    self._depth = 1
                    yield
                    self._admit_freed()
                    self._tell_changes()
                    self.on_commit()
                    self._connected().execute("COMMIT")
                except BaseException:
                    self._undo()
                    raise
                finally:
                    self._depth = 0
                    self._forget_changes()
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
        if self._file.is_fleeting:
            self.close()

    def _undo(self) -> None:
        self._pending_made = False
        self._events.clear()
        self._pauses.forget()  # another change may come under the number of the one that is undone
        connection = self._connection
        # After a full disk or a failed write SQLite may have rolled back by itself.
        if connection is not None and connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

    def _drop(self) -> None:
        """Start over with a new connection next time: the disk or file may be another by then."""
        if not self.in_memory and self._depth == 0:
            with suppress(sqlite3.Error):
                self.close()

    # -- waking

    def waker(self) -> Waker:
        return PollWaker() if self.in_memory else waker_of(self.path)

    def watcher(self) -> Waker:
        return self.waker()  # the log is written at every change

    def _wake(self) -> None:
        if not self.in_memory:
            touch(self.path)

    # -- the application

    def enqueue_one(self, job: NewJob) -> Job:
        self._refuse_copy()
        with self._lock:
            if self._depth or job.unique_key is not None or job.terms is not None:
                return super().enqueue_one(job)
            # A statement is a transaction by itself, with the writers' lock from its beginning.
            stored = self._run(self._enqueue_alone, job)
            self._enqueued(stored.id, job)
            left = self._left_behind()
            if self._room is not None and self._connection is not None:
                self._room.committed(self._connection)
        self._tell(*left)
        return stored

    def _enqueue_alone(self, job: NewJob) -> Job:
        now = self.clock.now_ms()
        row = new_rows([(0, job)], now)
        plain = repeated(self._statements["enqueue_alone"], 1)
        cursor = self._connected().execute(plain, row)
        if cursor.rowcount != 1 or cursor.lastrowid is None:
            raise self._left_out()
        return new_job_of(cursor.lastrowid, job, stored_of(row, now), self.payload)

    def _left_out(self) -> RowRefused:
        return RowRefused(
            f"{self.path} left the job out: a trigger on the table {self._prefix}jobs skips it"
        )

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        with self.transaction():
            self._older.refuse(jobs, self._rows)
            answer: list[tuple[int, bool]] = []
            for start in range(0, len(jobs), INSERTED):
                answer += self._enqueue_page(jobs[start : start + INSERTED])
            return answer

    def _enqueue_page(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if self._has_keys_to_ask_for(jobs):
            return super().enqueue(jobs)
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
                answer.append((each.id, each.created))
        return answer

    def _has_keys_to_ask_for(self, jobs: Sequence[NewJob]) -> bool:
        """Whether one of them is not just inserted: a row of `uniques` holds its key, or is to hold it."""
        keyed = [job for job in jobs if job.unique_key is not None]
        if not keyed:
            return False
        return any(map(needs_look, keyed)) or bool(
            self._rows("held_keys", {"keys": keys_of(keyed)})
        )

    def _insert(self, page: list[tuple[int, NewJob]]) -> set[int]:
        """The ids that were inserted."""
        on_terms = [(number, job) for number, job in page if job.terms is not None]
        if not on_terms:
            return self._insert_by("enqueue_many", new_rows, page)
        made = self._insert_by("enqueue_many_on_terms", rows_on_terms, page)
        self._give_turns(
            number for number, job in on_terms if number in made and job.terms and job.terms.share
        )
        return made

    def _insert_by(
        self, name: str, values: Callable[..., list[Any]], page: list[tuple[int, NewJob]]
    ) -> set[int]:
        """By a statement that is prepared for one row and for a full page."""
        execute, now = self._connected().execute, self.clock.now_ms()
        parts = [page] if len(page) == INSERTED else [[each] for each in page]
        statement = repeated(self._statements[name], len(parts[0]))
        if any(job.unique_key is not None for _number, job in page):
            # What a held key leaves out is seen by nothing else: a trigger may put a row under its id.
            statement += " RETURNING id"
            return {
                row[0] for part in parts for row in execute(statement, values(part, now)).fetchall()
            }
        inserted = sum(execute(statement, values(part, now)).rowcount for part in parts)
        if inserted < len(page):
            raise self._left_out()
        return {number for number, _job in page}

    # -- workers

    def tell_waits(self) -> None:
        self._statements = statements("sqlite", self._prefix, waits=True)

    def _turn(self, *asked: Any, **named: Any) -> Turn:
        if self._connection is None:
            self._prepare(len(named["journal"]), named["whom"].of("claim"))
        with self.transaction():
            # Within it: a connection that has been idle may have slept through a migration.
            self.check_schema()
            return super()._turn(*asked, **named)

    def _prepare(self, ended: int, claim: str) -> None:
        """What a new connection does for its turns before it has the lock: nobody waits for it meanwhile.

        To read the schema and to compile the statements takes half a millisecond. And what a refused
        row would undo is kept in memory: a batch of 500 has more than the 64 KiB from which on SQLite
        writes it into a temporary file, of a new name each turn.
        """
        compiled = ["look", claim, *(["succeed_many"] if ended >= SETTLED else [])]
        with self._lock:
            connection = self._connected()
            connection.execute("PRAGMA temp_store = MEMORY")
            for name in compiled:
                # The module has no call for it; without its values a statement is compiled, kept, not run.
                with suppress(sqlite3.Error):
                    connection.execute(self._compiled(name))

    def _compiled(self, name: str) -> str:
        statement = self._statements[name]
        return repeated(statement, SETTLED) if name == "succeed_many" else statement

    def _claim(self, *asked: Any, careful: bool, **named: Any) -> list[Row]:
        connection = self._connected()
        if not careful:
            # Half of the time of `readable`; of bytes that are no UTF-8 the careful turn makes a text.
            connection.text_factory = str
        try:
            return super()._claim(*asked, careful=careful, **named)
        finally:
            connection.text_factory = readable

    def _succeed_all(self, records: list[Record], forget: bool) -> int:
        if forget:
            return super()._succeed_all(records, forget)
        changed = 0
        rest: list[Record] = []
        for each in by_claim(records):
            paged = len(each) - len(each) % SETTLED
            pages = [each[start : start + SETTLED] for start in range(0, paged, SETTLED)]
            changed += sum(map(self._succeed_page, pages))
            rest += each[paged:]
        return changed + super()._succeed_all(rest, forget)

    def _succeed_page(self, page: list[Record]) -> int:
        statement = self._compiled("succeed_many")
        return self._connected().execute(statement, ended_rows(page, self.clock.now_ms())).rowcount

    # -- upkeep

    def checkpoint(self) -> None:
        """Carry the log into the database while it is small, so that no writer has to."""
        if self._checkpoint.due():
            with self._lock, self._named_errors:
                self._checkpoint.step(self._connected())


def _nothing() -> None:
    """Who uses the store may commit."""


_abandoned: list[sqlite3.Connection] = []  # copies of another process's handles: never closed
