"""What a worker tells of its tasks, for who calls them without having their code: in the table `tasks`."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from jobvisor.jobs.annals import KnownTask
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, Clock, from_datetime
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.registry import Registry

__all__ = ["Telling"]

FIRST_NS = SECOND
"""After a worker began: its first jobs come first."""
AGAIN_NS = 12 * 3600 * SECOND
"""The table keeps for 30 days what nobody tells any more."""
MILLISECOND = 1_000_000
LATER_NS = 600 * SECOND
"""After an error: nobody waits for it."""

TASKS_MAX = 1_000


class Telling:
    """Tells it once in a life, while there is nothing to do, and twice a day after that.

    What stands there already is not written again.
    """

    def __init__(self, registry: Registry, client: Client, clock: Clock) -> None:
        """`client` is the one that tasks enqueue with; its connection is closed afterwards."""
        self._registry = registry
        self._client = client
        self._clock = clock
        self._due_ns = clock.monotonic_ns() + FIRST_NS
        self._thread: threading.Thread | None = None

    def tell_if_due(self) -> None:
        """In this thread, which has nothing else to do."""
        if self._is_due():
            self._tell()

    def tell_beside_if_due(self) -> None:
        """In a thread of its own: types of parameters are the user's code, which this one must not run."""
        if self._is_due() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._tell, name="telling", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # there are too many on this machine
                self._thread, self._due_ns = None, self._clock.monotonic_ns() + LATER_NS

    def _is_due(self) -> bool:
        now = self._clock.monotonic_ns()
        if now < self._due_ns:
            return False
        self._due_ns = now + AGAIN_NS
        return True

    def _tell(self) -> None:
        try:
            tasks = self._described()
            known = {each.name: each for each in self._client.tasks(limit=TASKS_MAX)}
            if any(self._is_news(known.get(name), told) for name, told in tasks.items()):
                self._client.note_tasks(tasks)
        except JobsError:
            self._due_ns = self._clock.monotonic_ns() + LATER_NS
        finally:
            self._client.close()

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
