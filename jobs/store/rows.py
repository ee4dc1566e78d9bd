"""Rows of the database to the values an application sees."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.encode import Unreadable
from jobvisor.jobs.errors import InvalidOption, PayloadError
from jobvisor.jobs.headers import decode_headers
from jobvisor.jobs.job import Attempt, Claimed, Job, NewJob, Special, State, Summary
from jobvisor.jobs.keep import read_keep
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.base import AttemptRow, JobRow, Sight, SummaryRow
from jobvisor.jobs.uniqueness import KEPT, UNFINISHED, WAITING
from jobvisor.jobs.units import duration_text

Row = tuple[Any, ...]

# A day short of what a datetime can hold, so that it has a form in every time zone.
FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
NO_TURNS: Mapping[int, int] = MappingProxyType({})
_but_the_last = itemgetter(slice(0, -1))
_priority = itemgetter(Claimed._fields.index("priority"))
_special = itemgetter(Claimed._fields.index("special"))
# As `Claimed._make`, but for a look at the number of columns: half of its time, for each job that is claimed.
_claimed = partial(tuple.__new__, Claimed)


class Changed(NamedTuple):
    """What a statement that moves a row returns of it."""

    state: str
    task: str
    queue: str
    attempt: int
    attempts_max: int
    limit_key: str | None = None


class Stored(NamedTuple):
    """What is known of a new job when it has been stored."""

    state: str
    run_at: int
    created_at: int
    expires_at: int | None


def sight_of(due_ms: int | None, *, owned: bool) -> Sight:
    """A look that found no pending row, by when there is something to find."""
    if due_ms is None:
        return Sight(False, None, owned)
    return Sight(due_ms <= 0, max(due_ms, 0), owned)


def job_of(columns: Row, payload: Payload) -> Job:
    """A stored job as it is shown. What cannot be read says why in its place: no row hides others."""
    row = JobRow(*columns)
    return Job(
        id=row.id,
        task=row.task,
        args=shown_value(row.args, payload),
        kwargs=shown_value(row.kwargs, payload),
        queue=row.queue,
        priority=row.priority,
        state=State(row.state),
        run_at=moment_of(row.run_at),
        attempt=row.attempt,
        attempts_max=row.attempts_max,
        timeout=row.timeout_ms / 1000 if row.timeout_ms else None,
        memory=row.memory_bytes or None,
        unique=row.unique_key or row.held_key,
        result=None if row.result is None else shown_value(row.result, payload),
        error=row.error,
        progress=_progress(row.progress),
        cancel_requested=bool(row.cancel_requested),
        losses=row.losses,
        owner=row.owner,
        claim=row.claim,
        created_at=moment_of(row.created_at),
        claimed_at=moment_or_none(row.claimed_at),
        started_at=moment_or_none(row.started_at),
        finished_at=moment_or_none(row.finished_at),
        expires_at=moment_or_none(row.expires_at),
        deferred=row.deferred,
        headers=_headers(row.headers),
        parent=row.parent,
        company=row.company,
        cpu_ms=row.cpu_ms,
        rss_bytes=row.rss_bytes,
        limit=row.limit_key,
        share=row.share,
        weight=row.weight,
        parked=row.parked,
        place=row.limit_place,
        deadline_at=moment_or_none(row.deadline_at),
        keep=read_keep(row.keep),
        unique_for=_unique_for(row),
        unique_until=moment_or_none(row.held_until),
    )


def new_job_of(number: int, job: NewJob, stored: Stored, payload: Payload) -> Job:
    """A job as it was just stored; `stored` are the moments that the database has of it."""
    created = moment_of(stored.created_at)
    return Job(
        id=number,
        task=job.task,
        args=shown_value(job.args, payload),
        kwargs=shown_value(job.kwargs, payload),
        queue=job.queue,
        priority=job.priority,
        state=State(stored.state),
        run_at=created if stored.run_at == stored.created_at else moment_of(stored.run_at),
        attempt=0,
        attempts_max=job.attempts_max,
        timeout=job.timeout_ms / 1000 if job.timeout_ms else None,
        memory=job.memory_bytes or None,
        unique=job.unique_key,
        result=None,
        error=None,
        progress=None,
        cancel_requested=False,
        losses=0,
        owner=None,
        claim=None,
        created_at=created,
        claimed_at=None,
        started_at=None,
        finished_at=None,
        expires_at=moment_or_none(stored.expires_at),
        deferred=None,
        headers=_headers(job.headers),
        parent=job.parent,
        company=None,
        cpu_ms=None,
        rss_bytes=None,
        unique_for=UNFINISHED if job.unique_key is not None else None,
    )


def decoded(job: Job, payload: Payload) -> Job:
    """A job whose values are still the texts that are stored, as it is shown."""
    args: Any = job.args
    kwargs: Any = job.kwargs
    return replace(
        job,
        args=shown_value(args, payload),
        kwargs=shown_value(kwargs, payload),
        result=None if job.result is None else shown_value(job.result, payload),
    )


def _unique_for(row: JobRow) -> str | None:
    """How long its key is held, as a job tells it."""
    if row.held_key is None:
        return None if row.unique_key is None else UNFINISHED
    if row.special & Special.DEBOUNCED:
        return WAITING
    if row.held_until is None:
        return KEPT
    return duration_text(max(row.held_until - row.created_at, 0))


def shown_value(text: str, payload: Payload) -> Any:
    """A stored value for people; what cannot be read says why in its place."""
    try:
        return payload.decode(text, lenient=True)
    except PayloadError as error:
        return Unreadable("$unreadable", str(error))


def moment_of(ms: int) -> datetime:
    """A moment that no calendar has stands at the nearest end of the years that people write."""
    try:
        return to_datetime(ms)
    except InvalidOption:
        return FIRST if ms < 0 else LAST


def moment_or_none(ms: int | None) -> datetime | None:
    """The same where there may be none."""
    return None if ms is None else moment_of(ms)


def _progress(text: str | None) -> dict[str, Any] | None:
    """A stranger may have written anything there; that must not hide the job."""
    try:
        told = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _headers(text: str | None) -> dict[str, Any]:
    """A stranger may have written anything there, too: it says so in its place."""
    try:
        return dict(decode_headers(text))
    except PayloadError as error:
        return {"$unreadable": str(error)}


def attempt_of(columns: Row) -> Attempt:
    """One run of the history as it is shown."""
    job, *run = columns
    row = AttemptRow._make(run)
    moments = {
        "started_at": moment_or_none(row.started_at),
        "finished_at": moment_of(row.finished_at),
    }
    return Attempt(job, **{**row._asdict(), **moments})


def summary_of(columns: Row) -> Summary:
    """A stored job in short."""
    row = SummaryRow._make(columns)
    return Summary(
        id=row.id,
        task=row.task,
        queue=row.queue,
        priority=row.priority,
        state=State(row.state),
        run_at=moment_of(row.run_at),
        attempt=row.attempt,
        attempts_max=row.attempts_max,
        deferred=row.deferred,
        cancel_requested=bool(row.cancel_requested),
        claimed_at=moment_or_none(row.claimed_at),
        started_at=moment_or_none(row.started_at),
        finished_at=moment_or_none(row.finished_at),
        error=row.error,
        progress=_progress(row.progress),
    )


def any_special(rows: Iterable[Row]) -> bool:
    """Whether something must be looked at before one of these claimed rows runs."""
    return any(map(_special, rows))


def with_places(jobs: list[Claimed], places: Mapping[int, int | None]) -> list[Claimed]:
    """Claimed jobs with the places that some of them have of their limits."""
    if not places:
        return jobs
    return [job._replace(place=places[job.id]) if job.id in places else job for job in jobs]


def in_order(rows: list[Row], turns: Mapping[int, int] = NO_TURNS) -> list[Claimed]:
    """Claimed rows in the order to run them: RETURNING promises none. `turns` are those of a fair queue.

    Or each row has its turn behind what a Claimed has.
    """
    if rows and len(rows[0]) > len(Claimed._fields):
        rows.sort(key=itemgetter(0))
        rows.sort(key=itemgetter(-1))
        rows = list(map(_but_the_last, rows))
    elif turns:
        in_turns = [(turns.get(row[0], 0), row) for row in rows]
        in_turns.sort()  # within a turn by id, which no two rows have
        rows = [row for _turn, row in in_turns]
    else:
        rows.sort(key=itemgetter(0))
    rows.sort(key=_priority, reverse=True)
    return list(map(_claimed, rows))


def with_deadlines(jobs: list[Claimed], left_ms: Mapping[int, int]) -> list[Claimed]:
    """Claimed jobs with the time that is left for some of them, where that is shorter than their timeout."""
    return [
        job._replace(timeout_ms=max(0, left_ms[job.id]), special=job.special | Special.LAST)
        if job.id in left_ms and not 0 < job.timeout_ms < left_ms[job.id]
        else job
        for job in jobs
    ]
