"""What a worker tells of its tasks, for who calls them without having their code: in the table `tasks`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobvisor.jobs.annals import KnownTask
from jobvisor.jobs.clock import SECOND, Clock, from_datetime
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.store import Store

__all__ = ["OwnShelf", "Shelf", "Telling"]

FIRST_NS = SECOND
"""After a worker began: its first jobs come first."""
AGAIN_NS = 12 * 3600 * SECOND
"""The table keeps for 30 days what nobody tells any more."""
MILLISECOND = 1_000_000
LATER_NS = 600 * SECOND
"""After an error, or where it is another one's: nobody waits for it."""

TASKS_MAX = 1_000


class Shelf(Protocol):
    """Where it is told: a client's verbs."""

    def tasks(self) -> list[KnownTask]:
        """What stands there."""

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        """Write these."""

    def close(self) -> None:
        """It is not asked for long."""


class OwnShelf:
    """By the worker's own connection, which is not closed: a second one takes memory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def tasks(self) -> list[KnownTask]:
        """What stands there."""
        return self._store.tasks()

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        """Write these."""
        self._store.note_tasks({name: json.dumps(told) for name, told in tasks.items()})

    def close(self) -> None:
        """The worker goes on with it."""


class Telling:
    """Tells it once in a life, while there is nothing to do, and twice a day after that.

    Of the workers of a family that rest the first one tells: the others need not load what it takes, some
    hundred kilobytes each. What stands there already is not written again.
    """

    def __init__(
        self, registry: Registry, shelf: Shelf, clock: Clock, is_mine: Callable[[], bool]
    ) -> None:
        """`is_mine` says whether this worker is the one that tells."""
        self._registry = registry
        self._shelf = shelf
        self._clock = clock
        self._is_mine = is_mine
        self._due_ns = clock.monotonic_ns() + FIRST_NS
        self._thread: threading.Thread | None = None

    def tell_if_due(self) -> None:
        """In this thread, which has nothing else to do."""
        if self._is_due():
            self._tell()

    def tell_beside_if_due(self) -> None:
        """In a thread of its own: types of parameters are the user's code, which this one must not run."""
        if self._is_due():
            self._thread = threading.Thread(target=self._tell, name="telling", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # there are too many on this machine
                self._due_ns = self._clock.monotonic_ns() + LATER_NS

    def _is_due(self) -> bool:
        now = self._clock.monotonic_ns()
        if now < self._due_ns:
            return False
        mine = self._is_mine()
        self._due_ns = now + (AGAIN_NS if mine else LATER_NS)  # longer than it can take
        return mine

    def _tell(self) -> None:
        try:
            tasks = self._described()
            known = {each.name: each for each in self._shelf.tasks()}
            if any(self._is_news(known.get(name), told) for name, told in tasks.items()):
                self._shelf.note_tasks(tasks)
        except JobsError:
            self._due_ns = self._clock.monotonic_ns() + LATER_NS
        finally:
            self._shelf.close()

    def _is_news(self, known: KnownTask | None, told: Mapping[str, Any]) -> bool:
        """Whether it is another task than stands there, or nobody has told of it for half a day."""
        if known is None or dict(known.told) != told:
            return True
        return self._clock.now_ms() - from_datetime(known.seen_at) > AGAIN_NS // MILLISECOND

    def _described(self) -> dict[str, Any]:
        """As it comes back from the table, so that it can be compared."""
        from jobvisor.jobs.described import described  # noqa: PLC0415 - not before a worker is ready

        aliases = self._registry.aliases()
        tasks = [self._registry.get(name) for name in self._registry.names()[:TASKS_MAX]]
        told = {task.name: described(task, aliases.get(task.name, ())) for task in tasks if task}
        back: dict[str, Any] = json.loads(json.dumps(told))
        return back
