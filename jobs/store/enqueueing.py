"""What enqueueing one job asks of a database, apart from the connection that asks it.

The store asks over its own connection; an application may ask over one of its own, so that the job
commits together with its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from jobvisor.jobs.errors import RowRefused, StoreUnavailable
from jobvisor.jobs.job import NewJob

MOVES_MET = 10  # a row may move between two statements about it, but not for ever

Row = tuple[Any, ...]
Ask = Callable[[str, Mapping[str, Any]], list[Row]]
"""Runs the statement of this name with these parameters; its rows."""


class Enqueued(NamedTuple):
    """What became of a new job."""

    id: int
    """Its own, or that of the unfinished job that holds its unique key."""
    row: Row | None
    """The new row, in the columns of the statement `get`; None where there is none."""


Steps = Generator[tuple[str, Mapping[str, Any]], list[Row], Enqueued]


def enqueueing(job: NewJob) -> Steps:
    """Each statement by name, with its parameters, in one transaction; it is sent the rows.

    A generator, so that it serves a connection that is awaited as well as one that blocks.
    """
    statement = "enqueue" if job.terms is None else "enqueue_on_terms"
    for _ in range(MOVES_MET):
        rows = yield statement, job.parameters()
        if rows:
            return Enqueued(rows[0][0], rows[0])
        if job.unique_key is None:
            raise RowRefused("the database left the job out: a trigger on the table jobs skips it")
        holder = yield "holder", {"unique_key": job.unique_key}
        if holder:
            return Enqueued(holder[0][0], None)
        # Whoever held the key finished between the two statements: it is free again.
    raise never_still(job)


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
