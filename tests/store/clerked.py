"""A SQLite database whose turns are made by a clerk, as those of a worker with several lanes are."""

from __future__ import annotations

import mmap
import os
import warnings
from pathlib import Path
from struct import Struct
from typing import Any

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.events import Events
from jobvisor.jobs.store import Applied, Store, Turn, open_store
from jobvisor.jobs.store.base import Sight
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.clerk.clerk import Make
from jobvisor.supervisor.clerk.client_store import ClientClerk, wait
from jobvisor.supervisor.clerk.handle import ClerkHandle
from jobvisor.supervisor.clerk.store import ClerkStore
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


def making(path: str, clock: Clock) -> Make:
    """How a clerk makes its stores of a file."""
    return lambda durable: SqliteStore(
        path, durable=durable, prefix="", clock=clock, events=Events()
    )


def forked(path: str, make: Make) -> ClerkHandle:
    """A clerk, here and now."""
    with warnings.catch_warnings():
        # pytest-timeout has a thread; the clerk takes no lock of its.
        warnings.simplefilter("ignore", DeprecationWarning)
        return ClerkHandle(path, make, wait=wait)


def hired(path: str, events: Events | None = None, clock: Clock = SYSTEM) -> ClerkStore:
    """A store whose clerk is forked now."""
    return ClerkStore(forked(path, making(path, clock)), events or Events())


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

    def tell_waits(self) -> None:
        self.clerk.tell_waits()

    def close(self) -> None:
        super().close()
        self.clerk.clerk.end()


class ClientDatabase(SqliteDatabase):
    """A file that every client of this process asks a clerk about."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = SharedClock()
        path = os.path.realpath(self.path)
        self.clerk = ClientClerk(forked(path, making(path, self.clock)), "")
        self._undo = self.clerk.serve()

    def open(self) -> Store:  # type: ignore[override]  # it is not that of a file here
        store = open_store(f"sqlite:///{self.path}", durable=False, events=self.events)
        store.open()
        return store

    def close(self) -> None:
        self._undo()
        self.clerk.handle.end()


class ClerkDatabase(SqliteDatabase):
    """A file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = SharedClock()

    def open(self) -> SqliteStore:
        path = str(self.path)
        for earlier in self._stores:
            SqliteStore.close(earlier)  # type: ignore[arg-type]  # no connection crosses a fork
        store = ClerkedStore(path, durable=False, prefix="", clock=self.clock, events=self.events)
        store.clerk = hired(path, self.events, self.clock)
        store.open()
        self._stores.append(store)
        return store
