"""PostgreSQL: the connection, its errors, its transactions and its waking; the verbs are in relational.py.

Facts this file is built on (measured, or from PostgreSQL's own pages):
nothing may depend on the session, because a pooler in transaction mode gives each transaction another
one: what is set there (time limits, plans, LISTEN, prepared statements) is only used without one;
a COMMIT whose answer is lost has happened or not, and `pg_xact_status` knows, until a crash gives
the number out again; a socket whose other end is gone says nothing for hours, so every answer has a
limit of our own.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8Dumper

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import (
    ForkedStore,
    RowRefused,
    SchemaError,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.events import Events
from jobvisor.jobs.job import Claimed, Job, NewJob
from jobvisor.jobs.log import say
from jobvisor.jobs.store.arrays import columns
from jobvisor.jobs.store.base import NOTHING, Applied, JobRow, Life, Record, Rest, Turn, Waker
from jobvisor.jobs.store.bulk import copy, is_ordinary
from jobvisor.jobs.store.connection import PatientConnection, connection_parameters
from jobvisor.jobs.store.enqueueing import carried_out, enqueueing
from jobvisor.jobs.store.front import Front
from jobvisor.jobs.store.relational import PROMOTED_AT_ONCE, RelationalStore
from jobvisor.jobs.store.rows import Changed, in_order, job_of
from jobvisor.jobs.store.settlement import SUCCEED, last_words, resting, settling, successes, summed
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.store.wake import PollWaker
from jobvisor.jobs.url import shown_url

SCHEMA = 2  # the number of the newest migration this release knows
OLDEST_SERVER = 130_000  # pg_xact_status and gen_random_uuid without an extension
LOOK_UP_SECONDS = 10.0  # how long the fate of a lost COMMIT is asked for
LOOK_UP_EVERY = 0.25
TRUSTED_NS = 1_000_000_000  # after a rest this long a connection may be dead without a sign
DEADLOCKS_MAX = 5  # tries of a turn that another transaction stood in the way of
ANSWER_GRACE = 2.0  # seconds the server has, beyond its own limit, to say that it was passed
COPIED_AT_ONCE = 100_000  # rows of a bulk enqueue in one statement: half a second of the server's
ROWS_AT_ONCE = 2_000  # of a bulk enqueue in one statement: some 400 kB
MEASURED_CLAIM = 50  # rows: for fewer the two looks at the clock cost more than they tell
LOOK_AGAIN_NS = 20_000_000  # after the 5 ms in which nobody else notifies, and a commit
MIGRATION_SECONDS = 3600  # a large table may be written anew, behind another migration
SNAPSHOT_SECONDS = 600  # an export may read a whole table for a page, or write to a slow pipe

Value = TypeVar("Value")

# https://www.postgresql.org/docs/current/errcodes-appendix.html; classes have two characters
_LATER = {
    "08001": "it cannot be reached",
    "08": "the connection broke",
    "25": "it is read-only or ended the transaction",
    "40": "another transaction stood in the way",
    "53": "it is out of connections, memory or disk",
    "55": "somebody else holds it",
    "57": "it was interrupted or is going down",
    "58": "its disk reports an error",
    "XX": "it reports an internal error",
}
_NEVER = {
    "28": "it refuses this user; look at the user, password and pg_hba.conf",
    "3D": "there is no such database; create it first",
    "42501": "this user lacks a privilege",
}
_REFUSALS = {
    "28": r"authentication failed|no pg_hba.conf entry|no password supplied|"
    r"role \".*\" (does not exist|is not permitted)",
    "3D": r"database \".*\" does not exist|no such database",
}
_FOREIGN = ("3F000", "42P01", "42703", "42883")  # no such schema, table, column, function


class PostgresStore(RelationalStore):
    """The queue in one schema of a PostgreSQL database, for any number of machines."""

    one_machine = False

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        notify: bool,
        patience: float,
        idle: float,
        application: str,
        clock: Clock,
        events: Events,
    ) -> None:
        """`patience` is how many seconds one answer may take, `idle` what may pass between two."""
        super().__init__(clock, events)
        self.place = shown_url(url)
        self.schema = schema
        self._notify = notify
        self._patience = patience
        self._idle = idle
        self._parameters = connection_parameters(url, application, patience)
        self._names = {
            "schema": sql.Identifier(schema),
            "channel": sql.Literal(schema),
            "jobs_id": sql.Literal(f'"{schema}".jobs_id_seq'),
            "woken": sql.Literal(f'"{schema}".woken'),
        }
        self._number = self._worded(_NUMBER).encode()
        self._statements = {
            name: self._worded(text).encode() for name, text in statements("postgres").items()
        }
        self._connection: PatientConnection | None = None
        self._pid = 0
        self._depth = 0
        self._begun = False
        self._reading = False
        # Its number and the incarnation of the server that gave it out.
        self._transaction_id: tuple[str, str | None] | None = None
        self._answered_ns = 0  # when a lone enqueue, or what was in its place, was answered last
        self._local = b""  # what each transaction sets for itself where the session is not ours
        self._listening = False
        self._heard = False
        self._lock = threading.RLock()
        self._front = Front(clock)
        self._entered = 0  # the owner that has a row, as this store has seen to

    def _worded(self, text: str) -> str:
        # SQL.format wants literal text, and this is: from our own files.
        return sql.SQL(cast("Any", text)).format(**self._names).as_string(None)

    # -- connection

    def open(self) -> None:
        self._refuse_copy()
        with self._lock, self._named_errors():
            self._connected()

    def close(self) -> None:
        if self._connection is not None and self._pid != os.getpid():
            # A copied handle is the same conversation with the server: only forgotten.
            _abandoned.append(self._connection)
            self._connection = None
            return
        # Under the lock: another thread may be in the middle of a transaction.
        with self._lock:
            connection, self._connection = self._connection, None
            self._listening = self._heard = False
            if connection is not None:
                connection.close()

    def step_aside(self) -> None:
        """A function of a user cannot break a socket of ours but by closing it; see `descriptors`."""

    def descriptors(self) -> list[int]:
        connection = self._connection
        return [] if connection is None or connection.closed else [connection.fileno()]

    def _refuse_copy(self) -> None:
        """Before the lock is taken: a thread that held it at the fork is not in the copy."""
        if self._connection is not None and self._pid != os.getpid():
            raise ForkedStore(
                f"the connection to {self.place} was opened by process {self._pid} and used by its "
                f"copy {os.getpid()}; open a store of its own after a fork"
            )

    def _connected(self) -> PatientConnection:
        self._refuse_copy()
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        if self._begun:
            # Never a new connection within a transaction: the rest of it would run outside of it.
            raise psycopg.OperationalError("the connection was lost within a transaction")
        connection = self._greeted()
        try:
            self._check_meta(connection)
            connection.execute(self._worded(_INCARNATION).encode())
        except BaseException:
            self.close()
            raise
        return connection

    def _greeted(self) -> PatientConnection:
        """A new connection, set up for a server or for the pooler before it."""
        self.close()
        self.on_wait()
        connection = PatientConnection.connect(
            **self._parameters, autocommit=True, prepare_threshold=None
        )
        connection.beat, connection.patience = self._beat, self._patience + ANSWER_GRACE
        connection.clock = self.clock
        connection.adapters.register_dumper(int, Int8Dumper)  # one type, so one prepared statement
        self._connection, self._pid = connection, os.getpid()
        self._answered_ns = self.clock.monotonic_ns()
        if connection.info.server_version < OLDEST_SERVER:
            version = connection.info.parameter_status("server_version")
            self.close()
            raise StoreRefused(f"{self.place} is PostgreSQL {version}; jobvisor needs 13 or newer")
        connection.add_notify_handler(self._note_heard)
        row = connection.execute(b"SELECT pg_backend_pid()").fetchone()
        assert row is not None
        settings = _LIMITS | {
            "statement_timeout": str(int(self._patience * 1000)),
            "lock_timeout": str(int(self._patience * 500)),
            # The locks of a machine that stands still or is gone are held no longer.
            "idle_in_transaction_session_timeout": str(int(self._idle * 1000)),
        }
        if not self._notify:
            settings["jobvisor.notify"] = "off"
        if row[0] == connection.info.backend_pid:
            connection.prepare_threshold = 5
            connection.execute(_set(settings | _PLANS, local=False))
            self._local = b""
        else:
            # Somebody stands between: the next transaction may be another session's.
            self._local = _set(settings | _PLANS, local=True)
        return connection

    @property
    def pooled(self) -> bool:
        """Whether a pooler stands before the server, as far as the last connection told."""
        return bool(self._local)

    def _beat(self) -> None:
        self.on_wait()

    def _note_heard(self, _notification: psycopg.Notify) -> None:
        self._heard = True

    # -- schema

    def _check_meta(self, connection: PatientConnection) -> None:
        try:
            rows = connection.execute(self._worded(_META).encode()).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise SchemaError(
                f"{self.place} has no tables of jobvisor in the schema {self.schema}; "
                f"run `jobvisor migrate`"
            ) from error
        meta: dict[str, str] = dict(rows)
        if meta.keys() != {"schema", "oldest_schema"}:
            raise SchemaError(
                f"{self.place}: the schema {self.schema} has a table meta that is another program's; "
                f"name another with [database] schema"
            )
        number, oldest = int(meta["schema"]), int(meta["oldest_schema"])
        if number < SCHEMA:
            raise SchemaError(
                f"{self.place} has schema {number}, and this release needs {SCHEMA}; "
                f"run `jobvisor migrate`"
            )
        if oldest > SCHEMA:
            raise SchemaError(
                f"{self.place} has schema {number}, and this release knows {SCHEMA}; "
                f"install a newer jobvisor"
            )

    def check_schema(self) -> None:
        with self._lock, self._named_errors():
            self._check_meta(self._connected())

    def migrate(self) -> tuple[int, int]:
        self._refuse_copy()
        with self._lock, self._named_errors():
            connection = self._greeted()
            try:
                before = number = self._schema_number(connection)
                for file in _migrations():
                    if int(file.name[:4]) > number:
                        number = self._migrate(connection, file)
                self._check_meta(connection)
                connection.patience = self._patience + ANSWER_GRACE
            except BaseException:
                self.close()  # or the next verb would take it for one whose schema is known to fit
                raise
        return before, max(before, number)

    def _migrate(self, connection: PatientConnection, file: Any) -> int:
        """One numbered file and the record that it ran, in one transaction of one process at a time."""
        number = int(file.name[:4])
        with connection.transaction():
            connection.patience = MIGRATION_SECONDS
            connection.execute(_set({"statement_timeout": "0", "lock_timeout": "0"}, local=True))
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [self.schema]
            )
            if self._schema_number(connection) >= number:
                return number  # somebody else was first
            connection.execute(self._worded("CREATE SCHEMA IF NOT EXISTS {schema}").encode())
            connection.execute(self._worded(file.read_text("utf-8")).encode())
            told = {"number": str(number)}
            connection.execute(self._worded(_MIGRATED).encode(), told)
        say("migrated", version=number)
        return number

    def _schema_number(self, connection: PatientConnection) -> int:
        # Not by to_regclass: a session that has looked once in vain remembers that, and would not see
        # what another migration has committed while this one waited for the lock.
        known = connection.execute(_KNOWN, [self.schema]).fetchone()
        if known is None:
            return 0
        meta: dict[str, str] = dict(connection.execute(self._worded(_META).encode()).fetchall())
        return int(meta.get("schema", SCHEMA))  # somebody else's table is refused after this

    # -- statements

    def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[TupleRow]:
        return self._run(lambda: self._execute(name, parameters).fetchall())

    def _change(self, name: str, parameters: Mapping[str, Any]) -> int:
        return self._run(lambda: self._execute(name, parameters).rowcount)

    def _change_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        return self._change(*_at_once(name, parameters))

    def _run(self, action: Callable[[], Value]) -> Value:
        self._refuse_copy()
        with self._lock:
            if self._depth:
                return action()
            with self._named_errors():
                return self._once_more(action)

    def _once_more(self, action: Callable[[], Value]) -> Value:
        """A connection that was found dead has done nothing: a new one, once."""
        fresh = self._connection is None
        try:
            return action()
        except psycopg.Error:  # of any class: it depends on where libpq was when it noticed
            if fresh or self._connection is None or not self._connection.closed:
                raise
            self._begun = False
            return action()

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[TupleRow]:
        if self._depth and not self._begun:
            return self._once_more(lambda: self._begin_with(self._statements[name], parameters))
        return self._ask(name, parameters)

    def _begin_with(
        self, statement: bytes, parameters: Mapping[str, Any] | None = None
    ) -> psycopg.Cursor[TupleRow]:
        """BEGIN goes with the first statement of a transaction, in one round trip."""
        connection = self._connected()
        with connection.pipeline():
            self._begin(connection)
            number = connection.execute(self._number)
            cursor = connection.execute(statement, parameters)
        self._transaction_id = number.fetchall()[0]
        return cursor

    def _begin(self, connection: PatientConnection) -> None:
        self._begun = True
        self._transaction_id = None  # an older one's would tell a lie about this one
        connection.execute(_SNAPSHOT if self._reading else b"BEGIN")
        if self._local:
            connection.execute(self._local)

    def _attempted(self, action: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        self._bare(b"SAVEPOINT attempted")
        try:
            value = action(*arguments)
        except _REFUSING as error:
            self._bare(b"ROLLBACK TO attempted")
            self._bare(b"RELEASE attempted")
            return None, str(error).partition("\n")[0]
        self._bare(b"RELEASE attempted")
        return value, None

    def _bare(self, statement: bytes) -> None:
        if self._begun:
            self._connected().execute(statement)
        else:
            self._once_more(lambda: self._begin_with(statement))

    # -- transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._refuse_copy()
        with self._lock:
            if self._depth:
                yield  # part of the one that is open
                return
            with self._named_errors():
                try:
                    # Within the try: an exception out of a signal handler may come right after it.
                    self._depth = 1
                    yield
                    self._commit()
                except BaseException:
                    self._undo()
                    raise
                finally:
                    self._depth = 0
                    self._begun = False
            # Taken under the lock: the next thread's transaction notes its own.
            self._pending_made = False
            told, self._events = self._events, []
        for event in told:
            self.events.emit(event)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._refuse_copy()
        with self._lock:
            if self._depth:
                yield
                return
            self._reading = True
            try:
                with self.transaction():
                    # It holds no lock that anybody waits for, and its reader may be slow.
                    self._bare(_set(_SNAPSHOT_LIMITS, local=True))
                    self._connected().patience = SNAPSHOT_SECONDS + ANSWER_GRACE
                    yield
            finally:
                self._reading = False
                if self._connection is not None:
                    self._connection.patience = self._patience + ANSWER_GRACE

    def _commit(self) -> None:
        if not self._begun:
            return
        connection = self._connected()
        try:
            if self._pending_made:
                connection.execute(self._statements["wake"])
            ended = connection.execute(b"COMMIT")
        except psycopg.Error as error:
            if not connection.closed:
                raise
            self._look_up(error)
            return
        self._check_committed(ended)

    def _check_committed(self, ended: psycopg.Cursor[TupleRow]) -> None:
        # A COMMIT of a transaction that has failed is answered by ROLLBACK, and no error.
        if ended.statusmessage != "COMMIT":
            raise StoreUnavailable(f"{self.place}: the transaction was rolled back")

    def _look_up(self, error: Exception) -> None:
        """The answer to a COMMIT was lost: ask what became of it; returns if it was committed."""
        assert self._transaction_id is not None
        number, incarnation = self._transaction_id
        self._begun = False
        fate = self._worded(_FATE).encode()
        ends = self.clock.monotonic_ns() + int(LOOK_UP_SECONDS * 1e9)
        told: str | None = None
        while self.clock.monotonic_ns() < ends:
            with suppress(psycopg.Error):
                ((told,),) = self._greeted().execute(fate, [incarnation, number]).fetchall()
                if told == "committed":
                    return
                if told != "in progress":
                    break
            self.on_wait()
            self.clock.sleep(LOOK_UP_EVERY)
        raise StoreUnavailable(
            f"{self.place}: the connection broke at the commit, {_FATES.get(told, _UNKNOWN)}; "
            f"look, then try again"
        ) from error

    def _undo(self) -> None:
        self._pending_made = False
        self._events.clear()
        connection = self._connection
        if self._begun and connection is not None and not connection.closed:
            try:
                connection.execute(b"ROLLBACK")
            except psycopg.Error:
                connection.close()  # the server rolls back what it hears no more of

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """PostgreSQL's errors under our names, with the place they are about."""
        try:
            yield
        except psycopg.Error as error:
            # A connection that broke in the middle of a fetch is told of by a plain DatabaseError.
            broken = isinstance(error, _BROKEN)
            broken = broken or (self._connection is not None and self._connection.closed)
            code = error.sqlstate or ("08000" if broken else "")
            if code == "08000" and self._connection is None:
                code = _said(error)
            text = f"{self.place}: {{}} ({' '.join(str(error).split())[:500]})"
            later = _LATER.get(code) or _LATER.get(code[:2])
            if code == "0A000" and "cached plan" in str(error):
                later = "a plan went stale"
            never = _NEVER.get(code) or _NEVER.get(code[:2])
            if never:
                self._drop()
                raise StoreRefused(text.format(never)) from error
            if code in _FOREIGN:
                self._drop()
                raise SchemaError(
                    text.format("its tables are not those of this release; run `jobvisor migrate`")
                ) from error
            if later:
                self._drop()
                raise StoreUnavailable(text.format(later)) from error
            raise RowRefused(text.format("it refuses a row")) from error

    def _drop(self) -> None:
        """Start over with a new connection next time: the server may be another by then."""
        if self._depth == 0:
            with suppress(psycopg.Error):
                self.close()

    # -- the application

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        with self.transaction():
            ids = self._reserved(len(jobs))
            plain = [place for place, job in enumerate(jobs) if is_ordinary(job)]
            for start in range(0, len(plain), COPIED_AT_ONCE):
                self._copy(
                    [(ids[place], jobs[place]) for place in plain[start : start + COPIED_AT_ONCE]]
                )
            found = [(number, True) for number in ids]
            if len(plain) < len(jobs):
                self._enqueue_special(jobs, ids, found)
            if self.events.active:
                for (number, created), job in zip(found, jobs, strict=True):
                    if created:
                        self._enqueued(number, job)
        return found

    def enqueue_one(self, job: NewJob) -> Job:
        """In one round trip where a lost answer can be told from a connection that was dead before."""
        self._refuse_copy()
        with self._lock:
            if self._depth:
                return super().enqueue_one(job)
            with self._named_errors():
                made = self._enqueue_alone(job)
            told, self._events = self._events, []
        if made is None:
            return super().enqueue_one(job)
        for event in told:
            self.events.emit(event)
        return made

    def _enqueue_alone(self, job: NewJob) -> Job | None:
        """None, and nothing done, where it takes a transaction; a unique key that is held is such a case."""
        connection = self._connected()
        now = self.clock.monotonic_ns()
        if self.pooled or now - self._answered_ns > TRUSTED_NS or _has_arrived(connection):
            # After a rest it may be dead: within a transaction that is found out before anything is done.
            self._answered_ns = now
            return None
        nonce = secrets.randbits(63)
        try:
            cursor = self._ask("enqueue_alone", {**job._asdict(), "nonce": nonce})
        except psycopg.Error as error:
            if not connection.closed:
                raise
            number = self._look_for(nonce, connection.info.backend_pid, error)
            self._enqueued(number, job)
            return self.get(number)
        self._answered_ns = self.clock.monotonic_ns()
        row = cursor.fetchone()
        if row is None:
            return None
        number, state, run_at, created_at, expires_at = row
        self._enqueued(number, job)
        return job_of(
            JobRow(
                id=number, task=job.task, args=job.args, kwargs=job.kwargs, queue=job.queue,
                priority=job.priority, state=state, run_at=run_at, attempt=0,
                attempts_max=job.attempts_max, claims=0, losses=0, policy=job.policy,
                timeout_ms=job.timeout_ms, memory_bytes=job.memory_bytes,
                unique_key=job.unique_key, expires_at=expires_at, deferred=None,
                cancel_requested=0, owner=None, claim=None, created_at=created_at,
                claimed_at=None, started_at=None, finished_at=None, result=None, error=None,
                progress=None,
            ),
            self.payload,
        )  # fmt: skip

    def _look_for(self, nonce: int, backend: int, error: Exception) -> int:
        """The answer to a lone enqueue was lost: the id of the job, if it was stored.

        While the process that was to store it is still there, it may come yet.
        """
        ends = self.clock.monotonic_ns() + int(LOOK_UP_SECONDS * 1e9)
        gone = False
        while self.clock.monotonic_ns() < ends:
            with suppress(psycopg.Error):
                self._greeted()
                over = gone
                rows = self._ask("enqueued_alone", {"nonce": nonce}).fetchall()
                if rows:
                    return int(rows[0][0])
                if over:
                    break
                ((gone,),) = self._connected().execute(_GONE, [backend]).fetchall()
                if gone:
                    continue  # once more: it may have been stored between the two
            self.on_wait()
            self.clock.sleep(LOOK_UP_EVERY)
        fate = (
            "and the job is not there: it was not stored, or is done and gone" if gone else _UNKNOWN
        )
        raise StoreUnavailable(
            f"{self.place}: the connection broke at the commit, {fate}; look, then try again"
        ) from error

    def _reserved(self, count: int) -> list[int]:
        ((told,),) = self._rows("reserve", {"count": count})
        return [int(number) for number in told.split(",")]

    def _copy(self, rows: list[tuple[int, NewJob]]) -> None:
        stored = copy(self._connected().cursor(), self._statements["copy"], rows)
        if stored < len(rows):
            raise StoreRefused(
                f"{self.place} stored {stored} of {len(rows)} jobs without an error; "
                f"look for a trigger on {self.schema}.jobs that leaves rows out"
            )

    def _enqueue_special(
        self, jobs: Sequence[NewJob], ids: list[int], found: list[tuple[int, bool]]
    ) -> None:
        """Those for later, for a time or with a unique key; each of these may be found held."""
        # By their keys: two of these at once then wait for each other in one order.
        order = sorted(
            (place for place, job in enumerate(jobs) if not is_ordinary(job)),
            key=lambda place: jobs[place].unique_key or "",
        )
        for start in range(0, len(order), ROWS_AT_ONCE):
            places = order[start : start + ROWS_AT_ONCE]
            values = [{"id": ids[place], **jobs[place]._asdict()} for place in places]
            made = {row[0] for row in self._rows("enqueue_many", columns(values))}
            for place in places:
                if ids[place] not in made:
                    number, row = carried_out(enqueueing(jobs[place]), self._rows)
                    found[place] = number, row is not None

    def _enqueued(self, number: int, job: NewJob) -> None:
        if self.events.active:
            self._moved("enqueue", number, Changed("", job.task, job.queue, 0, job.attempts_max))
        # Waking is the insert's own, by a trigger.

    def _skip_ids(self, greatest: int) -> None:
        self._rows("skip_ids", {"greatest": greatest})

    # -- workers

    def turn(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record] = (),
        rest: Rest | None = None,
        register: bool = False,
        forget_succeeded: bool = False,
    ) -> Turn:
        asked: dict[str, Any] = {
            "queues": queues, "limit": limit, "journal": journal, "rest": rest,
            "register": register, "forget_succeeded": forget_succeeded,
        }  # fmt: skip
        for left in range(DEADLOCKS_MAX, -1, -1):
            try:
                if self._depth:
                    break
                return self._turn_at_once(life, claim, **asked)
            except (RowRefused, OverflowError, UnicodeError):
                break  # one row the database refuses must not block the others
            except StoreUnavailable as error:
                if left == 0 or not isinstance(error.__cause__, _IN_THE_WAY):
                    raise
        with self.transaction():
            self._unlisten()
            hold = "hold_owner_alone" if rest is not None else "hold_owner"
            known = self._entered != life.owner or self._rows(hold, {"owner": life.owner})
            asked |= {} if known else {"limit": 0}
            return self._turn(life, claim, careful=True, **asked)

    def look(self, queues: Sequence[str]) -> tuple[bool, int | None]:
        with self._lock, self._named_errors():
            return self._once_more(lambda: self._look(queues))

    def _look(self, queues: Sequence[str]) -> tuple[bool, int | None]:
        """All that an idle worker asks, in one round trip: it is woken once for it."""
        with self._connected().pipeline():
            pending = [self._ask("has_pending", {"queue": queue}) for queue in queues]
            due = self._ask("next_due", {})
        if any(cursor.fetchall()[0][0] for cursor in pending):
            return True, 0
        row = due.fetchone()
        return (False, None) if row is None else (row[0] <= 0, max(row[0], 0))

    def _turn_at_once(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record],
        rest: Rest | None,
        register: bool,
        forget_succeeded: bool,
    ) -> Turn:
        """The whole turn in one round trip; a second one only where runs failed, for their history."""
        ordered = sorted(journal, key=lambda record: record.job)  # rows are locked in id order
        succeeded = [record for record in ordered if record.verb == SUCCEED]
        others = [(record, *settling(record)) for record in ordered if record.verb != SUCCEED]
        told = last_words(ordered, forget=forget_succeeded)
        self._refuse_copy()
        if register:
            # Before the first claim, not with it: what arrives late from a life that has died and was
            # settled meanwhile is then a row of `owners`, and never a job that nobody will run.
            with self.transaction():
                self._change("add_owner", life._asdict())
            self._entered = life.owner
        entered = self._entered == life.owner
        with self.transaction():
            connection = self._connected()
            settled, released = None, None
            moved: list[psycopg.Cursor[TupleRow]] = []
            claims: list[psycopg.Cursor[TupleRow]] = []
            times: list[psycopg.Cursor[TupleRow]] = []
            with connection.pipeline():
                self._begin(connection)
                if self._listening:
                    # Nobody reads this connection while a job runs; what is not read would pile up.
                    connection.execute(b"UNLISTEN *")
                if entered:
                    hold = "hold_owner_alone" if rest is not None else "hold_owner"
                    self._ask(hold, {"owner": life.owner})
                if told:
                    self._ask(*_at_once("progress", told))
                if succeeded:
                    name, values = successes(succeeded, forget=forget_succeeded)
                    settled = self._ask(*_at_once(name, values))
                for _record, name, parameters, _outcome in others:
                    moved.append(self._ask(name, parameters))
                if rest is not None:
                    released = self._ask("release_rest", resting(life.owner, rest))
                if limit:
                    self._ask("promote", {"limit": PROMOTED_AT_ONCE})
                    measured = limit >= MEASURED_CLAIM
                    times += [connection.execute(_TIME)] if measured else []
                    for number, queue in enumerate(queues):
                        wanted = {
                            "owner": life.owner, "claim": claim, "queue": queue, "limit": limit,
                            "first": number == 0, "entered": entered,
                        }  # fmt: skip
                        name, where = self._front.start(queue)
                        claims.append(self._ask(name, wanted | where))
                    times += [connection.execute(_TIME)] if measured else []
                ends_here = not others and rest is None
                # Else the number that its COMMIT is looked up by, should the answer be lost.
                asked = connection.execute(b"COMMIT" if ends_here else self._number)
            if ends_here:
                self._begun = False
                self._check_committed(asked)
            else:
                self._transaction_id = asked.fetchall()[0]
            lost, changed = [], 0
            for (record, _name, _parameters, outcome), cursor in zip(others, moved, strict=True):
                row = cursor.fetchone()
                if row is None:
                    lost.append(record)
                else:
                    changed += 1
                    self._settled(record, life, outcome, Changed._make(row))
            for row in released.fetchall() if released is not None else ():
                self._moved("release", row[0], Changed._make(row[1:]))
            jobs: list[Claimed] = []
            for cursor in claims:
                jobs += in_order(cursor.fetchall())
            if limit:
                begun, ended_at = (cursor.fetchall()[0][0] for cursor in times) if times else (0, 0)
                self._front.note(jobs, limit, (ended_at - begun) * 1000)
        self._listening = self._heard = False
        applied = Applied(changed, self._lost(lost) if lost else [], [])
        if settled is not None:
            missed = settled.rowcount < len(succeeded)
            more = Applied(settled.rowcount, self._lost(succeeded) if missed else [], [])
            applied = summed(applied, more)
        return Turn(jobs, applied if journal else NOTHING)

    def _ask(self, name: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[TupleRow]:
        statement = self._statements[name]
        return self._connected().execute(statement, parameters, prepare=_PREPARED.get(name))

    # -- waking

    def waker(self) -> Waker:
        return ListenWaker(self)

    def watcher(self) -> Waker:
        return PollWaker()  # a NOTIFY tells of rows to claim, not of those that ended

    def listens(self) -> bool:
        """Whether a NOTIFY reaches this connection now."""
        connection = self._connection
        return self._listening and connection is not None and not connection.closed

    def listen(self) -> bool:
        """Begin to listen, where that is possible and not yet so; whether it was begun."""
        if self.listens() or not self._notify:
            return False
        with self._lock, self._named_errors():
            connection = self._connected()
            if self.pooled:
                return False
            self._once_more(lambda: self._listen(connection))
        return True

    def _listen(self, _connection: PatientConnection) -> None:
        self._connected().execute(self._worded("LISTEN {schema}").encode())
        self._listening = True

    def _unlisten(self) -> None:
        if self.listens():
            self._bare(b"UNLISTEN *")
            self._listening = self._heard = False

    def heard(self) -> bool:
        """Whether a NOTIFY has come since this was last asked."""
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                connection.pgconn.consume_input()
                while connection.pgconn.notifies() is not None:
                    self._heard = True
            except psycopg.OperationalError:
                connection.close()
                return True  # the next look finds out what is the matter
        heard, self._heard = self._heard, False
        return heard

    # -- upkeep

    def checkpoint(self) -> None:
        """Autovacuum and the checkpointer are the server's own."""


class ListenWaker(Waker):
    """LISTEN on the store's own connection, begun with each rest and ended with the turn after it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._again_ns = 0

    def fileno(self) -> int | None:
        return self._store.descriptors()[0] if self._store.listens() else None

    def drain(self) -> float | None:
        now = self._store.clock.monotonic_ns()
        if self._store.listen():
            return 0.0  # what was enqueued before is not told
        if self._store.listens() and self._store.heard():
            # Others who enqueue within the next milliseconds do not notify again.
            self._again_ns = now + LOOK_AGAIN_NS
            return 0.0
        if self._again_ns:
            again, self._again_ns = self._again_ns, 0
            return max(0.0, (again - now) / 1e9)
        return None

    def close(self) -> None:
        """The connection is the store's."""


_abandoned: list[PatientConnection] = []  # copies of another process's handles: never closed

_BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)
# The two limits are passed by a row too: JSON nested thousands deep, a key too long for its index.
_REFUSING = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException,
             psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
             OverflowError, UnicodeError)  # fmt: skip
_IN_THE_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

#: A crash gives out again the numbers that never reached the disk, and a server that takes over its own:
#: what a number became is asked only of the incarnation that gave it out.
_FATE = """
SELECT CASE WHEN {schema}.incarnation(false) = %s THEN pg_xact_status(%s::text::xid8) ELSE 'lost' END
"""
_FATES: dict[str | None, str] = {
    "aborted": "nothing was changed",
    "lost": "and the server has crashed or another has taken over since: whether it was done is not known",
}
_UNKNOWN = "whether it was done is not known"
_GONE = b"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
_NUMBER = "SELECT pg_current_xact_id()::text, {schema}.incarnation(false)"
_INCARNATION = "SELECT {schema}.incarnation(true)"
_TIME = b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_KNOWN = b"""
SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'meta'
"""
_META = "SELECT key, value FROM {schema}.meta WHERE key IN ('schema', 'oldest_schema')"
_MIGRATED = "UPDATE {schema}.meta SET value = %(number)s WHERE key = 'schema'"

#: On every connection or, behind a pooler, in every transaction. Without these a machine that
#: vanished would hold its locks for two hours, until the server's kernel asks for it.
_LIMITS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_SNAPSHOT = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SNAPSHOT_LIMITS = dict.fromkeys(
    ("statement_timeout", "idle_in_transaction_session_timeout"), str(SNAPSHOT_SECONDS * 1000)
)
#: Every statement finds its rows by an index, in its order. A prepared plan that was made while the
#: table was small would scan it for as long as its statistics are old, or take a limit it does not know
#: for a tenth of the table and sort all of it; compiling plans costs more than running them.
_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
#: Planned anew each time, with the length of its arrays: a join has no plan that is right for all.
_PREPARED = {"succeed_many": False, "succeed_and_forget_many": False}
#: Over arrays for a single row too: their pages are as large as can be.
_ALWAYS_MANY = ("import", "import_attempt")


def _said(error: psycopg.Error) -> str:
    """What kind of refusal a failed connection was: libpq passes on the server's words, not its code.

    Each address that was tried has a line. Where they differ, or the server speaks another language,
    it is taken for one that may be better later.
    """
    lines = [line for line in str(error).splitlines() if line.startswith("- ")] or [str(error)]
    for code, words in _REFUSALS.items():
        if all(re.search(words, line) for line in lines):
            return code
    return "08001"


def _has_arrived(connection: PatientConnection) -> bool:
    """Whether something was said that nobody has asked for, such as a farewell."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _set(settings: Mapping[str, str], *, local: bool) -> bytes:
    calls = sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, {})").format(name, value, local)
        for name, value in settings.items()
    )
    return sql.SQL("SELECT {}").format(calls).as_bytes(None)


def _at_once(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """One statement for many rows, over arrays."""
    if name in _ALWAYS_MANY:
        return name, columns(rows)
    return (name, rows[0]) if len(rows) == 1 else (f"{name}_many", columns(rows))


def _migrations() -> list[Any]:
    folder = resources.files("jobvisor.jobs.store").joinpath("migrations", "postgres")
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(files, key=lambda file: file.name)
