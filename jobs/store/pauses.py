"""What is paused, as a store keeps it in memory: known by a number that every change raises.

Whoever claims compares that number with the database's, and reads anew where it is another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from jobvisor.jobs.clock import Clock

MS = 1_000_000
NONE: frozenset[str] = frozenset()


class Pauses:
    """The paused queues and tasks, each with the moment at which its pause ends by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.version: str | None = None
        """The database's number of settings when they were read; None: nothing was ever set."""
        self._queues: dict[str, int | None] = {}
        self._tasks: dict[str, int | None] = {}

    def learn(self, version: str | None, told: str | None) -> None:
        """What the database has: a JSON list of [is it a task, name, for how many ms yet or null]."""
        now = self._clock.boottime_ns()
        self.version = version
        self._queues, self._tasks = {}, {}
        for is_task, name, left in json.loads(told or "[]"):
            paused = self._tasks if is_task else self._queues
            paused[name] = None if left is None else now + left * MS

    def open(self, queues: Sequence[str]) -> Sequence[str]:
        """Those of these queues that are not paused, in their order."""
        if not self._queues:
            return queues
        paused = self._going(self._queues)
        return [queue for queue in queues if queue not in paused]

    def tasks(self) -> frozenset[str]:
        """The tasks that are paused now."""
        return self._going(self._tasks) if self._tasks else NONE

    def ends_in_ms(self, queues: Iterable[str]) -> int | None:
        """In how many milliseconds the first of the pauses of these queues ends; None: none does."""
        if not self._queues:
            return None
        now = self._clock.boottime_ns()
        ends = [self._queues.get(queue) for queue in queues]
        return min((-(-(end - now) // MS) for end in ends if end and end > now), default=None)

    def _going(self, paused: dict[str, int | None]) -> frozenset[str]:
        now = self._clock.boottime_ns()
        return frozenset(name for name, end in paused.items() if end is None or end > now)
