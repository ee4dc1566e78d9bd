"""What a caretaker sees to of fair queues: what the config says, and that no other has turns."""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.log import say
from jobvisor.jobs.store import Store
from jobvisor.supervisor.caretaker.told import Told
from jobvisor.supervisor.config import Queue

EVERY_SECONDS = 10.0
AT_ONCE = 0.05  # seconds, where a page was not enough


class Fairness:
    """The duty about fair queues."""

    def __init__(self, store: Store, queues: Iterable[Queue], told: Told) -> None:
        """`queues` are those that the config names."""
        self._store = store
        self._undeclared = [queue for queue in queues if queue.fair is not None]
        self._told = told

    def see_to(self) -> float | None:
        """A duty: say once what the config says; give and take turns where that is new, page by page."""
        if not self._told.is_told:
            self._declare()
            self._told.note()
        return AT_ONCE if self._store.level_turns() else None

    def _declare(self) -> None:
        while self._undeclared:
            queue = self._undeclared[-1]
            if self._store.set_fair(queue.name, fair=bool(queue.fair)):
                if queue.fair:
                    say("made_fair", queue=queue.name)
                else:
                    say("made_unfair", queue=queue.name)
            self._undeclared.pop()
