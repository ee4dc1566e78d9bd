"""Which jobs a command is about: the ids it was given, or the words of a Filter as options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.units import Duration, duration_ms
from jobvisor.supervisor.cli import say
from jobvisor.supervisor.cli.completing import error_types, queues, tasks

__all__ = [
    "PAGE",
    "Given",
    "ending",
    "filter_of",
    "filter_options",
    "read_duration",
    "read_id",
    "read_moment",
    "read_until",
]

PAGE = 1000
"""Jobs of one transaction: long enough to be fast, short enough to let workers in between."""

NAMES_SHOWN = 10

_Command = TypeVar("_Command", bound=Callable[..., Any])

Given = Mapping[str, Any]
"""What `filter_options` give a command, by the names of a Filter's words."""


def read_id(text: str) -> int:
    """A job's id, as a person writes it."""
    if not re.fullmatch("[0-9]{1,19}", text) or not 0 < int(text) < 1 << 63:
        raise click.BadParameter(f"{text[:80]!r} is no job id; it is a number, as `list` shows it")
    return int(text)


def read_duration(option: str, text: str) -> int:
    """A duration in milliseconds; the error names the option."""
    try:
        return duration_ms(text)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def read_moment(option: str, text: str) -> datetime:
    """A moment with its timezone; the error names the option."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(
            f"{option}: {text!r} is not a time; write 2027-01-31T08:00+01:00 or 2027-01-31T07:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise InvalidOption(f"{option}: {text!r} has no timezone; add one, such as Z or +01:00")
    from_datetime(moment)
    return moment


def read_since(option: str, text: str) -> Duration | datetime:
    """A moment, or how long ago."""
    if re.fullmatch(r"[0-9]{4}-.*", text):
        return read_moment(option, text)
    try:
        duration_ms(text)
    except InvalidOption:
        raise InvalidOption(
            f"{option}: {text!r} is neither how long ago, such as 1h or 7d, nor a time, such as "
            "2027-01-31T08:00Z"
        ) from None
    return text


def read_until(option: str, text: str) -> Duration | datetime:
    """A moment, or for how long."""
    if re.fullmatch(r"[0-9]{4}-.*", text):
        return read_moment(option, text)
    try:
        duration_ms(text)
    except InvalidOption:
        raise InvalidOption(
            f"{option}: {text!r} is neither for how long, such as 2h, nor a time, such as "
            "2027-01-31T08:00Z"
        ) from None
    return text


def filter_options(states: Iterable[State]) -> Callable[[_Command], _Command]:
    """Give a command --state (of these) and what narrows it; it gets them for `filter_of`."""
    options = (
        click.option(
            "--state", multiple=True, type=click.Choice([state.value for state in states]),
            help="Only in this state; write it again for another one.",
        ),
        click.option(
            "--queue", metavar="NAME", help="Only of this queue.", shell_complete=queues
        ),
        click.option(
            "--task", metavar="NAME", shell_complete=tasks,
            help="Only of this task; the end of its name is enough.",
        ),
        click.option("--error", metavar="TEXT", help="Only with this in their error."),
        click.option(
            "--error-type", metavar="NAME", shell_complete=error_types,
            help="Only with an error of this type, as `failures` shows it.",
        ),
        click.option(
            "--text", metavar="TEXT",
            help="Only with this in their task, error, unique key or arguments.",
        ),
        click.option(
            "--since", metavar="DURATION|TIME",
            help="Only what ended, began or was due since then: 1h, 2027-01-31T08:00Z.",
        ),
        click.option("--until", metavar="DURATION|TIME", help="Only what did so before then."),
    )  # fmt: skip

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def filter_of(client: Client, given: Given, tell: Callable[[str], None] = say) -> Filter | None:
    """What was said, as a Filter; None where no job is of such a task: `tell` is told what there is."""
    words = words_of(given)
    if (task := words.get("task")) is not None:
        names = _whole_names(client, task, tell)
        if not names:
            return None
        words["task"] = names[0] if len(names) == 1 else names
    return Filter(**words)


def words_of(given: Given) -> dict[str, Any]:
    """The words that were said, each read."""
    words = {name: said for name, said in given.items() if said not in (None, ())}
    for name in ("since", "until"):
        if name in words:
            words[name] = read_since(f"--{name}", words[name])
    if len(words.get("state", ())) == 1:
        words["state"] = words["state"][0]
    return words


def _whole_names(client: Client, named: str, tell: Callable[[str], None]) -> Sequence[str]:
    """The whole names that were meant: this one, or those that end so."""
    if client.page(Filter(task=named), limit=1).jobs:
        return [named]
    known = client.task_names()
    found = [named] if named in known else ending(named, known)
    if not found:
        tell(f"no job is of a task {named!r}{_what_there_is(named, known)}")
    return found


def ending(end: str, names: Iterable[str]) -> list[str]:
    """The names that end so, after a colon or a dot.

    >>> ending("send", ["app.mail:send", "app:resend", "shop.send"])
    ['app.mail:send', 'shop.send']
    """
    return [name for name in names if name.endswith((f":{end}", f".{end}"))]


def _what_there_is(word: str, names: Sequence[str]) -> str:
    if not names:
        return ": there are no jobs"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return did_you_mean(word, names) or f"; there are {', '.join(names[:NAMES_SHOWN])}{more}"
