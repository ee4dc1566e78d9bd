"""A schedule: which task is enqueued with which arguments, and when; as it is wanted, and as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from jobvisor.jobs.clock import iso
from jobvisor.jobs.encode import plain
from jobvisor.jobs.errors import InvalidOption, PayloadError, shown
from jobvisor.jobs.job import NewJob, json_id
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.task import NAME_MAX, Call, Defaults, check_queue
from jobvisor.jobs.units import duration_text

if TYPE_CHECKING:  # zones and cron are read only where there is a schedule
    from jobvisor.jobs.timing import Timing

__all__ = [
    "ADDED",
    "CATCH_UPS",
    "CODE",
    "CONFIG",
    "DIGESTED",
    "MADE",
    "OVERLAPS",
    "Declared",
    "Plan",
    "Schedule",
    "ScheduleRow",
    "Seen",
    "Upcoming",
    "check_schedule_name",
    "made_keys",
    "planned",
]

CATCH_UPS = ("latest", "all", "none")
"""What is made of ticks that nobody was there for: one job for the newest, one for each, none."""

OVERLAPS = ("allow", "skip")
"""Whether a tick makes a job while that of the tick before is unfinished."""

CONFIG, CODE, ADDED = "config", "code", "added"
"""Where a schedule comes from: `[[schedules]]`, `@task(cron=)`, or somebody added it at run time."""

MADE = ("unique", "limit", "share", "weight")
"""Options that may be a function of the arguments."""

DIGESTED = "same"
"""Under this word `Plan.keys` has the unique key of a task that says True."""


class Plan(NamedTuple):
    """What a schedule is to be, as plain column values."""

    name: str
    task: str
    cron: str | None
    every_ms: int | None
    anchor: int
    timezone: str
    args: str
    """Payload text of a list."""
    kwargs: str
    """Payload text of an object."""
    keys: str
    """JSON: the keys that the task's functions make of these arguments, by the name of the option."""
    queue: str | None
    """None is what the task says."""
    catch_up: str
    overlap: str
    paused: bool = False


class ScheduleRow(NamedTuple):
    """One schedule as it is stored: every column; moments are UTC milliseconds."""

    name: str
    source: str
    family: str | None
    """The name of the family that declares it."""
    declared_by: str
    """JSON: the ids of the families that do, as texts."""
    task: str
    cron: str | None
    every_ms: int | None
    anchor: int
    timezone: str
    args: str
    kwargs: str
    keys: str
    queue: str | None
    catch_up: str
    overlap: str
    paused_config: int
    paused_at: int | None
    last_tick: int
    """Up to this moment ticks have been looked after."""
    last_job: int | None
    created_at: int

    @property
    def is_paused(self) -> bool:
        """By its configuration, or at run time."""
        return bool(self.paused_config) or self.paused_at is not None


class Seen(NamedTuple):
    """A schedule, when it was looked at by the database's clock, and the newest tick that made a job."""

    now_ms: int
    made_ms: int | None
    row: ScheduleRow


class Upcoming(NamedTuple):
    """What a look needs of a schedule that is not paused; moments are UTC milliseconds."""

    now_ms: int
    name: str
    task: str
    cron: str | None
    every_ms: int | None
    anchor: int
    timezone: str
    last_tick: int


class Declared(NamedTuple):
    """What became of the schedules that a family declares, by their names."""

    changed: list[str]
    """They are new, or others than before."""
    removed: list[str]
    """Nobody declares them any more."""
    refused: dict[str, str]
    """Somebody else has the name: who."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule as it stands."""

    name: str
    source: str
    """`config`, `code`, or `added` at run time."""
    family: str | None
    """The name of the family whose configuration or code declares it."""
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str | None
    """None is what the task says."""
    cron: str | None
    every: float | None
    """Seconds."""
    anchor: datetime | None
    """From where `every` counts."""
    timezone: str
    catch_up: str
    overlap: str
    paused: str | None
    """`config` or `run time`: by what it is paused; None where it is not."""
    paused_at: datetime | None
    last_tick: datetime | None
    """The newest tick that made a job, within 35 days."""
    last_job: int | None
    """The job of the last tick."""
    next: tuple[datetime, ...]
    """The next three ticks, in its time zone; empty while it is paused."""
    words: str
    """When it ticks, in words; what is wrong with it where it cannot tick."""
    late: float
    """For so many seconds a tick has been due that nobody has looked after; 0 where there is none."""
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes: times in ISO 8601, `next` with the offset of its zone."""
        return {
            "name": self.name,
            "source": self.source,
            "family": self.family,
            "task": self.task,
            "args": _users_value(self.args),
            "kwargs": _users_value(self.kwargs),
            "queue": self.queue,
            "cron": self.cron,
            "every": self.every,
            "anchor": _iso(self.anchor),
            "timezone": self.timezone,
            "catch_up": self.catch_up,
            "overlap": self.overlap,
            "paused": self.paused,
            "paused_at": _iso(self.paused_at),
            "last_tick": _iso(self.last_tick),
            "last_job": None if self.last_job is None else json_id(self.last_job),
            "next": [each.isoformat() for each in self.next],
            "words": self.words,
            "late": self.late,
            "created_at": _iso(self.created_at),
        }

    @property
    def when(self) -> str:
        """As it is written: `0 3 * * * Europe/Berlin`, `every 15m`."""
        if self.every is not None:
            return f"every {duration_text(round(self.every * 1_000))}"
        return f"{self.cron} {self.timezone}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _users_value(value: Any) -> Any:
    try:
        return plain(value)
    except PayloadError as error:
        return {"$unreadable": str(error)}


def check_schedule_name(value: Any) -> str:
    """A schedule's name, or an InvalidOption.

    >>> check_schedule_name("nightly")
    'nightly'
    """
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_MAX or not value.isprintable():
        raise InvalidOption(
            f"name={shown(value)} is no name of a schedule: write 1 to {NAME_MAX} printable characters"
        )
    return value


def planned(
    name: str,
    call: Call,
    timing: Timing,
    *,
    payload: Payload,
    queue: str | None = None,
    catch_up: str = "latest",
    overlap: str = "allow",
    paused: bool = False,
) -> Plan:
    """Judge what a person wrote: an InvalidOption or PayloadError says what is wrong with it.

    Where the call has its function, that must take these arguments, and is asked for the keys it makes.
    """
    check_schedule_name(name)
    _check_word("catch_up", catch_up, CATCH_UPS)
    _check_word("overlap", overlap, OVERLAPS)
    new = call.new_job(Defaults(), payload)
    return Plan(
        name=name,
        task=call.task,
        cron=timing.cron,
        every_ms=timing.every_ms,
        anchor=timing.anchor_ms,
        timezone=timing.timezone,
        args=new.args,
        kwargs=new.kwargs,
        keys=json.dumps(made_keys(call, new)),
        queue=None if queue is None else check_queue("queue", queue),
        catch_up=catch_up,
        overlap=overlap,
        paused=paused,
    )


def made_keys(call: Call, new: NewJob) -> Mapping[str, str | int]:
    """The keys that functions of a task make of these arguments, by the option.

    Who enqueues has neither the functions of the task nor a codec to read its arguments with.
    """
    terms = new.terms
    made = {
        "unique": new.unique_key,
        "limit": None if terms is None else terms.limit_key,
        "share": None if terms is None else terms.share,
        "weight": None if terms is None else terms.weight,
    }
    options = call.options
    found: dict[str, str | int] = {
        name: key or "" for name, key in made.items() if callable(getattr(options, name))
    }
    if options.unique is True or call.function is None:
        found[DIGESTED] = call.same_key()
    return found


def _check_word(option: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InvalidOption(f"{option}={shown(value)} must be one of {', '.join(words)}")
