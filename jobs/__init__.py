"""What a job is and where it lives."""

from __future__ import annotations

from jobs.client import Client, use_client
from jobs.context import Context
from jobs.errors import JobsError
from jobs.job import Attempt, Job, State
from jobs.outcome import Cancelled, Fail, Release, Retry, Snooze
from jobs.payload import Codec
from jobs.registry import registry, task
from jobs.retry import DecorrelatedJitter, Exponential, Fixed

__version__ = "0.2.0"

__all__ = [
    "Attempt",
    "Cancelled",
    "Client",
    "Codec",
    "Context",
    "DecorrelatedJitter",
    "Exponential",
    "Fail",
    "Fixed",
    "Job",
    "JobsError",
    "Release",
    "Retry",
    "Snooze",
    "State",
    "registry",
    "task",
    "use_client",
]
