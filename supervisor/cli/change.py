"""Commands that change jobs: cancel, requeue, prune; the family need not run, here or anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from jobvisor.jobs.client import Client, Moves
from jobvisor.jobs.job import FINISHED, UNFINISHED, State, json_id
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.cli import config_option, examples, json_option, print_json, say
from jobvisor.supervisor.cli.selection import (
    PAGE,
    Selection,
    read_duration,
    read_id,
    selection_options,
)
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.config import Config

__all__ = ["Act", "cancel", "move", "prune", "requeue"]

Many = Callable[[Sequence[int]], Moves]


@click.command(
    epilog=examples(
        "jobvisor cancel 7 8 9",
        "jobvisor cancel --queue mail --state pending --dry-run",
        "jobvisor cancel --task send -y",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id)
@selection_options(state for state in State if state in UNFINISHED)
@click.option("--all", "everything", is_flag=True, help="All unfinished jobs.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def cancel(
    config: str | None,
    ids: tuple[int, ...],
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Cancel jobs: these, or all that match.

    Of a running one it is requested, and after cancel_grace it is killed. An id that does not exist
    stops the command before the first is cancelled. A job that is finished already is named, the
    others are cancelled all the same, and the exit code is 1.
    """
    selection = Selection.of(given)
    chosen_by = everything or selection.narrowed or selection.state is not None
    if bool(ids) == chosen_by:
        raise click.UsageError(
            "name either ids or what they have in common, such as: cancel --queue mail"
        )
    with find_site(config).client() as client:
        chosen = _existing(client, ids) or selection.ids(client, sorted(UNFINISHED))
        act = Act("cancel", f"{selection.state or 'unfinished'} job", client.cancel_many)
        if _agreed(act, chosen, ids=bool(ids), dry_run=dry_run, yes=yes, as_json=as_json):
            move(act, chosen, as_json=as_json)


@click.command(
    epilog=examples(
        "jobvisor requeue 7 8 9",
        "jobvisor requeue --state failed --since 1h --error timeout",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id)
@selection_options(state for state in State if state in FINISHED)
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def requeue(
    config: str | None,
    ids: tuple[int, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Let finished jobs start over: these, or all that match.

    At attempt 0, their history is kept. An id that does not exist stops the command before the
    first is requeued. A job that cannot be requeued is named, the others are requeued all the same,
    and the exit code is 1. They go a thousand in a transaction, and Ctrl-C stops between two.
    """
    selection = Selection.of(given)
    if bool(ids) == (selection.state is not None):
        raise click.UsageError("name either ids or --state, such as: requeue --state failed")
    if ids and selection.narrowed:
        raise click.UsageError("--queue, --task, --error and --since go with --state, not with ids")
    with find_site(config).client() as client:
        # The ids first: a requeued job leaves the state that is being paged through, and may fail
        # again. The oldest first, so that they run again in the order they were enqueued.
        chosen = _existing(client, ids) or selection.ids(client, sorted(FINISHED))
        act = Act("requeue", f"{selection.state} job", client.requeue_many)
        if _agreed(act, chosen, ids=bool(ids), dry_run=dry_run, yes=yes, as_json=as_json):
            move(act, chosen, as_json=as_json)


@click.command(
    epilog=examples("jobvisor prune --dry-run", "jobvisor prune --succeeded 1h --failed 7d")
)
@click.option("--succeeded", metavar="DURATION", help="Succeeded jobs that ended longer ago.")
@click.option("--cancelled", metavar="DURATION", help="Cancelled jobs that ended longer ago.")
@click.option("--failed", metavar="DURATION", help="Failed jobs that ended longer ago.")
@click.option("--dry-run", is_flag=True, help="Only say how many would go.")
@json_option
@config_option
def prune(config: str | None, dry_run: bool, as_json: bool, **given: str | None) -> None:
    """Remove old finished jobs for good.

    Of the states named here, or of all three as [retention] says.
    """
    site = find_site(config)
    ages = {
        state: read_duration(f"--{state}", text)
        for state, text in given.items()
        if text is not None
    }
    if not ages:
        retention = (site.config or Config.of({})).retention
        kept = {
            "succeeded": retention.succeeded_ms,
            "cancelled": retention.cancelled_ms,
            "failed": retention.failed_ms,
        }
        ages = {state: age_ms for state, age_ms in kept.items() if age_ms is not None}
        if not ages:
            say("[retention] keeps every job for ever; --failed 30d and its like remove some")
    with site.client() as client:
        counts = client.prune(ages, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "removed": counts})
        return
    verb = "would remove" if dry_run else "removed"
    for state, age_ms in ages.items():
        click.echo(f"{verb} {counts[state]} {state} jobs older than {duration_text(age_ms)}")


class Act(NamedTuple):
    """What is done to many jobs: its verb, the words for them, and how a page of them is done."""

    verb: str
    job: str
    many: Many

    def counted(self, number: int, *, of_ids: bool = False) -> str:
        """So many of them, in words."""
        return f"{number} {'job' if of_ids else self.job}{'' if number == 1 else 's'}"


def _existing(client: Client, ids: Sequence[int]) -> list[int]:
    """The ids that were given; JobNotFound before anything is changed."""
    for job_id in ids:
        client.get(job_id)
    return list(ids)


def _agreed(
    act: Act, chosen: Sequence[int], *, ids: bool, dry_run: bool, yes: bool, as_json: bool
) -> bool:
    """Whether to go on: not with a dry run, and with a filter only when somebody has said yes."""
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "jobs": len(chosen)})
        else:
            click.echo(f"would {act.verb} {act.counted(len(chosen), of_ids=ids)}")
        return False
    if not chosen:
        say(f"no {act.job} to {act.verb}")
    elif not ids and not yes:
        _confirm(f"{act.verb} {act.counted(len(chosen))}")
    return True


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: there is nobody to ask here, so add -y")
    click.confirm(f"{question}?", abort=True, err=True)


def move(act: Act, chosen: Sequence[int], *, as_json: bool) -> None:
    """Do it to each, a page in a transaction, and say what came of it; exit code 1 if one was refused."""
    outcomes: list[dict[str, Any]] = []
    done = refused = 0
    try:
        for start in range(0, len(chosen), PAGE):
            page = act.many(chosen[start : start + PAGE])
            done += len(page)
            refused += sum(moved.error is not None for moved in page)
            _tell(page, outcomes, as_json=as_json)
    except KeyboardInterrupt:
        say(f"interrupted: {done} of {len(chosen)} are done, the others stand as they stood")
        raise
    finally:
        if as_json:
            print_json(outcomes)
    if len(chosen) > PAGE:
        say(f"{act.verb}: {done - refused} done, {refused} refused")
    if refused:
        click.get_current_context().exit(1)


def _tell(page: Moves, outcomes: list[dict[str, Any]], *, as_json: bool) -> None:
    for moved in page:
        if moved.error is not None:
            say(f"jobvisor: {moved.error}")
        if as_json:
            key = "outcome" if moved.error is None else "error"
            told = moved.outcome if moved.error is None else str(moved.error)
            outcomes.append({"id": json_id(moved.id), key: told})
    if not as_json:
        lines = [f"{moved.id} {moved.outcome}" for moved in page if moved.error is None]
        if lines:
            click.echo("\n".join(lines))
