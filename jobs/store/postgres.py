"""PostgreSQL: its statements, its transactions and its turn; the verbs are in relational.py.

Facts this file is built on (measured, or from PostgreSQL's own pages):
nothing may depend on the session, because a pooler in transaction mode gives each transaction another
one: what is set there (time limits, plans, LISTEN, prepared statements) is only used without one;
a COMMIT whose answer is lost has happened or not, and `pg_xact_status` knows, until a crash gives
the number out again; a socket whose other end is gone says nothing for hours, so every answer has a
limit of our own.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.generators import fetch_many
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8Dumper

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import (
    ForkedStore,
    RowRefused,
    StoreRefused,
    StoreUnavailable,
)
from jobvisor.jobs.events import Events
from jobvisor.jobs.job import Claimed, Job, NewJob
from jobvisor.jobs.store import fate
from jobvisor.jobs.store.addresses import resolved
from jobvisor.jobs.store.arrays import columns
from jobvisor.jobs.store.audience import listed
from jobvisor.jobs.store.base import NOTHING, Applied, Life, Record, Rest, Sight, Turn, Waker
from jobvisor.jobs.store.bulk import copy, is_ordinary
from jobvisor.jobs.store.connection import PatientConnection, connection_parameters
from jobvisor.jobs.store.enqueueing import carried_out, enqueueing
from jobvisor.jobs.store.front import Front
from jobvisor.jobs.store.listening import ListenWaker
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.relational import PROMOTED_AT_ONCE, RelationalStore
from jobvisor.jobs.store.rows import Changed, in_order, new_job_of, sight_of
from jobvisor.jobs.store.session import set_all, settings
from jobvisor.jobs.store.settlement import SUCCEED, last_words, resting, settling, successes, summed
from jobvisor.jobs.store.sqlstate import named
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.store.tables import Tables, names
from jobvisor.jobs.store.wake import PollWaker
from jobvisor.jobs.url import shown_url

OLDEST_SERVER = 130_000  # pg_xact_status and gen_random_uuid without an extension
TRUSTED_NS = 1_000_000_000  # after a rest this long a connection may be dead without a sign
DEADLOCKS_MAX = 5  # tries of a turn that another transaction stood in the way of
ANSWER_GRACE = 2.0  # seconds the server has, beyond its own limit, to say that it was passed
COPIED_AT_ONCE = 100_000  # rows of a bulk enqueue in one statement: half a second of the server's
ROWS_AT_ONCE = 2_000  # of a bulk enqueue in one statement: some 400 kB
MEASURED_CLAIM = 50  # rows: for fewer the two looks at the clock cost more than they tell
SNAPSHOT_SECONDS = 600  # an export may read a whole table for a page, or write to a slow pipe

Value = TypeVar("Value")


class PostgresStore(RelationalStore):
    """The queue in one schema of a PostgreSQL database, for any number of machines."""

    one_machine = False

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
        self._answer_left = False  # to an UNLISTEN
        self._lock = threading.RLock()
        self._front = Front(clock)
        self._entered = 0  # the owner that has a row, as this store has seen to

    def _worded(self, text: str) -> str:
        # SQL.format wants literal text, and this is: from our own files.
        literal = cast("Any", prefixed(text, self._prefix))
        return sql.SQL(literal).format(**self._names).as_string(None)

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
                    self._audience.clear()
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

    # -- the application

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        with self.transaction():
            ids, secured = self._reserved(len(jobs))
            plain = [] if secured else [n for n, job in enumerate(jobs) if is_ordinary(job)]
            for start in range(0, len(plain), COPIED_AT_ONCE):
                self._copy(
                    [(ids[place], jobs[place]) for place in plain[start : start + COPIED_AT_ONCE]]
                )
            found = [(number, True) for number in ids]
            if len(plain) < len(jobs):
                self._enqueue_others(jobs, ids, set(plain), found)
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
            name = "enqueue_alone_ordinary" if is_ordinary(job) else "enqueue_alone"
            cursor = self._ask(name, {**job._asdict(), "nonce": nonce})
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
        values = (
            number, job.task, job.args, job.kwargs, job.queue, job.priority, state, run_at,
            job.attempts_max, job.policy, job.timeout_ms, job.memory_bytes, job.unique_key, expires_at,
            created_at,
        )  # fmt: skip
        return new_job_of(number, values, self.payload)

    def _look_for(self, nonce: int, backend: int, error: Exception) -> int:
        """The answer to a lone enqueue was lost: the id of the job, if it was stored.

        While the process that was to store it is still there, it may come yet.
        """

        def ask() -> int | None:
            self._greeted()
            # Before the look: what that process still stores is then seen by it.
            ((gone,),) = self._connected().execute(fate.GONE, [backend]).fetchall()
            rows = self._ask("enqueued_alone", {"nonce": nonce}).fetchall()
            if rows:
                return int(rows[0][0])
            return 0 if gone else None

        number = fate.until_known(ask, self.clock, self.on_wait)
        self.close()
        if not number:
            told = fate.UNKNOWN if number is None else fate.NOT_THERE
            raise StoreUnavailable(
                f"{self.place}: the connection broke at the commit, {told}; look for the job, then try again"
            ) from error
        return number

    def _reserved(self, count: int) -> tuple[list[int], bool]:
        """Ids for new jobs, and whether row security, which refuses COPY, applies to this role."""
        ((told, secured),) = self._rows("reserve", {"count": count})
        return [int(number) for number in told.split(",")], secured

    def _copy(self, rows: list[tuple[int, NewJob]]) -> None:
        stored = copy(self._connected().cursor(), self._statements["copy"], rows)
        if stored < len(rows):
            raise RowRefused(
                f"{self.place} stored {stored} of {len(rows)} jobs without an error; "
                f"look for a trigger on {self.schema}.{self._prefix}jobs that leaves rows out"
            )

    def _enqueue_others(
        self,
        jobs: Sequence[NewJob],
        ids: list[int],
        stored: Container[int],
        found: list[tuple[int, bool]],
    ) -> None:
        """Those not copied: for later, for a time, or with a unique key that may be found held."""
        # By their keys: two of these at once then wait for each other in one order.
        order = sorted(
            (place for place in range(len(jobs)) if place not in stored),
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
        woken: bool = False,
    ) -> Turn:
        asked: dict[str, Any] = {
            "queues": queues, "limit": limit, "journal": journal, "rest": rest,
            "register": register, "forget_succeeded": forget_succeeded,
        }  # fmt: skip
        for left in range(DEADLOCKS_MAX, -1, -1):
            try:
                if self._depth:
                    break
                if woken and self._entered == life.owner and not (journal or rest):
                    return self._turn_when_woken(life, claim, queues, limit)
                return self._turn_at_once(life, claim, **asked)
            except (RowRefused, OverflowError, UnicodeError):
                # Of what was sent behind the refused statement psycopg may believe that it is prepared.
                self.close()
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

    def _turn_when_woken(self, life: Life, claim: int, queues: Sequence[str], limit: int) -> Turn:
        """A claim without a look before it, and still listening: of all who were woken few find a row.

        Where there is none that others have not taken, nothing is written: the one who has it would
        wait for the disk behind those who have nothing.
        """
        self._refuse_copy()
        expected, asked_ns = self._audience.is_expected(), self.clock.boottime_ns()
        told: psycopg.Cursor[TupleRow] | None = None
        wanted: dict[str, Any] = {
            "owner": life.owner, "claim": claim, "limit": limit, "entered": True, "woken": True,
        }  # fmt: skip
        jobs: list[Claimed] = []
        with self._lock, self._named_errors():
            with self._connected().pipeline():  # one transaction, which ends with it
                self._ask("hold_owner_woken", {"owner": life.owner, "queues": list(queues)})
                claims = [
                    self._ask("claim", {**wanted, "queue": queue, "first": number == 0})
                    for number, queue in enumerate(queues)
                ]
                if expected:
                    told = self._ask("tell_turn", {"jobs": "", "owner": life.owner, "claim": claim})
            for cursor in claims:
                jobs += in_order(cursor.fetchall())
            if told is not None:
                self._heard_of(asked_ns, told)
            self._front.note(jobs, limit, 0)
        return Turn(jobs, NOTHING)

    def look(self, queues: Sequence[str], owner: int = 0) -> Sight:
        with self._lock, self._named_errors():
            return self._once_more(lambda: self._look(queues, owner))

    def _look(self, queues: Sequence[str], owner: int) -> Sight:
        """All that an idle worker asks, in one round trip: it is woken once for it."""
        with self._connected().pipeline():
            pending = [self._ask("has_pending", {"queue": queue}) for queue in queues]
            due = self._ask("next_due", {})
            running = self._ask("owned", {"owner": owner}) if owner else None
        owned = running is not None and bool(running.fetchall()[0][0])
        if any(cursor.fetchall()[0][0] for cursor in pending):
            return Sight(True, 0, owned)
        return sight_of(due.fetchall(), owned=owned)

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
        # Told in the same round trip, before it is known what was claimed.
        expected, asked_ns = self._audience.is_expected(), self.clock.boottime_ns()
        heard: psycopg.Cursor[TupleRow] | None = None
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
                    promote = "promote_and_tell" if expected else "promote"
                    self._ask(promote, {"limit": PROMOTED_AT_ONCE})
                    measured = limit >= MEASURED_CLAIM
                    times += [connection.execute(_TIME)] if measured else []
                    for number, queue in enumerate(queues):
                        wanted = {
                            "owner": life.owner, "claim": claim, "queue": queue, "limit": limit,
                            "first": number == 0, "entered": entered, "woken": False,
                        }  # fmt: skip
                        name, where = self._front.start(queue)
                        claims.append(self._ask(name, wanted | where))
                    times += [connection.execute(_TIME)] if measured else []
                ends_here = not others and rest is None
                if expected and ends_here:
                    settled_ids = listed(record.job for record in succeeded)
                    turn = {"jobs": settled_ids, "owner": life.owner, "claim": claim}
                    heard = self._ask("tell_turn", turn)
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
            if heard is not None:
                self._heard_of(asked_ns, heard)
            elif not ends_here:
                self._audience.note_all(record.job for record in succeeded)
                self._audience.note_all(job.id for job in jobs)
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
            self._connected()
            if self.pooled:
                return False
            self._once_more(self._listen)
        return True

    def _listen(self) -> None:
        self._connected().execute(self._worded("LISTEN {listened}").encode())
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


_abandoned: list[PatientConnection] = []  # copies of another process's handles: never closed

# The two limits are passed by a row too: JSON nested thousands deep, a key too long for its index.
_REFUSING = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException,
             psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex,
             OverflowError, UnicodeError)  # fmt: skip
_IN_THE_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

_TIME = b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SNAPSHOT = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SNAPSHOT_LIMITS = dict.fromkeys(
    ("statement_timeout", "idle_in_transaction_session_timeout"), str(SNAPSHOT_SECONDS * 1000)
)
#: Planned anew each time, with the length of its arrays: a join has no plan that is right for all.
_PREPARED = {"succeed_many": False, "succeed_and_forget_many": False}
#: Over arrays for a single row too: their pages are as large as can be.
_ALWAYS_MANY = ("import", "import_attempt")


def _has_arrived(connection: PatientConnection) -> bool:
    """Whether something was said that nobody has asked for, such as a farewell."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _at_once(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """One statement for many rows, over arrays."""
    if name in _ALWAYS_MANY:
        return name, columns(rows)
    return (name, rows[0]) if len(rows) == 1 else (f"{name}_many", columns(rows))
