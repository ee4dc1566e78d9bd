"""A new time for a job that waits."""

from __future__ import annotations

from jobvisor.jobs.clock import iso
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import IllegalMove, StoreUnavailable
from jobvisor.jobs.job import WAITING, State
from jobvisor.jobs.store.dialect import check_id
from jobvisor.jobs.store.enqueueing import MOVES_MET
from jobvisor.jobs.store.fairness import Fairness
from jobvisor.jobs.store.rows import Changed


class Rescheduling(Fairness):
    """The one verb that changes when a job is due."""

    def reschedule(self, job: int, due: Due) -> str:
        check_id(job)
        with self.transaction():
            for met in range(MOVES_MET):
                asked = {"job": job, "run_at_ms": due.at_ms, "run_in_ms": due.in_ms}
                rows, refused = self._attempted(self._rows, "reschedule", asked)
                if refused is not None:
                    raise IllegalMove(f"job {job} cannot be rescheduled: {refused}")
                if rows:
                    return self._rescheduled(job, Changed._make(rows[0]))
                self._check_movable(job, due, sure=met > 0)
        raise StoreUnavailable(
            f"job {job} moved {MOVES_MET} times while it was being rescheduled; try again"
        )

    def _rescheduled(self, job: int, row: Changed) -> str:
        # By a promotion, as if its time had come: whatever else that gives a row it gives this one.
        if row.state == State.SCHEDULED and self._rows("promote_due", {"job": job}):
            row = row._replace(state=State.PENDING.value)
            if self._fair_among([row.queue]):
                self._give_turns([job])
        self._moved("reschedule", job, row)
        return row.state

    def _check_movable(self, job: int, due: Due, *, sure: bool) -> None:
        """Why nothing was changed; `sure`: it was not that a worker gave it back between two looks."""
        found = self.get(job)
        if found.state not in WAITING:
            raise IllegalMove(f"job {job} is {found.state}; only one that waits can be rescheduled")
        for word, moment in (
            ("expires", found.expires_at),
            ("has its deadline", found.deadline_at),
        ):
            if sure and moment is not None:
                raise IllegalMove(
                    f"job {job} {word} at {iso(moment)}: due {due} it would not run any more; "
                    "cancel it and enqueue another one"
                )
