"""Which job runs here: told by a context variable to whatever thread or asynchronous task inherits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.headers import TRACE, ambient, as_one
from jobvisor.jobs.job import Claimed, Job


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs run."""

    worker: str
    clock: Clock
    home: str = ""
    """The tables that the jobs are from, in one text."""
    state: MutableMapping[str, Any] = field(default_factory=dict)
    """What lives as long as the process, for what is dear to make."""
    look: Callable[[int], Job] | None = None
    """How a job of these tables is looked up; None where the default client does it."""


Running = tuple[Claimed, Mapping[str, Any], int, Any, Place]
"""A job, its headers, its deadline by the monotonic clock (0 for none), its port, and where it runs.

A tuple, because one is made for each job, and few jobs ask for it.
"""

running: ContextVar[Running | None] = ContextVar("jobvisor.running", default=None)


def sent_along(own: str | None, home: str) -> tuple[str | None, int | None]:
    """The headers of a new job that has these of its own, and its parent in these tables."""
    around, found = ambient(), running.get()
    if found is None:
        return as_one(around, own), None
    job, inherited, _ends, _port, place = found
    if TRACE in inherited:
        around = {TRACE: inherited[TRACE], **around}
    return as_one(around, own), job.id if place.home == home else None
