"""What a log record is told of the job that it was written in, for whatever handler it comes to."""

from __future__ import annotations

import logging
from typing import Any

from jobvisor.jobs.headers import TRACE
from jobvisor.jobs.running import running

FIELDS = ("job", "task", "queue", "attempt", "worker", TRACE)


class LogContext(logging.Filter):
    """Gives each record `job task queue attempt worker trace`, None outside of a job; it holds none back.

    A handler of yours has them for its format once it has this filter:

        handler.addFilter(jobvisor.LogContext())
        handler.setFormatter(logging.Formatter("%(message)s (job %(job)s, trace %(trace)s)"))

    What a record has already (by `extra=`) stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record."""
        known = record.__dict__
        for name, value in zip(FIELDS, _told(), strict=True):
            known.setdefault(name, value)
        return True


def _told() -> tuple[Any, ...]:
    found = running.get()
    if found is None:
        return (None,) * len(FIELDS)
    job, headers, _ends, _port, place = found
    return job.id, job.task, job.queue, job.attempt, place.worker, headers.get(TRACE)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What this filter has told of a record, without what is None."""
    told = {name: record.__dict__.get(name) for name in FIELDS}
    return {name: value for name, value in told.items() if value is not None}
