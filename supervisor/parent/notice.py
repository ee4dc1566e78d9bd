"""Notice to a worker with several lanes: a job of it is overdue, the others may end before it is killed.

The verdict stands on the board from then on, and the worker starts nothing more. It is taken back where the
job has ended all the same.
"""

from __future__ import annotations

from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    LANE_COUNT,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
    Slot,
)


class Notice:
    """One that was given."""

    __slots__ = ("_run", "_slot", "_until", "reason")

    def __init__(
        self, slot: Slot, name: str, reason: str, run: tuple[int, int], until: int
    ) -> None:
        """`run` is the job that is named, and its claim; its neighbours may end until then."""
        self._slot = slot
        self._run = run
        self._until = until
        self.reason = reason
        slot[VERDICT_JOB], slot[VERDICT_CLAIM] = run
        slot[VERDICT] = VERDICT_CODES[reason]
        say("notice", role=name, job=run[0], reason=reason, count=len(slot.running()) - 1)

    @property
    def run(self) -> tuple[int, int]:
        """The job that is named, and its claim."""
        return self._run

    def has_helped(self) -> bool:
        """Whether the job has ended; the worker goes on then."""
        if self._run in _runs(self._slot):
            return False
        self._slot[VERDICT] = 0
        return True

    def is_over(self, now: int) -> bool:
        """Whether the worker is to be killed: its other jobs have ended, or have had their time."""
        return now >= self._until or _runs(self._slot) == [self._run]


def has_neighbours(slot: Slot, run: tuple[int, int]) -> bool:
    """Whether other jobs run beside this one."""
    return slot[LANE_COUNT] > 1 and any(other != run for other in _runs(slot))


def _runs(slot: Slot) -> list[tuple[int, int]]:
    return [(each.job, each.claim) for each in slot.running()]
