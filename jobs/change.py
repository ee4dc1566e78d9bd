"""What an application does to jobs that there are: cancel, requeue, prune; and to their tables: migrate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar, overload

from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.errors import IllegalMove, JobNotFound, JobsError
from jobvisor.jobs.filter import state_of
from jobvisor.jobs.job import Job, State
from jobvisor.jobs.store import Store

__all__ = ["Change", "Moved", "Moves", "moved_each", "requeued"]

R = TypeVar("R")

PRUNED_AT_ONCE = 1000


class Moved(NamedTuple):
    """What became of one of many jobs."""

    id: int
    outcome: str
    """`pending`, `cancelled`, `requested` (of a running one), or `refused`."""
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

    def cancel_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`cancel` of each in one transaction; what became of each, in order.

        One that cannot be cancelled is told as such and stops nothing. Give thousands, not
        millions: nobody else may write meanwhile.
        """
        return self._move_many(jobs, lambda store, job: store.cancel(job))

    def requeue_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`requeue` of each in one transaction, as `cancel_many` cancels."""
        return self._move_many(jobs, requeued)

    def _move_many(self, jobs: Iterable[int | Job], move: Callable[[Store, int], str]) -> Moves:
        numbers = [id_of(job) for job in jobs]
        with self._store() as store, store.transaction():
            return moved_each(store, numbers, move)

    def prune(self, older_than_ms: Mapping[str, int], *, dry_run: bool = False) -> dict[str, int]:
        """Remove finished jobs older than their state's time; how many, by state."""
        ages = {state_of(state): age for state, age in older_than_ms.items()}
        with self._store() as store:
            counted = store.prunable(ages)
            if not dry_run:
                for state, age in ages.items():
                    counted[state] = _prune_all(store, state, age)
        return {state.value: number for state, number in counted.items()}

    def migrate(self) -> tuple[int, int]:
        """Create or update the schema; its number before and after."""
        with self._store() as store:
            return store.migrate()


def moved_each(store: Store, jobs: Sequence[int], move: Callable[[Store, int], str]) -> Moves:
    """Move each, within a transaction; what became of each, in order."""
    moved: dict[int, Moved] = {}
    # Rows are locked in id order, as everybody does it: else two of these, or one and a worker's
    # turn, stand in each other's way on PostgreSQL.
    for place in sorted(range(len(jobs)), key=jobs.__getitem__):
        moved[place] = _moved(store, jobs[place], move)
    return [moved[place] for place in range(len(jobs))]


def _moved(store: Store, job: int, move: Callable[[Store, int], str]) -> Moved:
    try:
        return Moved(job, move(store, job))
    except (IllegalMove, JobNotFound) as error:
        return Moved(job, "refused", error)


def requeued(store: Store, job: int) -> str:
    """Requeue one; what it is then."""
    store.requeue(job)
    return "pending"


def _prune_all(store: Store, state: State, age: int) -> int:
    gone = 0
    while number := store.prune({state: age}, limit=PRUNED_AT_ONCE):
        gone += number
    return gone
