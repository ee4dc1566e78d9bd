"""What Tab offers for a name or an id: by bounded reads, and nothing where something is wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.supervisor.cli.site import find_site

__all__ = ["error_types", "jobs", "limits", "pools", "queues", "schedules", "tasks", "whole_tasks"]

NEWEST = 1000
"""Jobs that are looked at: a Tab must not read a whole table."""

OFFERED_MAX = 100

PATIENCE_S = 2.0

Items = list[CompletionItem]


def tasks(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Tasks that workers have told of, or that the newest jobs are of: their names, or the ends of these."""

    def read(client: Client) -> Iterable[str]:
        names = _names(client)
        whole = [name for name in names if name.startswith(begun)]
        return whole or {re.split("[:.]", name)[-1] for name in names}

    return _offered(context, begun, read)


def whole_tasks(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """The same by their whole names alone."""
    return _offered(context, begun, _names)


def _names(client: Client) -> set[str]:
    told = {each.name for each in client.tasks()}
    return told | {job.task for job in client.page(limit=NEWEST).jobs}


def queues(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Queues that are served by the configuration, or that the newest jobs are in."""

    def read(client: Client) -> Iterable[str]:
        config = find_site(context.params.get("config")).config
        found = set(config.queues) if config else set()
        return found | {job.queue for job in client.page(limit=NEWEST).jobs}

    return _offered(context, begun, read)


def pools(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Pools of the configuration; no database is asked."""
    try:
        config = find_site(context.params.get("config")).config
    except JobsError:
        return []
    return _items(begun, [pool.name for pool in config.workers] if config else [])


def schedules(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Schedules of the database."""
    return _offered(
        context, begun, lambda client: [(each.name, each.when) for each in client.schedules.list()]
    )


def limits(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Limits of the database, with what each says."""
    return _offered(
        context,
        begun,
        lambda client: [
            (each.limit.name, str(each.limit).partition(": ")[2]) for each in client.limits.list()
        ],
    )


def error_types(context: click.Context, _option: click.Parameter, begun: str) -> Items:
    """Types of the errors that failed jobs have."""
    return _offered(
        context, begun, lambda client: {each.error_type for each in client.failures().groups}
    )


def jobs(states: Iterable[State]) -> Callable[[click.Context, click.Parameter, str], Items]:
    """Ids of the newest jobs in these states; where the shell shows it, with what they are."""
    wanted = tuple(states)

    def complete(context: click.Context, _option: click.Parameter, begun: str) -> Items:
        def read(client: Client) -> Iterable[tuple[str, str]]:
            found = client.page(Filter(state=wanted), limit=NEWEST).jobs
            return [(str(job.id), f"{job.state} {job.task}") for job in found]

        return _offered(context, begun, read)

    return complete


def _offered(
    context: click.Context,
    begun: str,
    read: Callable[[Client], Iterable[str | tuple[str, str]]],
) -> Items:
    try:
        with _in_time(), find_site(context.params.get("config")).client() as client:
            return _items(begun, read(client))
    except (JobsError, OSError):  # TimeoutError is one: a shell has no place for what is wrong
        return []


def _items(begun: str, found: Iterable[str | tuple[str, str]]) -> Items:
    told = [(each, "") if isinstance(each, str) else each for each in found]
    fitting = [
        (value, about) for value, about in told if value.startswith(begun) and _typable(value)
    ]
    if all(not about for _, about in fitting):
        fitting.sort()
    return [CompletionItem(value, help=about or None) for value, about in fitting[:OFFERED_MAX]]


def _typable(value: str) -> bool:
    """A shell would take a line for two words, and show what steers the terminal."""
    return value.isprintable()


@contextmanager
def _in_time() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_late(_number: int, _frame: FrameType | None) -> Any:
    raise TimeoutError
