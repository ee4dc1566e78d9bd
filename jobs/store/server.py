"""A store on a PostgreSQL server: its connection, its named statements, its transactions.

Facts this file is built on (measured, or from PostgreSQL's own pages):
nothing may depend on the session, because a pooler in transaction mode gives each transaction another
one: what is set there (time limits, plans, LISTEN, prepared statements) is only used without one;
a COMMIT whose answer is lost has happened or not, and `pg_xact_status` knows, until a crash gives
the number out again; a socket whose other end is gone says nothing for hours, so every answer has a
limit of our own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.generators import fetch_many
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8Dumper

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import (
    ForkedStore,
    IllegalMove,
    RowRefused,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.events import Events
from jobvisor.jobs.store import fate
from jobvisor.jobs.store.addresses import resolved
from jobvisor.jobs.store.arrays import arrays, columns
from jobvisor.jobs.store.connection import PatientConnection, connection_parameters
from jobvisor.jobs.store.front import Front
from jobvisor.jobs.store.limiting import Placed, Seats
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.relational import RelationalStore
from jobvisor.jobs.store.session import set_all, settings
from jobvisor.jobs.store.sqlstate import named
from jobvisor.jobs.store.statements import Worded, statements
from jobvisor.jobs.store.tables import Tables, names
from jobvisor.jobs.url import shown_url

OLDEST_SERVER = 130_000  # pg_xact_status and gen_random_uuid without an extension
ANSWER_GRACE = 2.0  # seconds the server has, beyond its own limit, to say that it was passed
EXPECTED_NS = 60 * SECOND  # after a job with a limit; the next one costs a turn that is undone
SNAPSHOT_SECONDS = 600  # an export may read a whole table for a page, or write to a slow pipe

Value = TypeVar("Value")


class ServerStore(RelationalStore):
    """One schema of a PostgreSQL database, reached by one connection at a time."""

    one_machine = False
    _inserts_turns = True  # a row that is changed once more leaves a dead entry before the others

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        prefix: str,
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
        self._prefix = prefix
        self._names = names(schema, prefix)
        self._tables = Tables(self.place, schema, prefix, self._worded)
        self._number = self._worded(fate.NUMBER).encode()
        self._statements = Worded(statements("postgres"), self._worded)
        self._connection: PatientConnection | None = None
        self._pid = os.getpid()
        self._begun = False
        self._reading = False
        # Its number and the incarnation of the server that gave it out.
        self._transaction_id: tuple[str, str | None] | None = None
        self._answered_ns = 0  # when a lone enqueue, or what was in its place, was answered last
        self._local = b""  # what each transaction sets for itself where the session is not ours
        self._listening = False
        self._heard = False
        self._answer_left = False  # to an UNLISTEN
        self._lock = threading.RLock()
        self._front = Front(clock)
        self._asks_due = (
            False  # whether a rate may have let a job begin, as far as this store knows
        )
        self._places_until = 0  # by the monotonic clock: so long jobs with limits are expected
        self._entered = 0  # the owner that has a row, as this store has seen to

    def _worded(self, text: str) -> str:
        # SQL.format wants literal text, and this is: from our own files.
        literal = cast("Any", prefixed(text, self._prefix))
        return sql.SQL(literal).format(**self._names).as_string(None)

    def tell_waits(self) -> None:
        self._statements = Worded(statements("postgres", waits=True), self._worded)

    # -- connection

    def open(self) -> None:
        self._refuse_copy()
        with self._lock, self._named_errors():
            self._connected()

    def close(self) -> None:
        if self._pid != os.getpid():
            # A copied handle is the same conversation with the server: only forgotten.
            # And without the lock: a thread that held it at the fork is not in the copy.
            if self._connection is not None:
                _abandoned.append(self._connection)
                self._connection = None
            return
        # Under the lock: another thread may be in the middle of a transaction.
        with self._lock:
            connection, self._connection = self._connection, None
            self._listening = self._heard = self._answer_left = False
            if connection is not None:
                connection.close()

    def step_aside(self) -> None:
        """Stop listening, without a wait for the answer: it comes while the function runs.

        Nobody reads this connection then; what is not read would pile up at the server. Else a function
        of a user cannot break a socket of ours but by closing it; see `descriptors`.
        """
        if not self.listens():
            return
        connection = self._connected()
        self._listening = False
        try:
            connection.pgconn.send_query(b"UNLISTEN *")
            self._answer_left = True
        except psycopg.OperationalError:
            connection.close()  # the next turn makes another

    def listens(self) -> bool:
        """Whether a NOTIFY reaches this connection now."""
        connection = self._connection
        return self._listening and connection is not None and not connection.closed

    def _take_left_answer(self, connection: PatientConnection) -> None:
        self._answer_left = False
        try:
            connection.wait(fetch_many(connection.pgconn))
        except psycopg.Error:
            connection.close()  # nothing depends on it
        self._heard = False

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
        if self._answer_left and connection is not None:
            self._take_left_answer(connection)
        if connection is not None and not connection.closed:
            return connection
        if self._begun:
            # Never a new connection within a transaction: the rest of it would run outside of it.
            raise psycopg.OperationalError("the connection was lost within a transaction")
        connection = self._greeted()
        try:
            self._tables.check(connection)
            connection.execute(self._worded(fate.INCARNATION).encode())
        except BaseException:
            self.close()
            raise
        return connection

    def _greeted(self) -> PatientConnection:
        """A new connection, set up for a server or for the pooler before it."""
        self.close()
        self.on_wait()
        connection = PatientConnection.connect(
            **resolved(self._parameters, self._beat), autocommit=True, prepare_threshold=None
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
        told = settings(patience=self._patience, idle=self._idle, notify=self._notify)
        if row[0] == connection.info.backend_pid:
            connection.prepare_threshold = 5
            connection.execute(set_all(told, local=False))
            self._local = b""
        else:
            # Somebody stands between: the next transaction may be another session's.
            self._local = set_all(told, local=True)
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

    def check_schema(self) -> None:
        with self._lock, self._named_errors():
            self._tables.check(self._connected())

    def migrate(self) -> tuple[int, int]:
        self._refuse_copy()
        with self._lock, self._named_errors():
            connection = self._greeted()
            try:
                numbers = self._tables.migrate(connection)
                self._tables.check(connection)
                connection.patience = self._patience + ANSWER_GRACE
            except BaseException:
                self.close()  # or the next verb would take it for one whose schema is known to fit
                raise
        return numbers

    # -- statements

    def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[TupleRow]:
        return self._run(lambda: self._execute(name, parameters).fetchall())

    def _asked(self, name: str, parameters: Mapping[str, Any]) -> list[TupleRow]:
        cursor = self._run(lambda: self._execute(name, parameters))
        told = cursor.pgresult  # a description takes as long to make as the statement to run
        return cursor.fetchall() if told is not None and told.nfields else []

    def _change(self, name: str, parameters: Mapping[str, Any]) -> int:
        return self._run(lambda: self._execute(name, parameters).rowcount)

    def _change_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        return self._change(*at_once(name, parameters))

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

    def _place(self, owner: int, claim: int, seats: Seats) -> list[Placed]:
        return self._note_placed(self._rows("place", self._claimant(owner, claim, seats)))

    def _is_placing(self) -> bool:
        """Whether `place` follows a claim: jobs with limits come, as far as is known, or tasks are paused.

        A claim that takes a job with a limit unawares is refused; see `PLACES`.
        """
        return bool(self._parked_tasks()) or self.clock.monotonic_ns() < self._places_until

    def _note_placed(self, rows: Sequence[TupleRow]) -> list[Placed]:
        if rows:
            self._expect_limits()
        return list(map(Placed._make, rows))

    def _expect_limits(self) -> None:
        self._places_until = self.clock.monotonic_ns() + EXPECTED_NS

    def _claimant(self, owner: int, claim: int, seats: Seats) -> dict[str, Any]:
        """The parameters of the statement that follows each claim."""
        paused = sorted(self._parked_tasks())
        return {"owner": owner, "claim": claim, **seats._asdict(), "paused": paused}

    def _admit(self, keys: Sequence[str], *, waits: bool) -> int:
        return len(self._rows("admit", {"keys": list(keys), "waits": waits}))

    def _admit_page(self, keys: Sequence[str]) -> int:
        with self.transaction():
            admitted = super()._admit_page(keys)
            if self._change("fit_keys", {"keys": list(keys)}):  # it holds them
                admitted += self._admit(keys, waits=True)
            return admitted

    def _attempted(self, action: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        self._bare(b"SAVEPOINT attempted")
        try:
            value = action(*arguments)
        except _REFUSING as error:
            self._bare(b"ROLLBACK TO attempted")
            self._bare(b"RELEASE attempted")
            return None, str(error).partition("\n")[0]
        except IllegalMove:
            self._bare(b"ROLLBACK TO attempted")
            self._bare(b"RELEASE attempted")
            raise
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
                    self._forget_changes()
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
                    self._bare(set_all(_SNAPSHOT_LIMITS, local=True))
                    self._connected().patience = SNAPSHOT_SECONDS + ANSWER_GRACE
                    yield
            finally:
                self._reading = False
                if self._connection is not None:
                    self._connection.patience = self._patience + ANSWER_GRACE

    def _commit(self) -> None:
        if not self._begun:
            return
        self._admit_freed()
        connection = self._connected()
        try:
            ended = self._ended(connection)
        except psycopg.Error as error:
            if not connection.closed:
                raise
            self._look_up(error)
            return
        self._check_committed(ended)

    def _ended(self, connection: PatientConnection) -> psycopg.Cursor[TupleRow]:
        """COMMIT, in one round trip with what is said before it."""
        told, asked = None, self.clock.boottime_ns()
        news = self._audience.has_news()
        if not (news or self._pending_made):
            return connection.execute(b"COMMIT")
        with connection.pipeline():
            if self._pending_made:
                connection.execute(self._statements["wake"])
            if news:
                told = self._ask("tell", {"jobs": self._audience.news()})
            ended = connection.execute(b"COMMIT")
        if told is not None:
            self._heard_of(asked, told)
        return ended

    def _check_committed(self, ended: psycopg.Cursor[TupleRow]) -> None:
        # A COMMIT of a transaction that has failed is answered by ROLLBACK, and no error.
        if ended.statusmessage != "COMMIT":
            raise StoreUnavailable(f"{self.place}: the transaction was rolled back")

    def _look_up(self, error: Exception) -> None:
        """The answer to a COMMIT was lost: ask what became of it; returns if it was committed."""
        assert self._transaction_id is not None
        number, incarnation = self._transaction_id
        self._begun = False
        statement = self._worded(fate.FATE).encode()

        def ask() -> str | None:
            ((told,),) = self._greeted().execute(statement, [incarnation, number]).fetchall()
            return None if told == "in progress" else told or fate.UNKNOWN

        told = fate.until_known(ask, self.clock, self.on_wait)
        self.close()  # it was made to ask: the next verb looks at the schema, and names the server
        if told != "committed":
            raise StoreUnavailable(
                f"{self.place}: the connection broke at the commit, "
                f"{fate.FATES.get(told, fate.UNKNOWN)}; look what there is, then try again"
            ) from error

    def _undo(self) -> None:
        self._pending_made = False
        self._events.clear()
        self._pauses.forget()  # another change may come under the number of the one that is undone
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
            connected = self._connection is not None
            broken = self._connection is not None and self._connection.closed
            ours = named(error, self.place, connected=connected, broken=broken)
            if not isinstance(ours, RowRefused):
                self._drop()
            raise ours from error

    def _drop(self) -> None:
        """Start over with a new connection next time: the server may be another by then."""
        if self._depth == 0:
            with suppress(psycopg.Error):
                self.close()

    def _ask(self, name: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[TupleRow]:
        statement = self._statements[name]
        return self._connected().execute(statement, parameters, prepare=_PREPARED.get(name))


_abandoned: list[PatientConnection] = []  # copies of another process's handles: never closed

# The two limits are passed by a row too: JSON nested thousands deep, a key too long for its index.
_REFUSING = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException,
             psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
             OverflowError, UnicodeError)  # fmt: skip
_SNAPSHOT = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SNAPSHOT_LIMITS = dict.fromkeys(
    ("statement_timeout", "idle_in_transaction_session_timeout"), str(SNAPSHOT_SECONDS * 1000)
)
#: Planned anew each time, with the length of its arrays: a join has no plan that is right for all.
_PREPARED = {"succeed_many": False, "succeed_and_forget_many": False}
#: Over arrays for a single row too: their pages are as large as can be.
_ALWAYS_MANY = ("import", "import_attempt")


def at_once(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """One statement for many rows, over arrays."""
    return all_at_once(name, columns(rows))


def all_at_once(
    name: str, told: Mapping[str, Sequence[int | str | None]]
) -> tuple[str, Mapping[str, Any]]:
    """The same of values that are in columns already."""
    if name not in _ALWAYS_MANY:
        if len(told["job"]) == 1:
            return name, {column: values[0] for column, values in told.items()}
        name = f"{name}_many"
    return name, arrays(told)
