"""A connection to PostgreSQL that never waits for ever, and how libpq is told to make one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.generators import send
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.url import shown_url

BEAT_SECONDS = 0.1  # while waiting for an answer, the caller's beat moves this often
# At most, of each address a name has: no beat moves meanwhile, and who stands still for 10 s is killed.
CONNECT_SECONDS = 4
PATIENCE = 30.0  # seconds for an answer while a connection is being made

Value = TypeVar("Value")

# psycopg warns of what it could not tidy up after a connection broke; that is said here, once.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class PatientConnection(psycopg.Connection[TupleRow]):
    """A connection that waits for an answer with a limit, and moves its caller's beat meanwhile."""

    beat: Callable[[], None]
    patience: float
    clock: Clock = SYSTEM

    def wait(
        self, gen: PQGen[Value], interval: float = BEAT_SECONDS, timeout: float | None = None
    ) -> Value:
        """Consume one of psycopg's generators, which say what they wait for and take what is ready.

        Raises psycopg.OperationalError, and closes the connection, when the time is over.
        """
        limit = getattr(self, "patience", PATIENCE) if timeout is None else timeout
        ends = self.clock.monotonic_ns() + int(limit * 1e9)
        while True:
            try:
                return super().wait(gen, interval, min(BEAT_SECONDS, limit))
            except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 -- its name in their page
                self._tell()
                if self.clock.monotonic_ns() > ends:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer for {limit:.0f} s") from error
                gen = _resumed(gen)
            except (psycopg.Error, KeyboardInterrupt):
                raise  # psycopg itself ends what runs at a Ctrl-C
            except BaseException:
                # Of a signal handler of the application: what comes next on this socket is unknown.
                self.pgconn.finish()
                raise

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Any number of statements in one round trip; not to be nested."""
        self._pipeline = pipeline = _Pipeline(self)
        try:
            with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    def _tell(self) -> None:
        try:
            getattr(self, "beat", _nothing)()
        except BaseException:
            # Interrupted in the middle of an answer: what comes next on this socket is unknown.
            self.pgconn.finish()
            raise


class _Pipeline(psycopg.Pipeline):
    """One that sends all its statements at its end, together, and after them a Sync alone.

    psycopg 3.3 sends each by itself, which wakes the server for each (two polls and a send here, a
    switch of processes there), and between two of them a client that stops would hold its locks. It
    also lets a Flush follow the Sync, which stops the clock of idle_in_transaction_session_timeout
    until the next answer (PostgreSQL 15 and 16, measured): the locks of a client that stood still then
    would be held for as long as its kernel answers.
    """

    def _communicate_gen(self) -> PQGen[None]:
        """Called after each statement: it stays queued."""
        yield from ()

    def _exit_gen(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            while self.command_queue:
                self.command_queue.popleft()()  # into libpq's buffer, which grows as it has to
            yield from send(self.pgconn)
        finally:
            yield from self._fetch_gen(flush=False)


def _resumed(gen: PQGen[Value]) -> PQGen[Value]:
    """A generator that has been started already, for somebody who starts with `next`."""
    try:
        wanted = gen.send(Ready.NONE)
        while True:
            wanted = gen.send((yield wanted))
    except StopIteration as stop:
        return cast("Value", stop.value)


def _nothing() -> None:
    """While the connection is being made, nobody is told."""


def connection_parameters(url: str, application: str, patience: float) -> dict[str, Any]:
    """What libpq is told: the URL's own words win."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Not libpq's words: they may repeat a piece of the password.
        raise ConfigError(
            f"the database URL {shown_url(url)} cannot be read; "
            f"write postgresql://user:password@host:5432/database, with %40 for an @ in a password"
        ) from None
    hosts = str(given.get("host") or "").count(",") + 1
    timeout = max(2, min(CONNECT_SECONDS, int(patience / 2 / hosts)))
    return {
        "connect_timeout": timeout,
        "application_name": application,
        "target_session_attrs": "read-write",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(patience * 1000),
        **given,
    }
