"""What a worker is made of before it is known how many lanes it has."""

from __future__ import annotations

from dataclasses import dataclass

from jobvisor.jobs.client import Client
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.base import Waker, WorkerStore
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.successes import Successes


@dataclass(frozen=True, slots=True)
class Parts:
    """Made when it boots."""

    store: WorkerStore
    waker: Waker
    events: Events
    client: Client
    """The one that tasks enqueue with."""
    clean: Cleanliness
    successes: Successes
    database: str
    """The path of a SQLite file."""
