"""Who runs beside whom in a worker with several lanes: suspects among few suspects, others without them.

A worker that holds no job takes what comes first. Is that a suspect it is a quarantine, until it holds none
again: it claims suspects alone, none ahead, and runs at most as many as the least of them may run among.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.base import Whom


class Company:
    """What one worker may claim, by what it holds: the jobs that run there or wait for a lane."""

    def __init__(self, lanes: int, *, quarantine: bool = False) -> None:
        """`quarantine`: it never takes others than suspects."""
        self._lanes = lanes
        self.quarantine = quarantine
        self._most = 0  # how many suspects may be together; 0 where those that are held are none
        self._waits = False  # one that did not fit: it is not overtaken by others
        self._asked = Whom.ANYBODY
        self._held = 0
        self._expected = 0  # among so many the last suspects ran; 0 where others came first

    def whom(self, held: int) -> Whom:
        """Whom it may claim while it holds so many."""
        if not held:
            self._most, self._waits = 0, False
        if self._most or self.quarantine:
            return Whom.SUSPECTS
        return Whom.UNSUSPECTED if held else Whom.ANYBODY

    def limit(self, wanted: int, free: int, held: int) -> int:
        """How many it may claim, of so many that it wants and has free lanes for."""
        whom = self.whom(held)
        if not held and self._expected:
            # More would be claimed and released again and again, where a row of suspects waits.
            wanted = min(wanted, self._expected)
        if whom is not Whom.SUSPECTS:
            return wanted
        if self._waits:
            return 0
        return max(0, min(wanted, free, (self._most or self._lanes) - held))

    def ask(self, held: int) -> Whom:
        """The same, of a claim or a look that is made now."""
        self._held = held
        self._asked = self.whom(held)
        return self._asked

    def must_look_again(self) -> bool:
        """It holds none: whether more may be claimed now than at the last claim or look."""
        return self._asked is not self.whom(0)

    def misfits(self, jobs: Iterable[Claimed]) -> list[Claimed]:
        """Of what the last claim has brought, in its order, those that may not run here now."""
        if self._asked is Whom.UNSUSPECTED:
            return []
        jobs = list(jobs)
        if self._asked is Whom.ANYBODY and jobs and company_of(jobs[0]) is None:
            self._expected = 0
            return [job for job in jobs if company_of(job) is not None]
        held, most = self._held, self._most or self._lanes
        found = []
        for job in jobs:
            company = company_of(job)
            fits = company is not None and not self._waits and held < min(most, company)
            if fits and company is not None:
                held, most = held + 1, min(most, company)
                self._most = self._expected = most
            else:
                self._waits = self._waits or company is not None
                found.append(job)
        return found


def company_of(job: Claimed) -> int | None:
    """Among how many jobs it may run; None for any number. A memory limit is its whole process's."""
    return 1 if job.memory_bytes else job.company
