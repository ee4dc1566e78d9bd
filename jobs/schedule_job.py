"""The job that a schedule makes: with its task's options as a worker told them, its arguments as stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobvisor.jobs.annals import KnownTask
from jobvisor.jobs.clock import iso, to_datetime
from jobvisor.jobs.described import BY_FUNCTION, options_of
from jobvisor.jobs.errors import InvalidOption, PayloadError
from jobvisor.jobs.headers import SCHEDULE, SCHEDULED_FOR, decode_headers, encode_headers
from jobvisor.jobs.job import NewJob
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import DIGESTED, MADE, ScheduleRow
from jobvisor.jobs.store import Store
from jobvisor.jobs.task import NO_OPTIONS, Call, Defaults, Options

__all__ = ["job_of_schedule", "told_options"]


def told_options(store: Store, task: str) -> Options | None:
    """What workers have told of a task, by this name or an alias; None where nobody has."""
    known = store.known_task(task) or next(
        (each for each in store.tasks() if task in _aliases(each)), None
    )
    if known is None:
        return None
    told = known.told.get("options")
    told = told if isinstance(told, Mapping) else {}
    try:
        options = options_of(told)
    except (InvalidOption, TypeError, AttributeError, ValueError):
        return NO_OPTIONS  # a release told them that has others
    made: dict[str, Any] = {name: _by_function for name in MADE if told.get(name) == BY_FUNCTION}
    return replace(options, **made)


def _aliases(known: KnownTask) -> Any:
    aliases = known.told.get("aliases")
    return aliases if isinstance(aliases, list) else ()


def _by_function(*_args: Any, **_kwargs: Any) -> str:
    """Stands for a function that is not here."""
    raise InvalidOption("a key of this task is made by a function, which is not here")


def job_of_schedule(
    row: ScheduleRow, options: Options, defaults: Defaults, tick: int | None
) -> NewJob:
    """The job of a tick, or, without one, of a person who wants it now."""
    keys = _keys(row)
    changed: dict[str, Any] = {
        "unique": _unique_key(keys, options),
        "headers": _headers(row, options, tick),
    }
    for name in ("limit", "share", "weight"):
        if callable(getattr(options, name)):
            changed[name] = _key(keys, name, row.task)
    if row.queue is not None:
        changed["queue"] = row.queue
    said = replace(options, **changed)
    new = Call(row.task, (), {}, said).new_job(defaults, Payload())
    return new._replace(args=row.args, kwargs=row.kwargs)


def _unique_key(keys: Mapping[str, Any], options: Options) -> str | None:
    unique = options.unique
    if isinstance(unique, str):
        return unique
    if unique is None or unique is False:
        return None
    found = keys.get(DIGESTED if unique is True else "unique")
    return found if isinstance(found, str) and found else None


def _key(keys: Mapping[str, Any], name: str, task: str) -> str | int | None:
    """One that a function has made where the schedule was declared; without it a limit would not hold."""
    if name not in keys and name == "limit":
        raise InvalidOption(
            f"the limit of {task} is made by a function, which only its code can call: no worker has "
            "declared this schedule, nor a program that has the task"
        )
    found = keys.get(name)
    return found if isinstance(found, str | int) and found else None


def _keys(row: ScheduleRow) -> Mapping[str, Any]:
    """A stranger may have written anything there."""
    try:
        found = json.loads(row.keys)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _headers(row: ScheduleRow, options: Options, tick: int | None) -> str | None:
    """Those of the task, and from which schedule the job is; these alone where both are too large."""
    ours = {SCHEDULE: row.name}
    if tick is not None:
        ours[SCHEDULED_FOR] = iso(to_datetime(tick))
    try:
        return encode_headers("headers", {**decode_headers(options.headers), **ours})
    except (InvalidOption, PayloadError):
        return encode_headers("headers", ours)
