"""Waking on PostgreSQL: LISTEN on the connection that the worker has anyway, while it rests."""

from __future__ import annotations

from typing import Protocol

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.store.base import Waker

LOOK_AGAIN_NS = 20_000_000  # after the 5 ms in which nobody else notifies, and a commit


class Listener(Protocol):
    """What it needs of a store."""

    clock: Clock

    def descriptors(self) -> list[int]:
        """Its connection."""

    def listens(self) -> bool:
        """Whether a NOTIFY reaches it now."""

    def listen(self) -> bool:
        """Begin to, where that is possible and not yet so; whether it was begun."""

    def heard(self) -> bool:
        """Whether a NOTIFY has come since this was last asked."""


class ListenWaker(Waker):
    """LISTEN on the store's own connection, begun with each rest and ended with what is claimed after it."""

    def __init__(self, store: Listener) -> None:
        self._store = store
        self._again_ns = 0

    def fileno(self) -> int | None:
        return self._store.descriptors()[0] if self._store.listens() else None

    def drain(self) -> float | None:
        now = self._store.clock.monotonic_ns()
        self.heard = False
        if self._store.listen():
            return 0.0  # what was enqueued before is not told
        if self._store.listens() and self._store.heard():
            self.heard = True
            # Others who enqueue within the next milliseconds do not notify again.
            self._again_ns = now + LOOK_AGAIN_NS
            return 0.0
        if self._again_ns:
            again, self._again_ns = self._again_ns, 0
            return max(0.0, (again - now) / 1e9)
        return None

    def close(self) -> None:
        """The connection is the store's."""
