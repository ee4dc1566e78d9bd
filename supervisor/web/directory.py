"""The tasks that workers have told of, kept for some seconds: each call of the API asks for them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from jobvisor.jobs.annals import KnownTask
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.described import described, parameter_names
from jobvisor.jobs.registry import registry

__all__ = ["Directory"]

KEPT_S = 5


class Directory:
    """What is known of tasks: by the database, and by this program where it has imported them."""

    def __init__(self, client: Client, clock: Clock = SYSTEM) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: dict[str, KnownTask] = {}
        self._read_at: int | None = None

    def tasks(self) -> Mapping[str, KnownTask]:
        """Those that workers have told of, by name."""
        with self._lock:
            now = self._clock.monotonic_ns()
            if self._read_at is None or now - self._read_at > KEPT_S * SECOND:
                self._tasks = {each.name: each for each in self._client.tasks()}
                self._read_at = now
            return self._tasks

    def find(self, name: str) -> KnownTask | None:
        """The task of this name, or that has it as an alias."""
        tasks = self.tasks()
        if name in tasks:
            return tasks[name]
        return next((each for each in tasks.values() if name in each.told.get("aliases", ())), None)

    def parameter_names(self, task: str) -> Sequence[str]:
        """What its arguments by place are called, in order; empty where nobody knows."""
        known = registry.get(task)
        if known is not None:
            return parameter_names(described(known))
        found = self.find(task)
        return parameter_names(found.told) if found is not None else ()
