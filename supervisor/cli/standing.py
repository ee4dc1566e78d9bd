"""Commands that tell how a family is doing: by its lock and its status file, and what waits for it.

`health` asks no database and `status` does not wait for one that is away, so both always answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NamedTuple

import click

from jobvisor.jobs.annals import QUEUE, Paused
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import State
from jobvisor.jobs.store.base import Unknown
from jobvisor.jobs.units import size_text
from jobvisor.jobs.url import parse_url
from jobvisor.jobs.why import Held, Known, sums_of
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    examples,
    json_option,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.bearings import Bearings, find_family
from jobvisor.supervisor.cli.selection import read_duration
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.documents.limits import told_unknown_limits, unknown_limits_of_status
from jobvisor.supervisor.documents.standing import health_of, standing_of
from jobvisor.supervisor.documents.unknown import UNKNOWN_MAX, told_unknown, unknown_of_status
from jobvisor.supervisor.family import StateDir

__all__ = ["health", "status"]

ASK_S = 5.0
"""How long `status` waits for a database that is away, before it shows the rest without it."""

WATCH_LEAST_S, WATCH_MOST_S = 0.1, 86_400.0

QUEUES_MAX = 1_000

_AHEAD = ("scheduled", "blocked", "running")


@click.command(
    epilog=examples(
        "jobvisor status",
        "jobvisor status --watch 5",
        "jobvisor status --json | jq '.workers[].state'",
    )
)
@click.option("--counts", is_flag=True, help="Count the jobs of each queue: reads the whole table.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value="2",
    help="Again and again, until Ctrl-C; --json writes a line each time.  [every 2 seconds]",
)
@json_option
@config_option
def status(config: str | None, as_json: bool, counts: bool, watch: str | None) -> None:
    """Show the family, its workers and its queues.

    Exit code 1 when it is not running. `top` shows more, and is steered by keys.
    """
    family = find_family(config)
    if watch is not None:
        _watch(config, _read_seconds(watch), counts=counts, as_json=as_json)
    elif not _show(family, counts=counts, as_json=as_json):
        click.get_current_context().exit(1)


def _watch(config: str | None, seconds: float, *, counts: bool, as_json: bool) -> None:
    """Show it until Ctrl-C, whatever becomes of the family, its configuration or its database."""
    pressed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    # What it raises is lost where it comes in the middle of a destructor; then the next turn is none.
    signal.signal(signal.SIGINT, interrupt)
    while not pressed:
        click.clear()  # does nothing in a pipe, which gets one after the other
        try:
            _show(find_family(config), counts=counts, as_json=as_json, in_a_line=True)
        except JobsError as error:
            say(f"jobvisor: {error}")
        if not as_json and not sys.stdout.isatty():
            click.echo()
        sys.stdout.flush()
        SYSTEM.sleep(seconds)
    raise KeyboardInterrupt


def _read_seconds(text: str) -> float:
    seconds = read_duration("--watch", text) / 1000
    if not WATCH_LEAST_S <= seconds <= WATCH_MOST_S:
        raise click.UsageError(
            f"--watch {text}: it is {WATCH_LEAST_S:g} to {WATCH_MOST_S:g} seconds"
        )
    return seconds


def _show(family: Bearings, *, counts: bool, as_json: bool, in_a_line: bool = False) -> bool:
    """Print how it stands; whether it is running."""
    shown = standing_of(StateDir(family.state_dir), family.name)
    asked = _ask(family.config, counts) if family.config else None
    queues = asked.queues if asked else None
    unserved = _unserved(queues)
    unknown = asked.unknown if asked else unknown_of_status(shown)
    unknown_limits = asked.unknown_limits if asked else unknown_limits_of_status(shown)
    if as_json:
        told: dict[str, Any] = {
            "unknown_tasks": [each._asdict() for each in unknown],
            "paused": [each.as_json() for each in asked.paused] if asked else None,
            "unknown_limits": unknown_limits,
            "waits": [held.as_json() for held in asked.waits] if asked else None,
        }
        print_json({**shown, "queues": queues, "unserved": unserved, **told}, in_a_line=in_a_line)
    else:
        _print_status(shown)
        _print_queues(queues or {}, counts)
        for each in asked.paused if asked else ():
            click.echo(f"{each.kind} {each.name} is {each}")
        for held in asked.waits if asked else ():
            click.echo(held.text)
    for queue in unserved:
        say(f"warning: no pool serves queue {queue!r}; add it to the queues of a [[workers]]")
    _warn(told_unknown(unknown))
    _warn(told_unknown_limits(unknown_limits))
    if shown["state"] == "stopped" and shown["pid"] is None:
        say(f"family {family.name} is not running; start it with `jobvisor start`")
        return False
    return True


@click.command(epilog=examples("jobvisor health || systemctl restart shop-jobs"))
@json_option
@config_option
def health(config: str | None, as_json: bool) -> None:
    """Say in one line whether the family is well.

    Exit code 0 or 1. It never asks the database, so a probe may call it often. Jobs whose task no
    module has are a warning: the family is well, its modules are not.
    """
    family = find_family(config)
    told = health_of(StateDir(family.state_dir))
    reason = told["reason"]
    if as_json:
        print_json(told)
    else:
        pid = told["pid"] or "of another container"
        click.echo(reason or f"family {family.name} is well (pid {pid})")
    _warn(told["warnings"])
    if reason is not None:
        click.get_current_context().exit(1)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


class _Asked(NamedTuple):
    """What `status` shows of the database."""

    queues: dict[str, dict[str, Any]]
    unknown: list[Unknown]
    paused: list[Paused]
    unknown_limits: list[str]
    waits: list[Held]


def _ask(config: Config, counts: bool) -> _Asked | None:
    """What waits in each queue; None where the database cannot be asked or is not yet there.

    Of each queue the first hundred pending rows are read, by their index, unless all are to be counted.
    """
    from jobvisor.jobs.store import open_store  # noqa: PLC0415 - the other commands need no database

    database = config.database
    target = parse_url(database.url)
    if target.kind == "sqlite" and not os.path.exists(target.path):
        return None  # to ask would create it
    try:
        with contextlib.closing(
            open_store(
                database.url,
                schema=database.schema,
                prefix=database.prefix,
                notify=False,
                patience=ASK_S,
            )
        ) as store:
            oldest = store.waiting(QUEUES_MAX)
            paused = store.paused()
            counted = store.counts() if counts else {}
            unknown = store.unknown_tasks(UNKNOWN_MAX)
            unknown_limits = store.unknown_limits(UNKNOWN_MAX)
            waits = sums_of(store, Known(SYSTEM.now_ms(), config.queues))
    except JobsError as error:
        say(f"the queues cannot be shown: {error}")
        return None
    stopped = {each.name: each for each in paused if each.kind == QUEUE}
    queues = {
        queue: {
            "served": queue in config.queues,
            "oldest_pending_ms": max(0, oldest[queue]) if queue in oldest else None,
            "paused": stopped[queue].moments() if queue in stopped else None,
            **counted.get(queue, {}),
        }
        for queue in sorted({*config.queues, *oldest, *counted, *stopped})
    }
    return _Asked(queues, unknown, paused, unknown_limits, waits)


def _unserved(queues: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    return [
        queue
        for queue, found in (queues or {}).items()
        if not found["served"] and any(found.get(state) for state in ("oldest_pending_ms", *_AHEAD))
    ]


def _print_status(found: Mapping[str, Any]) -> None:
    pid = found.get("pid")
    click.echo(f"family {found.get('family')}: {found.get('state')}{f', pid {pid}' if pid else ''}")
    site = found.get("web") or {}
    if site.get("url"):
        click.echo(f"web: {site['url']}, pid {site['pid']}")
    if found.get("waiting_for_database"):
        click.echo("waiting for the database")
    for reason in found.get("degraded") or []:
        click.echo(f"degraded: {reason}")
    for sentence in _reload_told(found.get("reload")):
        click.echo(sentence)
    workers = found.get("workers") or []
    if workers:
        print_table(
            ["slot", "pool", "pid", "state", "job", "for", "runs", "up", "memory"],
            [_worker_row(worker) for worker in workers],
        )
    scaling = _scaling_rows(found.get("scaling") or {})
    if scaling:
        print_table(["pool", "least", "most", "wanted", "now", "why"], scaling)
    deaths = found.get("deaths") or []
    if deaths:
        columns = ["at", "slot", "pid", "cause", "job"]
        print_table(columns, [[death.get(name) for name in columns] for death in deaths[-5:]])


def _scaling_rows(scaling: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """The pools that have a range, or not as many workers as they are to have."""
    return [
        [pool, *(told.get(key) for key in ("least", "most", "wanted", "now", "why"))]
        for pool, told in scaling.items()
        if told.get("least") != told.get("most") or told.get("wanted") != told.get("now")
    ]


def _reload_told(reload: Any) -> list[str]:
    """How the last reload stands, while that is something to know."""
    told = reload if isinstance(reload, dict) else {}
    if told.get("state") == "going on":
        return ["a reload is going on"]
    if told.get("state") == "refused":
        return [f"the last reload was refused: {told.get('reason')}"]
    return []


def _print_queues(queues: Mapping[str, Mapping[str, Any]], counts: bool) -> None:
    states = [state.value for state in State] if counts else []
    rows = []
    for queue, found in queues.items():
        wait = found["oldest_pending_ms"]
        row = [
            queue,
            "yes" if found["served"] else "by nobody",
            None if wait is None else brief(wait),
        ]
        rows.append(row + [found.get(state, 0) for state in states])
    if rows:
        print_table(["queue", "served", "oldest waits", *states], rows)


def _worker_row(worker: Mapping[str, Any]) -> list[Any]:
    rss = worker.get("rss")
    return [
        worker.get("slot"),
        worker.get("pool"),
        worker.get("pid"),
        _state_told(worker),
        _jobs(worker),
        _seconds(worker.get("job_seconds")),
        worker.get("started"),
        _seconds(worker.get("up_seconds")),
        size_text(rss) if isinstance(rss, int) else None,
    ]


def _state_told(worker: Mapping[str, Any]) -> Any:
    """`busy`; and where it leaves, why: `busy (reload)`."""
    state, why = worker.get("state"), worker.get("leaving")
    return f"{state} ({why})" if why else state


def _jobs(worker: Mapping[str, Any]) -> Any:
    """The job that has run longest, and how many others run beside it in a worker with several lanes."""
    others = (worker.get("running") or 0) - 1
    return f"{worker.get('job')} +{others}" if others > 0 else worker.get("job")


def _seconds(told: Any) -> str | None:
    return brief(int(told * 1000)) if isinstance(told, (int, float)) else None
