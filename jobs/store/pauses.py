"""What is paused, as a store keeps it in memory: known by a number that every change raises.

Whoever claims compares that number with the database's, and reads anew where it is another one. Until when a
pause goes is reckoned by this machine's clock; the database is asked again when one is over, and each minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from jobvisor.jobs.clock import SECOND, Clock

MS = 1_000_000
READ_EACH = 60 * SECOND
UNREAD = "unread"  # no number that a database has
NONE: frozenset[str] = frozenset()


class Pauses:
    """The paused queues and tasks, each with the moment at which its pause ends by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.version: str | None = None
        """The database's number of settings when they were read; None: nothing was ever set."""
        self._queues: dict[str, int | None] = {}
        self._tasks: dict[str, int | None] = {}
        self._old_at: int | None = None  # when to ask the database again, if no change tells to

    def learn(self, version: str | None, told: str | None) -> None:
        """What the database has: a JSON list of [is it a task, name, for how many ms yet or null]."""
        now = self._clock.boottime_ns()
        self.version = version
        self._queues, self._tasks = {}, {}
        for is_task, name, left in json.loads(told or "[]"):
            paused = self._tasks if is_task else self._queues
            paused[name] = None if left is None else now + max(1, left) * MS
        ends = [end for end in (*self._queues.values(), *self._tasks.values()) if end is not None]
        some = bool(self._queues or self._tasks)
        self._old_at = min(now + READ_EACH, *ends) if ends else now + READ_EACH if some else None

    def forget(self) -> None:
        """What was learnt may not be so: the next look learns it anew."""
        self.version = UNREAD

    def are_old(self) -> bool:
        """Whether one of the pauses is over, by this machine's clock, or all were read a minute ago."""
        return self._old_at is not None and self._clock.boottime_ns() >= self._old_at

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
