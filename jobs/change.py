"""What is done to single jobs: cancel, requeue, reschedule, prune; and to their tables: migrate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar, overload

from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import IllegalMove, JobNotFound, JobsError
from jobvisor.jobs.filter import state_of
from jobvisor.jobs.job import Job
from jobvisor.jobs.pruner import Pruner
from jobvisor.jobs.pruning import Rule, rules_of
from jobvisor.jobs.store import Store
from jobvisor.jobs.units import Duration

__all__ = ["Change", "Moved", "Moves", "moved_each", "requeued_each"]

R = TypeVar("R")


class Moved(NamedTuple):
    """What became of one of many jobs."""

    id: int
    outcome: str
    """`pending`, `scheduled`, `blocked`, `cancelled`, `requested` (of a running one), or `refused`."""
    error: JobsError | None = None
    """Why it was refused."""


Moves = list[Moved]


class Change(Door):
    """The verbs that change what is stored."""

    def cancel(self, job: int | Job) -> str:
        """`cancelled`, or `requested` of a running job; IllegalMove if it is finished."""
        number = id_of(job)
        with self._store() as store:
            return store.cancel(number)

    @overload
    def requeue(self, job: Job[R]) -> Job[R]: ...
    @overload
    def requeue(self, job: int) -> Job: ...
    def requeue(self, job: int | Job) -> Job:
        """Start a finished job over at attempt 0, its history kept; UniqueTaken names a holder."""
        number = id_of(job)
        with self._store() as store, store.transaction():
            store.requeue(number)
            # Before the commit: soon after it the job may be done and gone.
            return store.get(number)

    def reschedule(
        self, job: int | Job, *, run_in: Duration | None = None, run_at: datetime | None = None
    ) -> str:
        """Let a job that waits be due at another time, without either at once; the state it has then.

        That is `pending`, `scheduled`, or `blocked`: such a one goes on waiting for what it waits for, and
        then for its time. IllegalMove if it runs, is finished, or would have expired by then.
        """
        number, due = id_of(job), Due.of(run_in=run_in, run_at=run_at)
        with self._store() as store:
            return store.reschedule(number, due)

    def cancel_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`cancel` of each in one transaction; what became of each, in order.

        One that cannot be cancelled is told as such and stops nothing. Give thousands, not
        millions: nobody else may write meanwhile.
        """
        return self._move_many(jobs, lambda store, job: store.cancel(job))

    def requeue_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`requeue` of each in one transaction, as `cancel_many` cancels."""
        return self._moved_many(jobs, requeued_each)

    def reschedule_many(
        self,
        jobs: Iterable[int | Job],
        *,
        run_in: Duration | None = None,
        run_at: datetime | None = None,
    ) -> Moves:
        """`reschedule` of each in one transaction, as `cancel_many` cancels."""
        due = Due.of(run_in=run_in, run_at=run_at)
        return self._move_many(jobs, lambda store, job: store.reschedule(job, due))

    def _move_many(self, jobs: Iterable[int | Job], move: Callable[[Store, int], str]) -> Moves:
        return self._moved_many(jobs, lambda store, numbers: moved_each(store, numbers, move))

    def _moved_many(
        self, jobs: Iterable[int | Job], act: Callable[[Store, list[int]], Moves]
    ) -> Moves:
        numbers = [id_of(job) for job in jobs]
        with self._store() as store, store.transaction():
            return act(store, numbers)

    def prune(self, older_than_ms: Mapping[str, int], *, dry_run: bool = False) -> dict[str, int]:
        """Remove finished jobs older than their state's time; how many, by state.

        One that says itself how long it is kept (`keep=`), or whose key is held longer, is spared.
        """
        ages = {state_of(state): age for state, age in older_than_ms.items()}
        return self.prune_by(rules_of(ages), kept=False, dry_run=dry_run)

    def prune_by(
        self, rules: Iterable[Rule], *, kept: bool = True, dry_run: bool = False
    ) -> dict[str, int]:
        """Remove the jobs whose time is over by these rules; how many, by state.

        With `kept` those too that say themselves how long they are kept, under that name.
        """
        rules = list(rules)
        if dry_run:
            with self._store() as store:
                counted = {state.value: number for state, number in store.prunable(rules).items()}
                return counted | ({"kept": store.prunable_kept()} if kept else {})
        gone = {rule.state.value: 0 for rule in rules}
        for rule in rules:
            gone[rule.state.value] += self._pruned([rule])
        return gone | ({"kept": self._pruned([])} if kept else {})

    def _pruned(self, rules: Iterable[Rule]) -> int:
        """Page by page, so that others get in between."""
        pruner, gone, more = Pruner(rules, self._clock, kept=not rules), 0, True
        while more:
            with self._store() as store:
                step = pruner.step(store)
            gone, more = gone + step.gone, step.more
        return gone

    def migrate(self) -> tuple[int, int]:
        """Create or update the schema; its number before and after."""
        with self._store() as store:
            return store.migrate()


def moved_each(store: Store, jobs: Sequence[int], move: Callable[[Store, int], str]) -> Moves:
    """Move each, within a transaction; what became of each, in order."""
    # Rows are locked in id order, as everybody does it: else two of these, or one and a worker's
    # turn, stand in each other's way on PostgreSQL.
    return _moved_in(sorted(jobs), store, jobs, move)


def requeued_each(store: Store, jobs: Sequence[int]) -> Moves:
    """Requeue each, within a transaction; what became of each, in order."""
    return _moved_in(store.requeue_order(jobs), store, jobs, _requeued)


def _moved_in(
    order: Iterable[int], store: Store, jobs: Sequence[int], move: Callable[[Store, int], str]
) -> Moves:
    """In this order; of a job that is named twice each time by itself."""
    moved: dict[int, list[Moved]] = {}
    for job in order:
        moved.setdefault(job, []).append(_moved(store, job, move))
    return [moved[job].pop(0) for job in jobs]


def _moved(store: Store, job: int, move: Callable[[Store, int], str]) -> Moved:
    try:
        return Moved(job, move(store, job))
    except (IllegalMove, JobNotFound) as error:
        return Moved(job, "refused", error)


def _requeued(store: Store, job: int) -> str:
    """Requeue one; what it is then."""
    store.requeue(job)
    return "pending"
