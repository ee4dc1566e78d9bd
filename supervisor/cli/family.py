"""Commands that run a family and talk to it: by signals, its lock and its status file.

None of them looks at the database, so they answer while it is away.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import click

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import EX_TEMPFAIL, FamilyNotRunning, InvalidOption, JobsError
from jobvisor.jobs.source import strange_variables
from jobvisor.jobs.units import duration_ms, duration_text
from jobvisor.supervisor.cli import (
    config_option,
    examples,
    load_config,
    say,
)
from jobvisor.supervisor.cli.bearings import find_family
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.documents.standing import of_holder
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.steering import (
    ask_to_reload,
    check_wanted,
    readable_status,
    reload_number,
    scale_pool,
)

__all__ = ["reload", "scale", "start", "stop"]

KILL_WAIT_S = 10.0
"""After QUIT the parent kills, joins and gives its caretaker 5 s for the final settle."""

POLL_S = 0.05


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
            _say_stopped(state)
            return
        say(f"still running after {duration_text(patience_ms)}: killing what is left")
        _signal_again(state, signal.SIGQUIT)
    gone = state.wait_released(KILL_WAIT_S)
    say("stopped" if gone else f"pid {pid} is still there; look at it, then `kill -9 {pid}`")
    if not (now and gone):
        click.get_current_context().exit(EX_TEMPFAIL)


def _say_stopped(state: StateDir) -> None:
    """That it has left, and whether by force, as the family itself said with its last word."""
    if state.exit_code() != EX_TEMPFAIL:
        say("stopped")
        return
    say("stopped; what had not finished in time was killed and given back, as its log says")
    click.get_current_context().exit(EX_TEMPFAIL)


def _ask_to_stop(state: StateDir) -> int:
    """A family that is stopping already is not asked again: its second SIGTERM would kill."""
    pid = state.holder()
    if pid and state.is_stopping():
        return pid
    # A family of a release before 0.3 says it in its status alone.
    found = of_holder(readable_status(state), pid) if pid else None
    if pid and found and found.get("state") == "stopping":
        return pid
    return state.signal(signal.SIGTERM)


def _pools(context: click.Context, option: click.Parameter, begun: str) -> Any:
    from jobvisor.supervisor.cli.completing import pools  # noqa: PLC0415 - as above, for Tab alone

    return pools(context, option, begun)


@click.command()
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Wait at most this long for the answer.  [default: as long as it may take]",
)
@config_option
def reload(config: str | None, timeout: str | None) -> None:
    """Take up changed configuration and tasks, and wait for it.

    New workers start beside the old ones, which finish their jobs and leave; a pool without overlap is
    replaced one by one. Exit code 1 with the reason where the file or the new code is refused (the family
    keeps what it has), or at the timeout, where it goes on.
    """
    loaded = load_config(config)
    family = loaded.family
    # The trial of the new code, the first of the new workers and those after it, which may have to wait for
    # workers that an earlier reload has told to leave; then each of the others takes its time to leave and
    # to start.
    patience_ms = 3 * family.boot_timeout_ms + family.reload_timeout_ms
    others = 1 + sum(pool.processes.most for pool in loaded.workers if not pool.overlap)
    patience_ms += others * (family.stop_timeout_ms + family.boot_timeout_ms)
    if timeout is not None:
        patience_ms = _duration("--timeout", timeout)
    state = StateDir(family.state_dir)
    pid, last = ask_to_reload(state)
    say(f"family {family.name} (pid {pid}) is reloading")
    _note(loaded, "reload", f"family {family.name}")
    told = _wait_reload(state, last, patience_ms)
    if told["state"] == "refused":
        raise JobsError(f"reload refused: {told['reason']}")
    say("reloaded")


def _wait_reload(state: StateDir, before: int, patience_ms: int) -> dict[str, Any]:
    """How a reload ended that was asked for after the one of this number."""
    deadline = SYSTEM.monotonic_ns() + patience_ms * 1_000_000
    while True:
        pid = state.holder()
        if pid is None:
            raise FamilyNotRunning("the family stopped before its reload was done")
        found = of_holder(readable_status(state), pid) or {}
        if reload_number(found) > before and found["reload"]["state"] != "going on":
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
@click.argument("words", metavar="[POOL] N|+N|-N", nargs=-1, shell_complete=_pools)
@config_option
def scale(config: str | None, words: tuple[str, ...]) -> None:
    """Have more or fewer workers in a pool until the next reload.

    POOL is the name of a [[workers]]; where there is one, it need not be said. Of a pool with a range it
    is the least that there are to be. Exit code 2 with the reason where it cannot have so many.
    """
    if not 1 <= len(words) <= 2:
        raise InvalidOption(
            "write `jobvisor scale 4`, or `jobvisor scale POOL 4` for one of several"
        )
    check_wanted(words[-1])
    loaded = load_config(config)
    state = StateDir(loaded.family.state_dir)
    told = scale_pool(state, words[0] if len(words) == 2 else None, words[-1])
    say(f"pool {told['pool']} has {_workers_told(told)}")
    _note(loaded, "scale", f"pool {told['pool']} to {words[-1]}", told["workers"])


def _note(config: Config, verb: str, what: str, number: int | None = None) -> None:
    from jobvisor.supervisor.cli.noting import note_of_family  # noqa: PLC0415 - `start` needs no database

    note_of_family(config, verb, what, number)


def _workers_told(told: Mapping[str, Any]) -> str:
    least, most = told["least"], told["most"]
    if least == most:
        return f"{told['workers']} workers"
    return f"{told['workers']} workers, at least {least} and at most {most}"


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
