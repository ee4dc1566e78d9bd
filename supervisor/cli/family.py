"""Commands that run a family and talk to it: by signals, its lock and its status file.

None of them but `status` looks at the database, so they answer while it is away.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import FamilyNotRunning, InvalidOption, JobsError
from jobvisor.jobs.job import State
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.source import strange_variables
from jobvisor.jobs.units import duration_ms, duration_text, size_text
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    json_option,
    load_config,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.bearings import find_family
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir

__all__ = ["health", "reload", "scale", "start", "status", "stop", "trouble", "wait_scale"]

FORCED = 75
"""Something had to be killed: sysexits' "temporary failure", running again is safe."""

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


@click.command()
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


@click.command()
@click.option("--now", is_flag=True, help="Kill running jobs at once; they are given back.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Kill what still runs after this.  [default: stop_timeout and 10s]",
)
@config_option
def stop(config: str | None, now: bool, timeout: str | None) -> None:
    """Stop the family and wait until it is gone.

    Exit code 0 when it left, 1 when none was running, 75 when it had to be killed or still runs.
    """
    found = find_family(config)
    patience_ms = found.stop_timeout_ms + 10_000
    if timeout is not None:
        patience_ms = _duration("--timeout", timeout)
    state = StateDir(found.state_dir)
    pid = state.signal(signal.SIGQUIT if now else signal.SIGTERM)
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
        click.get_current_context().exit(FORCED)


@click.command()
@config_option
def reload(config: str | None) -> None:
    """Take up a changed configuration and changed tasks.

    The workers are replaced one by one. The file is checked here first: a bad one is refused and
    the family keeps what it has.
    """
    loaded = load_config(config)
    pid = StateDir(loaded.family.state_dir).signal(signal.SIGHUP)
    say(f"family {loaded.family.name} (pid {pid}) is reloading; `jobvisor status` shows it")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("wanted", metavar="N|+N|-N")
@config_option
def scale(config: str | None, wanted: str) -> None:
    """Have more or fewer workers until the next reload.

    It is the first pool that changes. Each further or fewer worker is one signal, and signals that
    come together are one to the system, so the next is sent when the family shows that it has seen
    the last.
    """
    change = _change(wanted)
    loaded = load_config(config)
    state = StateDir(loaded.family.state_dir)
    now = wait_scale(state, None)
    target = now + change if wanted[0] in "+-" else change
    if not 1 <= target <= PROCESSES_MAX:
        raise InvalidOption(
            f"{wanted!r} would make {target} workers of {now}; a pool has 1 to {PROCESSES_MAX}"
        )
    while now != target:
        before = now
        state.signal(signal.SIGTTIN if target > now else signal.SIGTTOU)
        now = wait_scale(state, before)
        if (now > target) if target > before else (now < target):
            break  # somebody else scales too; two of us would chase each other for ever
    say(f"pool {loaded.workers[0].name} has {now} workers")


@click.command()
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
    queues = _queues(family.config, counts) if family.config else None
    unserved = _unserved(queues)
    if as_json:
        print_json({**shown, "queues": queues, "unserved": unserved})
    else:
        _print_status(shown)
        _print_queues(queues or {}, counts)
    for queue in unserved:
        say(f"warning: no pool serves queue {queue!r}; add it to the queues of a [[workers]]")
    if pid is None:
        say(f"family {family.name} is not running; start it with `jobvisor start`")
        click.get_current_context().exit(1)


@click.command()
@json_option
@config_option
def health(config: str | None, as_json: bool) -> None:
    """Say in one line whether the family is well.

    Exit code 0 or 1. It never asks the database, so a probe may call it often.
    """
    family = find_family(config)
    state = StateDir(family.state_dir)
    pid = state.holder()
    reason = trouble(state.status(), pid)
    line = reason or f"family {family.name} is well (pid {pid})"
    if as_json:
        print_json({"healthy": reason is None, "reason": reason, "pid": pid or None})
    else:
        click.echo(line)
    if reason is not None:
        click.get_current_context().exit(1)


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


def wait_scale(state: StateDir, before: int | None, *, patience_s: float = ANSWER_WAIT_S) -> int:
    """The number of wanted workers in the status, once it is another one than `before`."""
    deadline = SYSTEM.monotonic_ns() + int(patience_s * 1e9)
    while True:
        pid = state.holder()
        if pid is None:
            raise FamilyNotRunning(
                f"no family runs in {state.path}; start one with `jobvisor start`"
            )
        found = _of_holder(state.status(), pid)
        shown = found.get("scale") if found else None
        if isinstance(shown, int) and shown != before:
            return shown
        if SYSTEM.monotonic_ns() >= deadline:
            raise JobsError(
                f"the family (pid {pid}) did not answer in {patience_s:g} s; it shows "
                f"{'no number of' if shown is None else shown} workers; see `jobvisor status`"
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


def _queues(config: Config, counts: bool) -> dict[str, dict[str, Any]] | None:
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
    except JobsError as error:
        say(f"the queues cannot be shown: {error}")
        return None
    return {
        queue: {
            "served": queue in config.queues,
            "oldest_pending_ms": max(0, oldest[queue]) if queue in oldest else None,
            **counted.get(queue, {}),
        }
        for queue in sorted({*config.queues, *oldest, *counted})
    }


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
