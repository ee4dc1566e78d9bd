"""What enqueueing one job asks of a database, apart from the connection that asks it.

The store asks over its own connection; an application may ask over one of its own, so that the job
commits together with its rows.

Who holds a unique key stands in one of two places: an unfinished job with it in `jobs`, or a row of
`uniques`. Every enqueuer of a key inserts its job under it first. The unique index lets one of them
through, until its transaction ends; the others wait there, and see what it has done in their next
statement. Only then is `uniques` looked at: a look in the same statement is older than what that waits for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from jobvisor.jobs.errors import RowRefused, StoreUnavailable, UniqueTaken
from jobvisor.jobs.job import NewJob, Terms

MOVES_MET = 10  # a row may move between two statements about it, but not for ever

Row = tuple[Any, ...]
Ask = Callable[[str, Mapping[str, Any]], list[Row]]
"""Runs the statement of this name with these parameters; its rows, none of one that has no rows."""


class Enqueued(NamedTuple):
    """What became of a new job."""

    id: int
    """Its own, or that of the job that holds its unique key."""
    row: Row | None
    """The row as it was stored, in the first columns of the statement `get`; None where it was left alone."""
    replaced: bool = False
    """Whether it is the row of a waiting job, which has got what this one would have had."""
    left: str | None = None
    """The limit that this one had had, in whose line others may come before it now."""

    @property
    def created(self) -> bool:
        """Whether it is a new one."""
        return self.row is not None and not self.replaced


Steps = Generator[tuple[str, Mapping[str, Any]], list[Row], Enqueued]

_NO_TERMS = Terms()


def enqueueing(job: NewJob) -> Steps:
    """Each statement by name, with its parameters, in one transaction; it is sent the rows.

    A generator, so that it serves a connection that is awaited as well as one that blocks. UniqueTaken
    where the key is held and the job is not to be enqueued then.
    """
    statement = "enqueue" if job.terms is None else "enqueue_on_terms"
    look_first = needs_look(job)
    for _ in range(MOVES_MET):
        met = (yield from _meeting(job)) if look_first else None
        if met is not None:
            return met
        rows = yield statement, job.parameters()
        if not rows and job.unique_key is None:
            raise RowRefused("the database left the job out: a trigger on the table jobs skips it")
        if rows:
            row = (yield from _keyed(job, rows[0])) if job.unique_key is not None else rows[0]
            if row is not None:
                return Enqueued(row[0], row)
        # Somebody was quicker. Or whoever held the key finished between two statements: it is free again.
        look_first = True
    raise never_still(job)


def needs_look(job: NewJob) -> bool:
    """Whether it is asked who holds the key before the job is inserted: then mostly somebody does."""
    terms = job.terms or _NO_TERMS
    return job.unique_key is not None and (terms.is_held or terms.conflict != "return")


def is_held(job: NewJob) -> bool:
    """Whether a row of `uniques` is to hold its key."""
    return job.unique_key is not None and job.terms is not None and job.terms.is_held


def held_apart(number: int, job: NewJob) -> Mapping[str, Any]:
    """What the statements `take_key` and `hold_apart` are asked with, of a new job."""
    terms = job.terms or _NO_TERMS
    delays = terms.debounce_ms is not None
    return {
        "unique_key": job.unique_key,
        "job": number,
        "held_ms": terms.held_ms,
        "delays": delays,
        "expires": delays and job.expires_in_ms is not None,
        "ends": delays and terms.deadline_in_ms is not None,
    }


def _meeting(job: NewJob) -> Generator[tuple[str, Mapping[str, Any]], list[Row], Enqueued | None]:
    """What becomes of it where another job holds its key; None: no job does."""
    key = {"unique_key": job.unique_key}
    conflict = (job.terms or _NO_TERMS).conflict
    for _ in range(MOVES_MET):
        rows = yield "holder", key
        if not rows:
            return None
        holder, limit_key = rows[0]
        if conflict == "raise":
            raise UniqueTaken(
                f"job {holder} holds the unique key {job.unique_key!r}; nothing was enqueued",
                holder=holder,
            )
        if conflict == "return":
            return Enqueued(holder, None)
        row = yield from _replacing(job, holder)
        if row is not None:
            return Enqueued(holder, row, replaced=True, left=limit_key)
        rows = yield "holder", key
        if rows and rows[0][0] == holder:
            return Enqueued(holder, None)  # it runs, or has: it is left alone
    raise never_still(job)


def _replacing(
    job: NewJob, holder: int
) -> Generator[tuple[str, Mapping[str, Any]], list[Row], Row | None]:
    """The row of the holder with what the job has; None where it does not wait any more."""
    yield "hold_place", {}
    rows = yield "replace", {**job.parameters(), "holder": holder}
    # Between the look and the change it may have been claimed, and come back without its key.
    still = (yield "holder", {"unique_key": job.unique_key}) if rows else []
    if not still or still[0][0] != holder:
        yield "let_go", {}
        yield "replaced", {}
        return None
    yield "replaced", {}
    *row, is_due = rows[0]
    if not is_due:
        return tuple(row)
    yield "promote_row", {"job": holder}
    rows = yield "get", {"job": holder}
    return rows[0]


def _keyed(
    job: NewJob, row: Row
) -> Generator[tuple[str, Mapping[str, Any]], list[Row], Row | None]:
    """The new row once it holds its key; None, and it is gone, where another job does."""
    asked = held_apart(row[0], job)
    if not is_held(job):
        keys = {"keys": keys_of([job])}
        found = yield "held_keys", keys
        if found and not found[0][1]:
            yield "free_keys", keys
        if not found or not found[0][1]:
            return row
    elif (yield "take_key", asked):
        return (yield "hold_apart", asked)[0]
    yield "give_way", asked
    return None


def keys_of(jobs: Iterable[NewJob]) -> str:
    """Their unique keys, as statements take a list."""
    return json.dumps([job.unique_key for job in jobs if job.unique_key is not None])


@contextmanager
def told_of_twins(job: NewJob, made: Iterable[tuple[int, bool]]) -> Iterator[None]:
    """Where the holder of its key is one of those that are enqueued with it, name no job that will not be."""
    try:
        yield
    except UniqueTaken as error:
        if (error.holder, True) not in made:
            raise
        raise UniqueTaken(
            f"two of these jobs have the unique key {job.unique_key!r}; nothing was enqueued"
        ) from None


def never_still(job: NewJob) -> StoreUnavailable:
    """What is raised where others took and freed a unique key again and again meanwhile."""
    return StoreUnavailable(
        f"the unique key {job.unique_key!r} was taken and freed {MOVES_MET} times while "
        f"this job was enqueued; try again"
    )


def carried_out(steps: Steps, ask: Ask) -> Enqueued:
    """Ask for each of the steps, over a connection that blocks."""
    statement = next(steps)
    while True:
        rows = ask(*statement)
        try:
            statement = steps.send(rows)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
