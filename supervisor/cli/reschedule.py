"""`reschedule`: another time for jobs that wait; the family need not run, here or anywhere."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from jobvisor.jobs.due import Due
from jobvisor.jobs.job import WAITING, State
from jobvisor.supervisor.cli import config_option, examples, json_option
from jobvisor.supervisor.cli.bulk import Act, sweep
from jobvisor.supervisor.cli.change import dry_run_option, move, yes_option
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.selection import (
    filter_of,
    filter_options,
    read_duration,
    read_id,
    read_moment,
    words_of,
)
from jobvisor.supervisor.cli.site import find_site

__all__ = ["reschedule"]


@click.command(
    epilog=examples(
        "jobvisor reschedule 7 8 9 --now",
        "jobvisor reschedule 7 --at 2027-01-31T08:00+01:00",
        "jobvisor reschedule --queue mail --state scheduled --in 1h --dry-run",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id, shell_complete=jobs(WAITING))
@click.option("--in", "run_in", metavar="DURATION", help="Due in so long: 90s, 1h30m.")
@click.option("--at", "run_at", metavar="TIME", help="Due at this moment: 2027-01-31T08:00Z.")
@click.option("--now", is_flag=True, help="Due at once.")
@filter_options(state for state in State if state in WAITING)
@dry_run_option
@yes_option
@json_option
@config_option
def reschedule(
    config: str | None,
    ids: tuple[int, ...],
    *,
    run_in: str | None,
    run_at: str | None,
    now: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Have waiting jobs be due anew: these, or all that match.

    A retry is one of them. A job that is blocked goes on waiting for what it waits for. An id that does
    not exist stops the command before the first is changed. A job that runs, is finished, or would have
    expired by then is named, the others are rescheduled all the same, and the exit code is 1. All that
    match go a thousand in a transaction, and Ctrl-C stops between two.
    """
    when = _when(run_in, run_at, now=now)
    if bool(ids) == bool(words_of(given)):
        raise click.UsageError(
            "name either ids or what they have in common, such as: reschedule --queue mail --now"
        )
    with find_site(config).client() as client:
        if ids:
            many = partial(client.reschedule_many, **when)
            move(client, "reschedule", many, ids, dry_run=dry_run, as_json=as_json, how=_told(when))
            return
        where = partial(client.reschedule_where, **when)
        act = Act("reschedule", where, " or ".join(given["state"]) or "waiting")
        given["state"] = given["state"] or tuple(sorted(WAITING))
        which = filter_of(client, given)
        sweep(act, which, dry_run=dry_run, yes=yes, as_json=as_json)


def _when(run_in: str | None, run_at: str | None, *, now: bool) -> dict[str, Any]:
    """What was said, as the client takes it: exactly one of three."""
    if [run_in is not None, run_at is not None, now].count(True) != 1:
        raise click.UsageError("say when: --now, --in 1h, or --at 2027-01-31T08:00Z")
    if run_at is not None:
        return {"run_at": read_moment("--at", run_at)}
    return {"run_in": read_duration("--in", run_in) / 1000 if run_in is not None else 0}


def _told(when: dict[str, Any]) -> str:
    return f"to be due {Due.of(**when)}"
