"""Where a claim begins to look on PostgreSQL, while an old snapshot keeps dead rows in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.rows import NO_TURNS

SLOW_CLAIM_NS = 50_000  # a row; 12,000 are usual
FURTHER_MOST_NS = 1_000_000_000


class Front:
    """Where the next claim of each queue begins: at the front, but for moments in which that is slow.

    A row that was claimed leaves a dead entry at the front of its index. As long as a transaction
    older than it is open anywhere on the server (a forgotten psql, a long report, a backup), it can
    neither be skipped cheaply nor be vacuumed, and each claim from the front reads all of them. After a
    claim that took long, the next ones go on behind it, until ten times that long has passed or
    nothing is left there. What was enqueued meanwhile with a higher priority waits that long, at most a
    second.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Of a queue: priority, turn and id of its last claim.
        self._last: dict[str, tuple[int, int, int]] = {}
        self._further_until = 0

    def start(self, queue: str) -> tuple[str, dict[str, int]]:
        """The statement that claims of a queue, and where it starts."""
        if not self._further_until:
            return "claim", {}
        last = self._last.get(queue)
        if last is None or self._clock.monotonic_ns() > self._further_until:
            return "claim", {}
        return "claim_further", dict(zip(("priority", "turn", "after"), last, strict=True))

    def note(
        self, jobs: Sequence[Claimed], limit: int, took_ns: int, turns: Mapping[int, int] = NO_TURNS
    ) -> None:
        """What a turn has claimed, of how many it asked for, and how long the server took for it.

        `turns` are those of the jobs of fair queues.
        """
        if len(jobs) < limit:
            self._further_until = 0
            self._last.clear()
            return
        is_slow = took_ns > SLOW_CLAIM_NS * limit
        if not is_slow and not self._further_until:
            return  # no claim begins there
        self._last = {job.queue: (job.priority, turns.get(job.id, 0), job.id) for job in jobs}
        if is_slow:
            further = min(10 * took_ns, FURTHER_MOST_NS)
            self._further_until = self._clock.monotonic_ns() + further
