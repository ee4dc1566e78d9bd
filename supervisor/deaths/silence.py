"""Which families are silent: a heartbeat that stands still while this process watches it without a break.

Not the age of a heartbeat, which a step of the database's clock or a failover changes for all families at
once.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.store.base import FamilyRow

FAMILIES_MAX = 10_000  # that are watched at the same time
LOOK_MOST_NS = 2 * SECOND  # from one look to the next: who was suspended has not watched


class Silence:
    """For each family: its heartbeat, when it was looked at, and for how long it was seen to stand still."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[int, tuple[int, int, int]] = {}

    def forget(self) -> None:
        """Nobody could be watched; the watching begins anew."""
        self._seen.clear()

    def stood_still(self, family: FamilyRow) -> bool:
        """Whether a heartbeat has not moved for `dead_after` of watching; look about once a second."""
        now = self._clock.boottime_ns()
        heartbeat, looked_at, watched = self._seen.get(family.id, (0, 0, 0))
        if heartbeat != family.heartbeat_at:
            if len(self._seen) > FAMILIES_MAX:
                self._seen.clear()
            self._seen[family.id] = (family.heartbeat_at, now, 0)
            return False
        # What this process slept through it has not watched, and the other may have slept as well.
        limit = family.dead_after_ms * 1_000_000
        watched += min(now - looked_at, LOOK_MOST_NS, limit // 2)
        self._seen[family.id] = (heartbeat, now, watched)
        return watched > limit
