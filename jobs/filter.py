"""Which jobs are meant: a state, and what narrows it; the same words for clients, commands and pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from jobvisor.jobs.clock import from_datetime, iso
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.job import State, json_id
from jobvisor.jobs.units import Duration, duration_ms, duration_text

__all__ = ["IDS_MAX", "ID_MAX", "TEXT_MAX", "Filter", "state_of"]

TEXT_MAX = 2_000
"""Characters of one text that is looked for."""

IDS_MAX = 10_000
TASKS_MAX = 1_000
ID_MAX = 2**63 - 1

Moment = datetime | Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Jobs that are all of what is said here; what is left out narrows nothing.

    The moment of a job, for `since` and `until`, is its end, of a running one its beginning, else when
    it is due. Texts are looked for as they are, no character is special, in any case (on SQLite of the
    letters a to z). What no database can hold, such as NUL, matches nothing.

    >>> str(Filter(state="failed", task="app.mail:send", since="1h"))
    'state=failed task=app.mail:send since=1h'
    """

    state: str | Iterable[str] | None = None
    """One state, or several."""
    queue: str | None = None
    task: str | Iterable[str] | None = None
    """The whole name of a task, or several."""
    error: str | None = None
    """A part of the last error's text."""
    error_type: str | None = None
    """What the error's text begins with, up to its first ": ", in at most 100 characters: a class's name."""
    text: str | None = None
    """A part of the task's name, the error, the unique key or the arguments as they are stored."""
    in_arguments: bool = True
    """Whether `text` is looked for in arguments, too: not for somebody who may not see all of them."""
    since: Moment | None = None
    """Not before this moment, or so long ago."""
    until: Moment | None = None
    """Before this moment, or longer ago than this."""
    ids: Iterable[int] | None = None
    """None but these, at most 10,000."""

    def __post_init__(self) -> None:
        """Hold each value to what it may be; InvalidOption says what is wrong in one sentence."""
        if not isinstance(self.in_arguments, bool):
            raise InvalidOption(f"in_arguments={shown(self.in_arguments)} must be True or False")
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(name, value))

    @property
    def states(self) -> tuple[State, ...]:
        """The states that are meant; empty for any."""
        return _several(self.state)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are meant; empty for any."""
        return _several(self.task)

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The ids that are meant, each once and ascending; None for any."""
        return None if self.ids is None else tuple(self.ids)

    @property
    def is_empty(self) -> bool:
        """Whether it means every job."""
        return not self.said()

    def said(self) -> dict[str, Any]:
        """What was said, by name; `in_arguments` only where it makes `text` find less."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.in_arguments or self.text is None:
            del told["in_arguments"]
        return {name: value for name, value in told.items() if value is not None}

    def with_state(self, state: State) -> Filter:
        """The same in one state."""
        return replace(self, state=state)

    def with_ids(self, ids: Iterable[int]) -> Filter:
        """The same among these ids."""
        return replace(self, ids=tuple(ids))

    def as_json(self) -> dict[str, Any]:
        """What was said, as `json.dumps` takes it: several of a kind in a list."""
        return {name: _plain(name, value) for name, value in self.said().items()}

    def __str__(self) -> str:
        """It in one line, for the log of actions and for questions; no more than ten ids are named."""
        return " ".join(f"{name}={_worded(value)}" for name, value in self.as_json().items())


def state_of(name: str) -> State:
    """The state of this name; InvalidOption names those there are."""
    try:
        return State(name)
    except ValueError:
        raise InvalidOption(
            f"{shown(name)} is no state; it must be one of {', '.join(State)}"
        ) from None


def _states(_name: str, value: Any) -> Any:
    if isinstance(value, str):
        return state_of(value)
    return tuple(
        dict.fromkeys(state_of(each) for each in _gone_through("state", value, len(State)))
    )


def _tasks(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _text(name, value)
    each = (_text(name, task) for task in _gone_through(name, value, TASKS_MAX))
    return tuple(dict.fromkeys(each))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption(f"{name}={shown(value)} must be a text")
    if len(value) > TEXT_MAX:
        raise InvalidOption(
            f"{name} has {len(value)} characters; look for at most {TEXT_MAX} of them"
        )
    return str.__add__(value, "")  # of a class of somebody's it becomes a plain one


def _moment(name: str, value: Any) -> Any:
    try:
        if isinstance(value, datetime):
            from_datetime(value)
        else:
            duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{name}: {error}") from error
    return value


def _ids(name: str, value: Any) -> tuple[int, ...]:
    found = _gone_through(name, value, IDS_MAX, least=0)
    for each in found:
        if isinstance(each, bool) or not isinstance(each, int):
            raise InvalidOption(f"{name}: {shown(each)} is no id of a job, which is a whole number")
    return tuple(sorted({each for each in found if 0 < each <= ID_MAX}))


def _gone_through(name: str, value: Any, most: int, *, least: int = 1) -> list[Any]:
    try:
        found = list(value)
    except TypeError:
        raise InvalidOption(f"{name}={shown(value)} must be one, or a list of them") from None
    if len(found) < least:
        raise InvalidOption(f"{name} is an empty list; leave it out where any is meant")
    if len(found) > most:
        raise InvalidOption(f"{name} names {len(found)}; name at most {most}")
    return found


def _several(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if name in ("since", "until"):
        return duration_text(duration_ms(value))
    if name == "ids":
        return [json_id(number) for number in value]
    if isinstance(value, bool):
        return value
    return [str(each) for each in value] if isinstance(value, tuple) else str(value)


def _worded(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    more = f",... ({len(value)})" if len(value) > 10 else ""
    return ",".join(map(str, value[:10])) + more


_CHECKS = {
    "state": _states,
    "queue": _text,
    "task": _tasks,
    "error": _text,
    "error_type": _text,
    "text": _text,
    "since": _moment,
    "until": _moment,
    "ids": _ids,
}
