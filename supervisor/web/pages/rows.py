"""Jobs as the lists of pages show them, with what `[web] hide` names masked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from jobvisor.jobs.job import Job
from jobvisor.supervisor.documents.words import call, when_of
from jobvisor.supervisor.web.hiding import Hiding
from jobvisor.supervisor.web.pages.words import between

__all__ = ["Row", "rows"]

ERROR_MAX = 200
"""Letters of an error in a list."""


class Row(NamedTuple):
    """One job of many."""

    id: int
    state: str
    task: str
    call: str
    queue: str
    attempt: int
    attempts_max: int
    when: datetime
    took: float | None
    error: str
    cancel_requested: bool


def rows(jobs: Iterable[Job], hiding: Hiding) -> list[Row]:
    """In the order they come in."""
    return [_row(job, hiding) for job in jobs]


def _row(job: Job, hiding: Hiding) -> Row:
    shown = job.state not in ("succeeded", "cancelled")
    return Row(
        job.id,
        job.state.value,
        job.task,
        call(hiding.shown(job.as_json())),
        job.queue,
        job.attempt,
        job.attempts_max,
        when_of(job),
        between(job.started_at, job.finished_at) if job.finished else None,
        (job.error or "")[:ERROR_MAX] if shown else "",
        job.cancel_requested and not job.finished,
    )
