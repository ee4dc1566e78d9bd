"""Rows of the database to the values an application sees."""

from __future__ import annotations

import json
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.job import Attempt, Claimed, Job, State
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.base import AttemptRow, JobRow

Row = tuple[Any, ...]


class Changed(NamedTuple):
    """What a statement that moves a row returns of it."""

    state: str
    task: str
    queue: str
    attempt: int
    attempts_max: int


def job_of(columns: Row, payload: Payload) -> Job:
    """A stored job as it is shown; lenient, so that no row hides the others from `list`."""
    row = JobRow(*columns)
    return Job(
        id=row.id,
        task=row.task,
        args=payload.decode(row.args, lenient=True),
        kwargs=payload.decode(row.kwargs, lenient=True),
        queue=row.queue,
        priority=row.priority,
        state=State(row.state),
        run_at=to_datetime(row.run_at),
        attempt=row.attempt,
        attempts_max=row.attempts_max,
        timeout=row.timeout_ms / 1000 if row.timeout_ms else None,
        memory=row.memory_bytes or None,
        unique=row.unique_key,
        result=None if row.result is None else payload.decode(row.result, lenient=True),
        error=row.error,
        progress=_progress(row.progress),
        cancel_requested=bool(row.cancel_requested),
        losses=row.losses,
        owner=row.owner,
        claim=row.claim,
        created_at=to_datetime(row.created_at),
        claimed_at=None if row.claimed_at is None else to_datetime(row.claimed_at),
        started_at=None if row.started_at is None else to_datetime(row.started_at),
        finished_at=None if row.finished_at is None else to_datetime(row.finished_at),
        expires_at=None if row.expires_at is None else to_datetime(row.expires_at),
        deferred=row.deferred,
    )


def _progress(text: str | None) -> dict[str, Any] | None:
    """A stranger may have written anything there; that must not hide the job."""
    try:
        told = None if text is None else json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def attempt_of(columns: Row) -> Attempt:
    """One run of the history as it is shown."""
    job, *run = columns
    row = AttemptRow._make(run)
    moments = {
        "started_at": None if row.started_at is None else to_datetime(row.started_at),
        "finished_at": to_datetime(row.finished_at),
    }
    return Attempt(job, **{**row._asdict(), **moments})


def in_order(rows: list[Row]) -> list[Claimed]:
    """Claimed rows in the order to run them: RETURNING promises none."""
    rows.sort(key=itemgetter(0))
    jobs = [Claimed._make(row) for row in rows]
    jobs.sort(key=attrgetter("priority"), reverse=True)
    return jobs
