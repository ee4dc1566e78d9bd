"""A durable background-job queue on one SQL table, and a supervisor that runs the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobvisor import errors
from jobvisor.jobs import __version__
from jobvisor.jobs.client import Client, Moved, use_client
from jobvisor.jobs.context import Context, current
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.events import Event, subscribe
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.headers import headers
from jobvisor.jobs.job import Attempt, Job, State
from jobvisor.jobs.log_context import LogContext
from jobvisor.jobs.outcome import Cancelled, Fail, Release, Retry, Snooze
from jobvisor.jobs.payload import Codec
from jobvisor.jobs.registry import Registry, around, before_fork, on_start, on_stop, registry, task
from jobvisor.jobs.retry import DecorrelatedJitter, Exponential, Fixed
from jobvisor.jobs.task import Call, Defaults, Task
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.embed import Supervisor

if TYPE_CHECKING:
    from jobvisor.jobs.local_queue import LocalQueue

__all__ = [
    "Attempt",
    "Call",
    "Cancelled",
    "Client",
    "Codec",
    "Config",
    "Context",
    "DecorrelatedJitter",
    "Defaults",
    "Event",
    "Exponential",
    "Fail",
    "Filter",
    "Fixed",
    "Job",
    "JobsError",
    "LocalQueue",
    "LogContext",
    "Moved",
    "Registry",
    "Release",
    "Retry",
    "Snooze",
    "State",
    "Supervisor",
    "Task",
    "__version__",
    "around",
    "before_fork",
    "current",
    "errors",
    "headers",
    "on_start",
    "on_stop",
    "registry",
    "subscribe",
    "task",
    "use_client",
]


def __getattr__(name: str) -> Any:
    """`LocalQueue`, imported when it is first used: no worker and no command pays for its threads."""
    if name != "LocalQueue":
        raise AttributeError(f"module 'jobvisor' has no attribute {name!r}")
    from jobvisor.jobs.local_queue import LocalQueue  # noqa: PLC0415

    globals()[name] = LocalQueue
    return LocalQueue
