"""The web role's own client: it has an answer of the database within seconds, or none.

All requests share one connection. Where the database is away each of them would wait for it in turn, the
last one for minutes; so nobody waits long for his turn, and who comes after a failure is told of it.
"""

from __future__ import annotations

import threading
from abc import update_abstractmethods
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.base import Store, Waker

__all__ = ["PatientStore", "SiteClient"]

PATIENCE_S = 5.0
"""For the requests before, and then for an answer."""
TOLD_NS = SECOND
"""For so long after a failure nobody tries again."""


class SiteClient(Client):
    """A client for many threads, none of which waits for long."""

    patience_s: ClassVar[float] = PATIENCE_S

    def _open(self) -> Store:
        return PatientStore(super()._open(), self.patience_s, self._clock)  # type: ignore[abstract]  # filled in below


class PatientStore(Store):
    """A store whose verbs are asked one after the other; those not written here are filled in below."""

    def __init__(self, store: Store, patience_s: float, clock: Clock = SYSTEM) -> None:
        self._store = store
        self._patience_s = patience_s
        self._clock = clock
        self._turn = threading.RLock()
        self._away_until = 0
        self._why = ""

    @property
    def payload(self) -> Payload:
        """As its own."""
        return self._store.payload

    @payload.setter
    def payload(self, payload: Payload) -> None:
        self._store.payload = payload

    def close(self) -> None:
        """Without a turn: it waits by itself for the transaction of another thread."""
        self._store.close()

    def waker(self) -> Waker:
        return self._store.waker()

    def watcher(self) -> Waker:
        return self._store.watcher()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.in_turn(), self._store.transaction():
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self.in_turn(), self._store.snapshot():
            yield

    def in_turn(self) -> AbstractContextManager[None]:
        """Alone with the database; StoreUnavailable where that takes long, or has just failed."""
        return self._in_turn()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        self._refuse_while_away()
        if not self._turn.acquire(timeout=self._patience_s):
            raise StoreUnavailable(
                f"the database was busy with other requests for {self._patience_s:g} s; ask again later"
            )
        try:
            self._refuse_while_away()  # who was before may just have found out
            yield
        except StoreUnavailable as error:
            self._why = str(error)
            self._away_until = self._clock.monotonic_ns() + TOLD_NS
            raise
        finally:
            self._turn.release()

    def _refuse_while_away(self) -> None:
        if self._clock.monotonic_ns() < self._away_until:
            raise StoreUnavailable(self._why)


def _in_turn(verb: str) -> Callable[..., Any]:
    def ask(self: PatientStore, *arguments: Any, **named: Any) -> Any:
        with self.in_turn():
            return getattr(self._store, verb)(*arguments, **named)

    ask.__name__ = verb
    return ask


for _verb in PatientStore.__abstractmethods__:
    setattr(PatientStore, _verb, _in_turn(_verb))
update_abstractmethods(PatientStore)  # type: ignore[type-abstract]
