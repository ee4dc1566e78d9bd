"""A SQLite database whose turns are made by a clerk, as those of a worker with several lanes are."""

from __future__ import annotations

import mmap
import select
import warnings
from pathlib import Path
from struct import Struct
from typing import Any

from jobvisor.jobs.events import Events
from jobvisor.jobs.store import Applied, Turn
from jobvisor.jobs.store.base import Sight
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.clerk_handle import ClerkHandle
from jobvisor.supervisor.clerk_store import ClerkStore
from tests.clock import MovableClock
from tests.store.database import SqliteDatabase

_WORD = Struct("=q")


class SharedClock(MovableClock):
    """The same time in this process and in those that are forked from it."""

    __slots__ = ("_memory",)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _WORD.size)
        super().__init__()

    @property
    def _moved_ms(self) -> int:
        return int(_WORD.unpack_from(self._memory)[0])

    @_moved_ms.setter
    def _moved_ms(self, ms: int) -> None:
        _WORD.pack_into(self._memory, 0, ms)


def wait(descriptor: int, events: int) -> None:
    """As a worker waits that has nothing else to hear."""
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll(100)


def hired(store: SqliteStore, events: Events | None = None) -> ClerkStore:
    """A clerk for a database, forked here and now."""
    with warnings.catch_warnings():
        # pytest-timeout has a thread; the clerk takes no lock of its.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ClerkStore(ClerkHandle(store, wait=wait), events or Events())


class ClerkedStore(SqliteStore):
    """The verbs of a worker are its clerk's, all others its own."""

    clerk: ClerkStore

    def turn(self, *asked: Any, **named: Any) -> Turn:
        return super().turn(*asked, **named) if self._depth else self.clerk.turn(*asked, **named)

    def look(self, *asked: Any, **named: Any) -> Sight:
        return super().look(*asked, **named) if self._depth else self.clerk.look(*asked, **named)

    def apply(self, *asked: Any, **named: Any) -> Applied:
        return super().apply(*asked, **named) if self._depth else self.clerk.apply(*asked, **named)

    def leave(self, *asked: Any, **named: Any) -> Applied:
        return self.clerk.leave(*asked, **named)

    def close(self) -> None:
        super().close()
        self.clerk.clerk.end()


class ClerkDatabase(SqliteDatabase):
    """A file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = SharedClock()

    def open(self) -> SqliteStore:
        given: dict[str, Any] = {"durable": False, "prefix": "", "clock": self.clock}
        path = str(self.path)
        for earlier in self._stores:
            SqliteStore.close(earlier)  # type: ignore[arg-type]  # no connection crosses a fork
        store = ClerkedStore(path, events=self.events, **given)
        store.clerk = hired(SqliteStore(path, events=Events(), **given), self.events)
        store.open()
        self._stores.append(store)
        return store
