"""Which jobs a command is about: the ids it was given, or a state narrowed by what is known of them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.errors import InvalidOption, JobsError
from jobvisor.jobs.job import Job, State
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.units import duration_ms
from jobvisor.supervisor.cli import say
from jobvisor.supervisor.cli.site import find_site

__all__ = [
    "PAGE",
    "Selection",
    "ending",
    "read_duration",
    "read_id",
    "read_moment",
    "selection_options",
]

PAGE = 1000
"""Jobs of one transaction: long enough to be fast, short enough to let workers in between."""

NAMES_SHOWN = 10

_Command = TypeVar("_Command", bound=Callable[..., Any])


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


def selection_options(states: Iterable[State]) -> Callable[[_Command], _Command]:
    """Give a command --state (one of these) and what narrows it; it gets them for `Selection.of`."""
    options = (
        click.option("--state", type=click.Choice([state.value for state in states])),
        click.option("--queue", metavar="NAME", help="Only of this queue."),
        click.option(
            "--task",
            metavar="NAME",
            help="Only of this task; the end of its name is enough.",
            shell_complete=_complete_task,
        ),
        click.option("--error", metavar="TEXT", help="Only with this in their error."),
        click.option(
            "--since",
            metavar="DURATION|TIME",
            help="Only what ended, began or was due since then: 1h, 2027-01-31T08:00Z.",
        ),
    )

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _complete_task(context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """The tasks of the newest jobs whose name, or its end, begins so: a Tab must not read a whole table."""
    try:
        with find_site(context.params.get("config")).client() as client:
            names = {job.task for job in client.list(limit=PAGE)}
    except JobsError:
        return []  # a shell has no place for what is wrong
    found = [name for name in names if name.startswith(begun)]
    ends = {re.split("[:.]", name)[-1] for name in names}
    return sorted(found or [end for end in ends if end.startswith(begun)])


@dataclass(frozen=True, slots=True)
class Selection:
    """A state of jobs, and what narrows it; None is any."""

    state: State | None
    queue: str | None
    task: str | None
    error: str | None
    within_ms: int | None

    @classmethod
    def of(cls, given: dict[str, str | None]) -> Selection:
        """What `selection_options` gave a command."""
        state, since = given["state"], given["since"]
        return cls(
            State(state) if state is not None else None,
            given["queue"],
            given["task"],
            given["error"],
            None if since is None else _read_since(since),
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the state was said."""
        return any(said is not None for said in (self.queue, self.task, self.error, self.within_ms))

    def jobs(self, client: Client, limit: int) -> Iterator[Job]:
        """At most so many, the newest first, fetched a page at a time."""
        pages = [self._newest(client, task, limit) for task in self._tasks(client)]
        return islice(heapq.merge(*pages, key=lambda job: -job.id), limit)

    def ids(self, client: Client, states: Sequence[State]) -> list[int]:
        """All of them in these states, or in the one that was said; the oldest first."""
        wanted = states if self.state is None else [self.state]
        return sorted(
            number
            for task in self._tasks(client)
            for state in wanted
            for number in client.ids(state, task=task, **self._words())
        )

    def _newest(self, client: Client, task: str | None, limit: int) -> Iterator[Job]:
        before: int | None = None
        while limit > 0:
            page = client.list(
                state=self.state, task=task, limit=min(limit, PAGE), before=before, **self._words()
            )
            yield from page
            if not page:
                return
            before = page[-1].id
            limit -= len(page)

    def _words(self) -> dict[str, Any]:
        within = None if self.within_ms is None else f"{self.within_ms}ms"
        return {"queue": self.queue, "error": self.error, "within": within}

    def _tasks(self, client: Client) -> list[str | None]:
        """The whole names that were meant; where there is none, what there is is said."""
        if self.task is None or client.list(task=self.task, limit=1):
            return [self.task]
        names = client.task_names()
        found = ending(self.task, names)
        if not found:
            say(f"no job is of a task {self.task!r}{_what_there_is(self.task, names)}")
        return list(found)


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


def _read_since(text: str) -> int:
    """How many milliseconds ago: of a duration itself, of a moment by this machine's clock."""
    if re.fullmatch(r"[0-9]{4}-.*", text):
        return max(0, SYSTEM.now_ms() - from_datetime(read_moment("--since", text)))
    return read_duration("--since", text)
