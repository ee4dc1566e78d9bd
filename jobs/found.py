"""What was found among many jobs, and whether all of them were looked at: no answer reads a whole table."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.clock import iso
from jobvisor.jobs.job import Job, json_id

__all__ = ["Count", "Failures", "Group", "Page", "Tally"]


class Page(NamedTuple):
    """Some jobs, the newest first."""

    jobs: list[Job]
    before: int | None
    """Where the next page begins; None: there is none. A page may be short, or empty, and not the last."""
    looked: int
    """How many jobs were looked at for it."""


class Count(NamedTuple):
    """How many jobs match."""

    number: int
    at_least: bool
    """There may be more: counting has ended at its limit."""

    def __str__(self) -> str:
        """As people read it: `17`, or `10000+`."""
        return f"{self.number}{'+' if self.at_least else ''}"

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"jobs": self.number, "at_least": self.at_least}


class Tally(NamedTuple):
    """How many jobs of each queue are in each state."""

    queues: dict[str, dict[str, int]]
    """Queue to state to number; without empty entries."""
    at_least: frozenset[str]
    """The states of which more jobs may be, of any queue: they were too many to be counted."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"queues": self.queues, "at_least": sorted(self.at_least)}


class Group(NamedTuple):
    """The failed jobs of one task with one type of error."""

    task: str
    error_type: str
    """What `Filter.error_type` finds them by."""
    jobs: Count
    first: datetime
    """When the first of them failed, and the last."""
    last: datetime
    example: int
    """The id of the last one."""
    message: str | None
    """And its error."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {
            "task": self.task,
            "error_type": self.error_type,
            **self.jobs.as_json(),
            "first": iso(self.first),
            "last": iso(self.last),
            "example": json_id(self.example),
            "message": self.message,
        }


class Failures(NamedTuple):
    """Failed jobs, by task and type of error."""

    groups: list[Group]
    """That whose last job failed last comes first."""
    at_least: bool
    """There are more groups than were looked at."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"groups": [each.as_json() for each in self.groups], "at_least": self.at_least}
