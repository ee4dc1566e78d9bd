"""The store of a client in a worker that has clerks: every verb is asked of a clerk of its own.

A task that enqueues is as little safe from one that copies the database as a turn is: the connection of
its client would lose its locks in the middle of a commit (measured: damaged within two seconds). Any thread
may ask; one at a time is answered, and a transaction keeps the others waiting until its end.
"""

from __future__ import annotations

import select
import threading
from abc import update_abstractmethods
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.events import Events
from jobvisor.jobs.found import Page
from jobvisor.jobs.job import Job
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store import use_stores
from jobvisor.jobs.store.base import Store, Waker
from jobvisor.jobs.store.rows import decoded
from jobvisor.jobs.store.wake import waker_of
from jobvisor.supervisor.clerk.clerk import Among
from jobvisor.supervisor.clerk.handle import ClerkHandle

_WAIT_MS = 1000  # between two looks whether the clerk is alive, in a thread that does nothing else


class ClientClerk:
    """The clerk of all clients of one process."""

    def __init__(self, handle: ClerkHandle, prefix: str) -> None:
        self.handle = handle
        self._prefix = prefix
        self._lock = threading.RLock()

    def store(
        self, path: str, prefix: str, _clock: Clock, events: Events, /, *, durable: bool
    ) -> Store | None:
        """A store of its file; None of any other, and in a copy of the process, which is another one."""
        if (path, prefix) != (self.handle.path, self._prefix) or self.handle.is_of_another:
            return None
        return ClientStore(self, events, durable=durable)  # type: ignore[abstract]  # filled in below

    def serve(self) -> Callable[[], None]:
        """Let every client of this process ask it from now on; call the answer to undo it."""
        return use_stores(self.store)

    def alone(self) -> AbstractContextManager[object]:
        """Nobody else asks meanwhile."""
        # A copy of the process has no thread to open a lock that was held at the fork, and is refused.
        return nullcontext() if self.handle.is_of_another else self._lock

    def ask(self, events: Events, verb: str, *arguments: Any, **named: Any) -> Any:
        """See ClerkHandle; from any thread."""
        with self.alone():
            return self.handle.ask(events, verb, *arguments, **named)


def wait(descriptor: int, ready: int) -> None:
    """How a thread waits that has nothing else to hear."""
    poll = select.poll()
    poll.register(descriptor, ready)
    poll.poll(_WAIT_MS)


class ClientStore(Store):
    """One client's view of the clerk; the verbs that are not written here are filled in below."""

    one_machine = True

    def __init__(self, clerk: ClientClerk, events: Events, *, durable: bool) -> None:
        self._clerk = clerk
        self._events = events
        self._durable = durable
        self._within_of = threading.local()
        self.on_wait = self.on_migrate = _nothing
        self.payload = Payload()

    def close(self) -> None:
        """Wait for the transaction of another thread; the connection is the clerk's, for all."""
        with self._clerk.alone():
            return

    def step_aside(self) -> None:
        """No connection is in this process."""

    def descriptors(self) -> list[int]:
        return []

    def waker(self) -> Waker:
        return waker_of(self._clerk.handle.path)

    def watcher(self) -> Waker:
        return self.waker()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # Others wait: the clerk would wait for them to end, and could not hear that they do.
        with self._clerk.alone(), self._within("transaction"):
            yield

    def snapshot(self) -> AbstractContextManager[None]:
        return self._within("snapshot")

    @contextmanager
    def _within(self, kind: str) -> Iterator[None]:
        """What this thread asks of this store is part of it."""
        if self._transaction:
            yield  # of the one that is open
            return
        self._within_of.number = self._ask("begin", kind)
        try:
            yield
        except BaseException:
            with suppress(StoreError):  # what was raised first tells more
                self._ask("end", failed=True)
            raise
        else:
            self._ask("end", failed=False)
        finally:
            self._within_of.number = 0

    @property
    def _transaction(self) -> int:
        """The number of the one that this thread is in, 0 for none."""
        return getattr(self._within_of, "number", 0)

    def _ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        value = self._clerk.ask(
            self._events, verb, *map(_sent, arguments),
            among=Among(self._durable, self._transaction),
            on_wait=self.on_wait, on_migrate=self.on_migrate,
            **{name: _sent(each) for name, each in named.items()},
        )  # fmt: skip
        return self._read(value)

    def _read(self, value: Any) -> Any:
        """With the users' values in jobs, which come as they are stored."""
        if isinstance(value, Job):
            return decoded(value, self.payload)
        if isinstance(value, Page):
            return value._replace(jobs=[decoded(job, self.payload) for job in value.jobs])
        if isinstance(value, list) and value and isinstance(value[0], Job):
            return [decoded(job, self.payload) for job in value]
        if isinstance(value, dict) and any(isinstance(job, Job) for job in value.values()):
            return {number: decoded(job, self.payload) for number, job in value.items()}
        return value


def _sent(value: Any) -> Any:
    """An argument as it goes over the channel: what can only be gone through, gone through."""
    plain = not isinstance(value, Iterable) or isinstance(value, (str, bytes, tuple, list, dict))
    return value if plain else list(value)


def _asked(verb: str) -> Callable[..., Any]:
    def ask(self: ClientStore, *arguments: Any, **named: Any) -> Any:
        return self._ask(verb, *arguments, **named)

    ask.__name__ = verb
    return ask


for _verb in ClientStore.__abstractmethods__:
    setattr(ClientStore, _verb, _asked(_verb))
update_abstractmethods(ClientStore)  # type: ignore[type-abstract]


def _nothing() -> None:
    """Nobody wants to know."""
