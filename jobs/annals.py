"""What is kept beside the jobs: sums by the minute, who did what, which tasks and families there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.clock import iso, to_datetime

__all__ = [
    "QUEUE",
    "TASK",
    "Action",
    "Family",
    "FamilyLife",
    "KnownTask",
    "Paused",
    "Queue",
    "Sums",
]

MINUTE_MS = 60_000

QUEUE, TASK = "queue", "task"
"""What can be paused."""


class Sums(NamedTuple):
    """What became of the jobs of one queue in one minute, or in several.

    Those of several families add up: each number is a sum, of the last three the greatest.
    """

    at_ms: int
    """When it begins, in UTC milliseconds."""
    queue: str
    """Empty where all queues are meant."""
    started: int = 0
    """Runs that began."""
    succeeded: int = 0
    failed: int = 0
    """Jobs that failed for good."""
    retried: int = 0
    """Runs that failed and are to be tried again."""
    cancelled: int = 0
    run_ms: int = 0
    """How long the runs that ended took, together."""
    cpu_ms: int = 0
    wait_ms: int = 0
    """How long the runs that began had been due, together."""
    wait_max_ms: int = 0
    """And the longest of them."""
    depth: int | None = None
    """The most jobs that were seen pending; None where nobody has looked. Of several queues together."""
    oldest_ms: int | None = None
    """The longest that one of those had been due."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        told = self._asdict()
        return {"at": iso(to_datetime(told.pop("at_ms"))), **told}


class Action(NamedTuple):
    """What somebody has done to jobs or to a family."""

    id: int
    at: datetime
    who: str
    verb: str
    """In a word: cancel, requeue, prune, enqueue, scale, reload, ..."""
    what: str
    """To what: a filter in words, or a job."""
    number: int | None
    """To how many; None where that has no number."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {**self._asdict(), "at": iso(self.at)}


class KnownTask(NamedTuple):
    """A task that a worker has registered."""

    name: str
    told: Mapping[str, Any]
    """What it has told of it: options, parameters, documentation."""
    seen_at: datetime
    """When a worker has told it last."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"name": self.name, **self.told, "seen_at": iso(self.seen_at)}


class Paused(NamedTuple):
    """A queue or a task whose jobs are not claimed."""

    kind: str
    """`queue` or `task`."""
    name: str
    since: datetime
    until: datetime | None
    """When it ends by itself; None: when somebody resumes it."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"kind": self.kind, "name": self.name, **self.moments()}

    def moments(self) -> dict[str, str | None]:
        """Since when and until when, as JSON has them."""
        until = None if self.until is None else iso(self.until)
        return {"since": iso(self.since), "until": until}

    def __str__(self) -> str:
        until = "" if self.until is None else f" until {iso(self.until)}"
        return f"paused since {iso(self.since)}{until}"


class Queue(NamedTuple):
    """How one queue stands."""

    counts: dict[str, int]
    """State to number of jobs; without those that none is in."""
    oldest: float | None
    """For how many seconds the longest waiting of its next jobs has been due."""
    paused: Paused | None
    """Since when none of them begins, and until when."""


@dataclass(frozen=True, slots=True)
class FamilyLife:
    """A process of a family that may hold running jobs."""

    owner: int
    """What `Job.owner` says of those that it holds."""
    name: str
    host: str
    pid: int
    started_at: datetime

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; `owner` as a text."""
        return {
            "owner": str(self.owner),
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
            "started_at": iso(self.started_at),
        }


@dataclass(frozen=True, slots=True)
class Family:
    """A family, as the database knows it."""

    id: int
    name: str
    host: str
    pid: int
    version: str
    state_dir: str
    started_at: datetime
    heartbeat_at: datetime
    silent: float
    """Seconds since its last heartbeat."""
    dead_after: float
    """After so many seconds of silence others take its jobs."""
    died: bool
    """It was declared dead, and is being settled."""
    lives: tuple[FamilyLife, ...]

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; `id` as a text."""
        told = {name: getattr(self, name) for name in self.__slots__}
        told |= {
            "id": str(self.id),
            "started_at": iso(self.started_at),
            "heartbeat_at": iso(self.heartbeat_at),
            "lives": [life.as_json() for life in self.lives],
        }
        return told
