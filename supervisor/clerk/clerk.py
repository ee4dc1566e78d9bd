"""The clerk: a bare process that holds the SQLite connection of one worker, and does its verbs there.

A task that opens and closes a database file drops every lock that its process holds on it (POSIX), and
one that computes keeps the interpreter: with the turns of other jobs in that process the database was
destroyed in seconds, and its lock was held for a second (measured). So a worker that runs several jobs at
once forks a clerk before anything of a user runs in it, and asks it over a socket pair. With `preload` the
user's modules are in that memory already; none of them is called here, and no thread of them crosses the
fork.

It is one of the worker's process group, so that whoever kills the worker kills both; it hears no signal
that is sent to all. It leaves when its worker is gone, whatever it does then: idle at the end of file, or
of the process, in a wait for the lock at its next beat, else before a COMMIT. That look comes under the
lock for writing, which whoever settles the worker takes after its death: so either the settler sees what
was committed, or nothing is committed any more. (A turn committed after the settling would leave rows
running that nobody has.)
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, NoReturn

from jobvisor.jobs.errors import EX_OK, JobsError, error_text
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.base import Record, Turn
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.clerk.channel import Channel, ClosedError

PARENT_EVERY_MS = 1000  # between two looks for the worker where the system tells nobody of its end
LINES_MAX = 100  # log lines that go with one answer

WAITS, MIGRATES = "waits", "migrates"
"""What may come before an answer, any number of times: why it takes long."""


#: Makes a store of the file that is not connected, durable or not.
Make = Callable[[bool], SqliteStore]


class Among(NamedTuple):
    """Which of a clerk's connections a request is about."""

    durable: bool = False
    transaction: int = 0
    """The number that `begin` has told; 0 outside of one."""


class Answer(NamedTuple):
    """What became of one request."""

    value: Any
    error: Exception | None
    events: list[Event]
    lines: list[dict[str, Any]]
    """What was logged meanwhile: the worker's handler has the file, and knows of its rotation."""


class Clerk:
    """One request after another, from the fork to the end of the worker."""

    def __init__(
        self,
        channel: Channel,
        make: Make,
        worker: int,
        beat: Callable[[], None],
    ) -> None:
        """`worker` is the pid of who forked this process; `beat` shows on its slot that work goes on."""
        self._channel = channel
        self._make = make
        self._stores: dict[bool, SqliteStore] = {}
        self._open: dict[int, tuple[SqliteStore, AbstractContextManager[None]]] = {}
        self._begun = 0
        self._own: dict[str, Callable[..., Any]] = {
            "turn_of_many": self._turn_of_many,
            "begin": self._begin,
            "end": self._end,
        }
        self._worker = worker
        self._beat = beat
        self._events: list[Event] = []
        self._lines = _Lines()
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)

    def run(self) -> int:
        """Answer until nobody asks any more."""
        faulthandler.disable()  # it would write into the worker's file
        with self._lines.alone():
            try:
                self._serve(self._watch_worker())
            except ClosedError:
                return EX_OK

    def _serve(self, patience_ms: int | None) -> NoReturn:
        while True:
            while (request := self._channel.receive()) is None:
                self._poll.poll(patience_ms)
                self._leave_with_worker()
            self._channel.send(self._answer(*request), self._wait)

    def _made(self, durable: bool) -> SqliteStore:
        """A store with a connection of its own."""
        store = self._make(durable)
        store.events.subscribe(self._events.append)
        store.on_wait = lambda: self._tell(WAITS)
        store.on_migrate = lambda: self._tell(MIGRATES)
        store.on_commit = self._leave_with_worker
        store.payload = _AsStored()
        return store

    def _watch_worker(self) -> int | None:
        """Let its end be heard, also where a copy of it keeps the channel open: how often to look, too."""
        try:
            self._poll.register(os.pidfd_open(self._worker), select.POLLIN)
        except (AttributeError, OSError):  # not Linux, or an old one
            return PARENT_EVERY_MS
        self._leave_with_worker()  # it may have ended before, and the pid be a stranger's
        return None

    def _leave_with_worker(self) -> None:
        if os.getppid() != self._worker:
            os._exit(EX_OK)

    def _tell(self, why: str) -> None:
        self._leave_with_worker()
        self._beat()
        self._channel.send(why, self._wait)

    def _wait(self, descriptor: int, events: int) -> None:
        """Until the worker reads, which it may do between other things."""
        poll = select.poll()
        poll.register(descriptor, events)
        poll.poll(PARENT_EVERY_MS)
        self._leave_with_worker()

    def _answer(
        self, among: Among, verb: str, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Answer:
        self._beat()
        value, error = None, None
        try:
            own = self._own.get(verb)
            if own is not None:
                value = own(among, *arguments, **named)
            else:
                value = getattr(self._store(among), verb)(*arguments, **named)
        except Exception as failed:  # noqa: BLE001 -- it is the worker's, raised there
            error = _portable(failed)
        answer = Answer(value, error, self._events[:], self._lines.taken())
        self._events.clear()
        return answer

    def _store(self, among: Among) -> SqliteStore:
        if among.transaction:
            return self._open[among.transaction][0]
        if among.durable not in self._stores:
            self._stores[among.durable] = self._made(among.durable)
        return self._stores[among.durable]

    # -- what is asked in another form than a store is

    def _turn_of_many(
        self, among: Among, *asked: Any, journal: list[tuple[Any, ...]], **named: Any
    ) -> Any:
        """Plain tuples are pickled in a third of the time of named ones."""
        turn = self._store(among).turn(*asked, journal=list(map(Record._make, journal)), **named)
        return plain(turn.jobs), *turn[1:]

    def _begin(self, among: Among, kind: str) -> int:
        """Enter a `transaction` or `snapshot` on a connection of its own; the number for its requests."""
        store = self._made(among.durable)
        context: AbstractContextManager[None] = getattr(store, kind)()
        try:
            context.__enter__()
        except BaseException:
            store.close()
            raise
        self._begun += 1
        self._open[self._begun] = (store, context)
        return self._begun

    def _end(self, among: Among, *, failed: bool) -> None:
        store, context = self._open.pop(among.transaction)
        try:
            if failed:
                context.__exit__(_FailedError, _FailedError(), None)
            else:
                context.__exit__(None, None, None)
        finally:
            store.close()


class _FailedError(Exception):
    """What the worker did in a transaction has raised there."""


class _AsStored(Payload):
    """Values as the text that they are stored as: their codec is the user's, and runs in the worker."""

    def decode(self, text: str, *, lenient: bool = False) -> Any:
        del lenient
        return text


def plain(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Named tuples as they go over the channel."""
    return list(map(tuple, rows))


def turn_of(answer: tuple[list[tuple[Any, ...]], Any, int, int]) -> Turn:
    """A turn as it has come."""
    jobs, *told = answer
    return Turn(list(map(Claimed._make, jobs)), *told)


def _portable(error: Exception) -> Exception:
    """An error of ours as it is, any other in words: its class may need what does not travel."""
    if isinstance(error, JobsError):
        return error
    return RuntimeError(f"the process with this worker's database: {error_text(error)}")


#: What a handler needs of a record, besides its message.
_TOLD = ("name", "levelno", "levelname", "created", "process", "line", "fields", "below")


class _Lines(logging.Handler):
    """Keeps the lines that are logged, for the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._kept) < LINES_MAX:
            told = {name: record.__dict__[name] for name in _TOLD if name in record.__dict__}
            self._kept.append({**told, "msg": record.getMessage()})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lines go nowhere else meanwhile; the last words of a process that breaks go out by themselves."""
        handlers = logging.getLogger("jobvisor").handlers
        before, handlers[:] = handlers[:], [self]
        try:
            yield
        finally:
            handlers[:] = before

    def taken(self) -> list[dict[str, Any]]:
        kept, self._kept = self._kept, []
        return kept
