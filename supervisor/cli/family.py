"""Commands that run a family and talk to it: by signals, its lock and its status file.

None of them but `status` looks at the database, so they answer while it is away.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import click

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import EX_TEMPFAIL, FamilyNotRunning, InvalidOption, JobsError
from jobvisor.jobs.job import State
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.source import strange_variables
from jobvisor.jobs.store.base import Unknown
from jobvisor.jobs.units import duration_ms, duration_text, size_text
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    examples,
    json_option,
    load_config,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.bearings import find_family
from jobvisor.supervisor.cli.unknown import UNKNOWN_MAX, told_unknown, unknown_of_status
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir

__all__ = ["health", "reload", "scale", "start", "status", "stop", "trouble", "wait_pools"]

KILL_WAIT_S = 10.0
"""After QUIT the parent kills, joins and gives its caretaker 5 s for the final settle."""

ANSWER_WAIT_S = 10.0
"""The status is written on every change; a family that shows none for so long is not answering."""

FRESH_S = 10.0
"""The status is written each second: one older than this has no caretaker behind it."""

ASK_S = 5.0
"""How long `status` waits for a database that is away, before it shows the rest without it."""

POLL_S = 0.05

_AHEAD = ("scheduled", "blocked", "running")


@click.command(epilog=examples("jobvisor start 2> family.log &", "jobvisor start --drain"))
@click.option("--drain", is_flag=True, help="End when nothing is left to run, instead of waiting.")
@config_option
def start(config: str | None, drain: bool) -> None:
    """Run the family in the foreground until it is stopped.

    TERM or Ctrl-C lets running jobs finish, a second one kills them. HUP reloads, TTIN and TTOU
    scale, USR1 reopens logs, USR2 dumps stacks.
    """
    from jobvisor.supervisor.embed import run_family  # noqa: PLC0415 - the other commands need no parent

    loaded = load_config(config)
    for variable in strange_variables(os.environ):
        say(f"warning: the variable {variable} is none of jobvisor's and is not read")
    click.get_current_context().exit(run_family(loaded, drain=drain, ends_here=True))


@click.command(
    epilog=examples("jobvisor stop", "jobvisor stop --timeout 5m", "jobvisor stop --now")
)
@click.option("--now", is_flag=True, help="Kill running jobs at once; they are given back.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Kill what still runs after this.  [default: stop_timeout and 10s]",
)
@config_option
def stop(config: str | None, now: bool, timeout: str | None) -> None:
    """Stop the family, its running jobs finished first, and wait.

    Asked for a second time it waits as well; only --now and the timeout kill. Exit code 0 when the
    family left, 1 when none was running, 75 when it had to be killed or still runs.
    """
    found = find_family(config)
    patience_ms = found.stop_timeout_ms + 10_000
    if timeout is not None:
        patience_ms = _duration("--timeout", timeout)
    state = StateDir(found.state_dir)
    pid = state.signal(signal.SIGQUIT) if now else _ask_to_stop(state)
    if not now:
        say(f"family {found.name} (pid {pid}) is finishing its running jobs")
        if state.wait_released(patience_ms / 1000):
            say("stopped")
            return
        say(f"still running after {duration_text(patience_ms)}: killing what is left")
        _signal_again(state, signal.SIGQUIT)
    gone = state.wait_released(KILL_WAIT_S)
    say("stopped" if gone else f"pid {pid} is still there; look at it, then `kill -9 {pid}`")
    if not (now and gone):
        click.get_current_context().exit(EX_TEMPFAIL)


def _ask_to_stop(state: StateDir) -> int:
    """A family that is stopping already is not asked again: its second SIGTERM would kill."""
    pid = state.holder()
    found = _of_holder(_readable(state), pid) if pid else None
    if pid and found and found.get("state") == "stopping":
        return pid
    return state.signal(signal.SIGTERM)


def _readable(state: StateDir) -> dict[str, Any] | None:
    try:
        return state.status()
    except JobsError:
        return None  # damaged; what is asked for does not need it


@click.command()
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Wait at most this long for the answer.  [default: as long as it may take]",
)
@config_option
def reload(config: str | None, timeout: str | None) -> None:
    """Take up changed configuration and tasks, and wait for it.

    The workers are replaced one by one, each when it has finished its job. Exit code 1 with the reason
    where the file or the new code is refused (the family keeps what it has), or at the timeout, where it
    goes on.
    """
    loaded = load_config(config)
    family = loaded.family
    # Each child may take its time to leave and to start, one after another.
    children = 1 + sum(pool.processes for pool in loaded.workers)
    patience_ms = children * (family.stop_timeout_ms + family.boot_timeout_ms)
    if timeout is not None:
        patience_ms = _duration("--timeout", timeout)
    state = StateDir(family.state_dir)
    before = _of_holder(_readable(state), state.holder()) or {}
    pid = state.signal(signal.SIGHUP)
    say(f"family {family.name} (pid {pid}) is reloading")
    told = _wait_reload(state, _reload_number(before), patience_ms)
    if told["state"] == "refused":
        raise JobsError(f"reload refused: {told['reason']}")
    say("reloaded")


def _reload_number(status: Mapping[str, Any]) -> int:
    told = status.get("reload")
    return int(told["number"]) if isinstance(told, dict) else 0


def _wait_reload(state: StateDir, before: int, patience_ms: int) -> dict[str, Any]:
    """How a reload ended that was asked for after the one of this number."""
    deadline = SYSTEM.monotonic_ns() + patience_ms * 1_000_000
    while True:
        pid = state.holder()
        if pid is None:
            raise FamilyNotRunning("the family stopped before its reload was done")
        found = _of_holder(_readable(state), pid) or {}
        if _reload_number(found) > before and found["reload"]["state"] != "going on":
            told: dict[str, Any] = found["reload"]
            return told
        if SYSTEM.monotonic_ns() >= deadline:
            raise JobsError(
                f"the reload is not done after {duration_text(patience_ms)} and goes on; "
                "`jobvisor status` shows it"
            )
        SYSTEM.sleep(POLL_S)


@click.command(
    epilog=examples("jobvisor scale 4", "jobvisor scale mail +2"),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", metavar="[POOL] N|+N|-N", nargs=-1)
@config_option
def scale(config: str | None, words: tuple[str, ...]) -> None:
    """Have more or fewer workers in a pool until the next reload.

    POOL is the name of a [[workers]]; where there is one, it need not be said.
    """
    if not 1 <= len(words) <= 2:
        raise InvalidOption(
            "write `jobvisor scale 4`, or `jobvisor scale POOL 4` for one of several"
        )
    wanted = words[-1]
    change = _change(wanted)
    loaded = load_config(config)
    state = StateDir(loaded.family.state_dir)
    pools = wait_pools(state)
    pool = _pool(pools, words[0] if len(words) == 2 else None)
    now = pools[pool]
    target = now + change if wanted[0] in "+-" else change
    if target < 1 or sum(pools.values()) - now + target > PROCESSES_MAX:
        raise InvalidOption(
            f"{wanted!r} would make {target} workers of {now}; a pool has at least 1, "
            f"all pools together at most {PROCESSES_MAX}"
        )
    if target != now:
        state.ask_scale(pool, target)
        wait_pools(state, pool, target)
    say(f"pool {pool} has {target} workers")


def _pool(pools: Mapping[str, int], named: str | None) -> str:
    known = ", ".join(pools)
    if named is None and len(pools) == 1:
        return next(iter(pools))
    if named is None:
        raise InvalidOption(f"there are the pools {known}: write `jobvisor scale POOL N`")
    if named not in pools:
        raise InvalidOption(f"there is no pool {named!r}; the family has {known}")
    return named


@click.command(epilog=examples("jobvisor status", "jobvisor status --json | jq '.workers[].state'"))
@click.option("--counts", is_flag=True, help="Count the jobs of each queue: reads the whole table.")
@json_option
@config_option
def status(config: str | None, as_json: bool, counts: bool) -> None:
    """Show the family, its workers and its queues.

    Exit code 1 when it is not running.
    """
    family = find_family(config)
    state = StateDir(family.state_dir)
    pid = state.holder()
    found = _of_holder(state.status(), pid) if pid is not None else None
    shown = found or {
        "family": family.name,
        "pid": pid or None,
        "state": "stopped" if pid is None else "starting",
        "workers": [],
    }
    asked = _ask(family.config, counts) if family.config else None
    queues = asked.queues if asked else None
    unserved = _unserved(queues)
    unknown = asked.unknown if asked else unknown_of_status(found)
    if as_json:
        told = {"unknown_tasks": [each._asdict() for each in unknown]}
        print_json({**shown, "queues": queues, "unserved": unserved, **told})
    else:
        _print_status(shown)
        _print_queues(queues or {}, counts)
    for queue in unserved:
        say(f"warning: no pool serves queue {queue!r}; add it to the queues of a [[workers]]")
    _warn(told_unknown(unknown))
    if pid is None:
        say(f"family {family.name} is not running; start it with `jobvisor start`")
        click.get_current_context().exit(1)


@click.command(epilog=examples("jobvisor health || systemctl restart shop-jobs"))
@json_option
@config_option
def health(config: str | None, as_json: bool) -> None:
    """Say in one line whether the family is well.

    Exit code 0 or 1. It never asks the database, so a probe may call it often. Jobs whose task no
    module has are a warning: the family is well, its modules are not.
    """
    family = find_family(config)
    state = StateDir(family.state_dir)
    pid = state.holder()
    found = state.status()
    reason = trouble(found, pid)
    living = _of_holder(found, pid) if pid is not None else None
    warnings = told_unknown(unknown_of_status(living))
    if as_json:
        told = {"healthy": reason is None, "reason": reason, "pid": pid or None}
        print_json({**told, "warnings": warnings})
    else:
        click.echo(reason or f"family {family.name} is well (pid {pid or 'of another container'})")
    _warn(warnings)
    if reason is not None:
        click.get_current_context().exit(1)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def _duration(option: str, text: str) -> int:
    try:
        return duration_ms(text)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def _signal_again(state: StateDir, number: signal.Signals) -> None:
    try:
        state.signal(number)
    except FamilyNotRunning:
        return  # it left between the last look and this one, which is what was wanted


def _change(wanted: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", wanted):
        raise InvalidOption(
            f"{wanted!r} is not a number of workers; write 4 for four, +1 or -1 for more or fewer"
        )
    return int(wanted)


def wait_pools(
    state: StateDir,
    pool: str | None = None,
    target: int | None = None,
    *,
    patience_s: float = ANSWER_WAIT_S,
) -> dict[str, int]:
    """How many workers each pool is to have, by the status; with `pool`, once that one has `target`."""
    deadline = SYSTEM.monotonic_ns() + int(patience_s * 1e9)
    while True:
        pid = state.holder()
        if pid is None:
            raise FamilyNotRunning(
                f"no family runs in {state.path}; start one with `jobvisor start`"
            )
        found = _of_holder(state.status(), pid) or {}
        pools: dict[str, int] = found.get("pools") or {}
        if pools and (pool is None or pools.get(pool) == target):
            return pools
        if SYSTEM.monotonic_ns() >= deadline:
            shown = ", ".join(f"{name} {number}" for name, number in pools.items())
            raise JobsError(
                f"the family (pid {pid}) did not answer in {patience_s:g} s; it shows "
                f"{shown or 'no'} workers; see `jobvisor status`"
            )
        SYSTEM.sleep(POLL_S)


def _of_holder(found: dict[str, Any] | None, pid: int | None) -> dict[str, Any] | None:
    """The status, unless an earlier family left it behind; pid 0 is a holder not visible here."""
    if found is None or (pid and found.get("pid") != pid):
        return None
    return found


def trouble(status: dict[str, Any] | None, pid: int | None) -> str | None:
    """Why the family whose lock `pid` holds is not well, in one line; None when it is."""
    if pid is None:
        return "not running"
    found = _of_holder(status, pid)
    if found is None:
        return "starting: no status yet"
    age = _age_s(found.get("written_at"))
    if age is None or age > FRESH_S:
        return f"its status is {'of unknown age' if age is None else f'{age:.0f} s old'}"
    degraded = found.get("degraded") or []
    if degraded or found.get("state") == "degraded":
        return f"degraded: {'; '.join(map(str, degraded)) or 'no reason given'}"
    if found.get("state") == "stopping":
        return "stopping"
    if found.get("waiting_for_database"):
        return "waiting for the database"
    ready = {"waiting", "idle", "turn", "busy"}
    if not any(worker.get("state") in ready for worker in found.get("workers", [])):
        return "no worker is ready"
    return None


def _age_s(written_at: Any) -> float | None:
    """Seconds since an ISO time; a clock that went back makes it 0, not negative."""
    if isinstance(written_at, (int, float)):
        return max(0.0, (SYSTEM.now_ms() - written_at) / 1000)
    try:
        written = datetime.fromisoformat(str(written_at))
        return max(0.0, SYSTEM.now_ms() / 1000 - written.timestamp())
    except (ValueError, OverflowError):
        return None


class _Asked(NamedTuple):
    """What `status` shows of the database."""

    queues: dict[str, dict[str, Any]]
    unknown: list[Unknown]


def _ask(config: Config, counts: bool) -> _Asked | None:
    """What waits in each queue; None where the database cannot be asked or is not yet there.

    Only pending rows are read, by their index, unless all are to be counted.
    """
    from jobvisor.jobs.store import open_store  # noqa: PLC0415 - the other commands need no database

    database = config.database
    target = parse_url(database.url)
    if target.kind == "sqlite" and not os.path.exists(target.path):
        return None  # to ask would create it
    try:
        with contextlib.closing(
            open_store(database.url, schema=database.schema, notify=False, patience=ASK_S)
        ) as store:
            oldest = store.oldest_pending()
            counted = store.counts() if counts else {}
            unknown = store.unknown_tasks(UNKNOWN_MAX)
    except JobsError as error:
        say(f"the queues cannot be shown: {error}")
        return None
    queues = {
        queue: {
            "served": queue in config.queues,
            "oldest_pending_ms": max(0, oldest[queue]) if queue in oldest else None,
            **counted.get(queue, {}),
        }
        for queue in sorted({*config.queues, *oldest, *counted})
    }
    return _Asked(queues, unknown)


def _unserved(queues: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    return [
        queue
        for queue, found in (queues or {}).items()
        if not found["served"] and any(found.get(state) for state in ("oldest_pending_ms", *_AHEAD))
    ]


def _print_status(found: Mapping[str, Any]) -> None:
    pid = found.get("pid")
    click.echo(f"family {found.get('family')}: {found.get('state')}{f', pid {pid}' if pid else ''}")
    if found.get("waiting_for_database"):
        click.echo("waiting for the database")
    for reason in found.get("degraded") or []:
        click.echo(f"degraded: {reason}")
    workers = found.get("workers") or []
    if workers:
        print_table(
            ["slot", "pool", "pid", "state", "job", "for", "runs", "up", "memory"],
            [_worker_row(worker) for worker in workers],
        )
    deaths = found.get("deaths") or []
    if deaths:
        columns = ["at", "slot", "pid", "cause", "job"]
        print_table(columns, [[death.get(name) for name in columns] for death in deaths[-5:]])


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
        worker.get("state"),
        worker.get("job"),
        _seconds(worker.get("job_seconds")),
        worker.get("started"),
        _seconds(worker.get("up_seconds")),
        size_text(rss) if isinstance(rss, int) else None,
    ]


def _seconds(told: Any) -> str | None:
    return brief(int(told * 1000)) if isinstance(told, (int, float)) else None
