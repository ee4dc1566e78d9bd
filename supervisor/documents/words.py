"""How a job is written where there is little room, on a page and in a terminal: its call, its moment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from jobvisor.jobs.job import Job, State

__all__ = ["call", "readable", "when_of"]

CALL_MAX = 160
"""Letters of the arguments that a list shows; a job's own page has all of them."""

_TEXT_TAGS = frozenset({"$datetime", "$date", "$time", "$decimal", "$uuid", "$path"})


def call(told: Mapping[str, Any], limit: int = CALL_MAX) -> str:
    """The arguments of a job's document as a call has them, cut to what fits a list.

    >>> call({"args": ["a@b.c", {"$date": "2027-01-31"}], "kwargs": {"cc": []}})
    '"a@b.c", 2027-01-31, cc=[]'
    """
    text = ""
    for part in _parts(told):
        text += f", {part}" if text else part
        if len(text) > limit:  # what comes behind may be large, and is not shown
            return f"{text[:limit]}..."
    return text


def _parts(told: Mapping[str, Any]) -> Iterator[str]:
    yield from (readable(value) for value in told["args"])
    yield from (f"{name}={readable(value)}" for name, value in told["kwargs"].items())


def readable(value: Any) -> str:
    """A value as JSON; of one that JSON lacks what stands behind its tag."""
    if isinstance(value, dict) and len(value) == 1:
        ((tag, body),) = value.items()
        if tag in _TEXT_TAGS:
            return str(body[0] if isinstance(body, list) else body)
        if tag == "$enum" and isinstance(body, list):
            return str(body[-1])
    return json.dumps(value, ensure_ascii=False)


def when_of(job: Job) -> datetime:
    """The end of a finished job, the beginning of a running one, else when it is due."""
    if job.finished:
        return job.finished_at or job.run_at
    if job.state is State.RUNNING:
        return job.claimed_at or job.run_at
    return job.run_at
