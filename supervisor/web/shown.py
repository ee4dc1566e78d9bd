"""Jobs as the site shows them: their documents, with what `[web] hide` hides masked, and bounded in lists."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from jobvisor.jobs.errors import JobNotFound, JobsError
from jobvisor.jobs.job import Job, State
from jobvisor.jobs.schedule import Schedule
from jobvisor.jobs.why import Reason
from jobvisor.supervisor.documents.queues import served_by
from jobvisor.supervisor.documents.said import Run, run_of, said_of
from jobvisor.supervisor.web.site import Site

__all__ = [
    "VALUE_MAX",
    "job_shown",
    "jobs_shown",
    "log_shown",
    "schedule_shown",
    "served_here",
    "whole_job_shown",
    "why_of",
]

VALUE_MAX = 16 * 1024
"""Bytes of one value in a list; a larger one is shown with its job alone."""

_VALUES = ("args", "kwargs", "result")


def job_shown(site: Site, job: Job) -> dict[str, Any]:
    """The document of one job."""
    return site.hiding.shown(job.as_json())


def schedule_shown(site: Site, schedule: Schedule) -> dict[str, Any]:
    """The document of one schedule."""
    return site.hiding.shown(schedule.as_json())


def jobs_shown(site: Site, jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Those of a list: a value that is large is left out, and {"$left_out": bytes} stands in its place."""
    return [_bounded(job_shown(site, job)) for job in jobs]


def whole_job_shown(site: Site, number: int) -> dict[str, Any]:
    """One job with its `attempts`, `why` it does not run, and what it `said` so far where it runs here."""
    job = site.client.get(number)
    attempts = site.client.attempts(number)
    words = _run(site, job)
    said = words.words() if words is not None else None
    return {
        **job_shown(site, job),
        "why": [reason.as_json() for reason in why_of(site, job)],
        "attempts": [attempt.as_json() for attempt in attempts],
        "said": said.kept.decode(errors="replace") if said is not None else None,
    }


def why_of(site: Site, job: Job) -> list[Reason]:
    """Why it does not run, as far as the database and the family of this machine tell it."""
    return site.client.why(job, served=served_here(site))


def served_here(site: Site) -> list[str] | None:
    """The queues that the family of this machine serves; None where there is none, or it does not say."""
    try:
        found = None if site.state is None else site.state.status()
    except JobsError:
        return None
    return served_by(found or {})


def log_shown(site: Site, number: int) -> list[dict[str, Any]]:
    """What each run of a job said, as `jobvisor logs JOB --json` tells it."""
    job = site.client.get(number)
    return said_of(job, site.client.attempts(number), _run(site, job))


def _run(site: Site, job: Job) -> Run | None:
    if site.state is None or job.state is not State.RUNNING:
        return None
    try:
        return run_of(site.state.ledgers, job)
    except (OSError, JobNotFound):
        return None


def _bounded(document: dict[str, Any]) -> dict[str, Any]:
    for name in _VALUES:
        size = _size(document[name])
        if size > VALUE_MAX:
            document[name] = {"$left_out": size}
    return document


def _size(value: Any) -> int:
    return len(json.dumps(value)) if isinstance(value, (list, dict, str)) else 0
