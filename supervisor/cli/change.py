"""Commands that change jobs: cancel, requeue, prune; the family need not run, here or anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from jobvisor.jobs.client import Client, Moved, Moves
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, UNFINISHED, State, json_id
from jobvisor.jobs.pruning import Rule, rules_of
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.cli import config_option, examples, json_option, print_json, say
from jobvisor.supervisor.cli.bulk import Act, print_moves, sweep
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.noting import note, who
from jobvisor.supervisor.cli.selection import (
    PAGE,
    filter_of,
    filter_options,
    read_duration,
    read_id,
    words_of,
)
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.config import Config

__all__ = ["cancel", "dry_run_option", "move", "prune", "requeue", "yes_option"]

Many = Callable[[Sequence[int]], Moves]

dry_run_option = click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command(
    epilog=examples(
        "jobvisor cancel 7 8 9",
        "jobvisor cancel --queue mail --state pending --dry-run",
        "jobvisor cancel --task send -y",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id, shell_complete=jobs(UNFINISHED))
@filter_options(state for state in State if state in UNFINISHED)
@click.option("--all", "everything", is_flag=True, help="All unfinished jobs.")
@dry_run_option
@yes_option
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
    **given: Any,
) -> None:
    """Cancel jobs: these, or all that match.

    Of a running one it is requested, and after cancel_grace it is killed. An id that does not exist
    stops the command before the first is cancelled. A job that is finished already is named, the
    others are cancelled all the same, and the exit code is 1. All that match go a thousand in a
    transaction, and Ctrl-C stops between two.
    """
    if bool(ids) == (everything or bool(words_of(given))):
        raise click.UsageError(
            "name either ids or what they have in common, such as: cancel --queue mail"
        )
    with find_site(config).client() as client:
        if ids:
            move(client, "cancel", client.cancel_many, ids, dry_run=dry_run, as_json=as_json)
            return
        act = Act("cancel", client.cancel_where, _in_words(given, "unfinished"))
        given["state"] = given["state"] or tuple(sorted(UNFINISHED))
        which = filter_of(client, given)
        sweep(act, which, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command(
    epilog=examples(
        "jobvisor requeue 7 8 9",
        "jobvisor requeue --state failed --since 1h --error timeout",
        "jobvisor requeue --task send --error-type OSError --dry-run",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id, shell_complete=jobs(FINISHED))
@filter_options(state for state in State if state in FINISHED)
@dry_run_option
@yes_option
@json_option
@config_option
def requeue(
    config: str | None,
    ids: tuple[int, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Let finished jobs start over: these, or all that match.

    At attempt 0, their history is kept. An id that does not exist stops the command before the
    first is requeued. A job that cannot be requeued is named, the others are requeued all the same,
    and the exit code is 1. An error without a --state means failed jobs. All that match go a thousand
    in a transaction, and Ctrl-C stops between two.
    """
    given = _check_chosen("requeue", ids, given)
    with find_site(config).client() as client:
        if ids:
            move(client, "requeue", client.requeue_many, ids, dry_run=dry_run, as_json=as_json)
            return
        act = Act("requeue", client.requeue_where, _in_words(given, "finished"))
        which = filter_of(client, given)
        sweep(act, which, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command(
    epilog=examples(
        "jobvisor prune --dry-run",
        "jobvisor prune --succeeded 1h --failed 7d",
        "jobvisor prune --error-type OSError --until 7d",
        "jobvisor prune 7 8 9",
    )
)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=read_id, shell_complete=jobs(FINISHED))
@click.option("--succeeded", metavar="DURATION", help="Succeeded jobs that ended longer ago.")
@click.option("--cancelled", metavar="DURATION", help="Cancelled jobs that ended longer ago.")
@click.option("--failed", metavar="DURATION", help="Failed jobs that ended longer ago.")
@filter_options(state for state in State if state in FINISHED)
@dry_run_option
@yes_option
@json_option
@config_option
def prune(
    config: str | None,
    ids: tuple[int, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove finished jobs for good: old ones, or all that match.

    Old ones are those that ended longer ago than is said for their state, or, if nothing is said, than
    [retention] and [queues.NAME] keep say, and those that themselves say how long they are kept. Ids mean
    these. All that match are asked about first.
    """
    said = {state.value: given.pop(state.value) for state in sorted(FINISHED)}
    ages = {state: read_duration(f"--{state}", text) for state, text in said.items() if text}
    if ages and (ids or words_of(given)):
        raise click.UsageError(
            "name either ids, or ages such as --failed 7d, or what they have in common"
        )
    if ids or words_of(given):
        given = _check_chosen("prune", ids, given)
        with find_site(config).client() as client:
            if ids:
                move(client, "prune", client.delete_many, ids, dry_run=dry_run, as_json=as_json)
                return
            act = Act("prune", client.prune_where, _in_words(given, "finished"))
            which = filter_of(client, given)
            sweep(act, which, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    _prune_old(config, ages, dry_run=dry_run, as_json=as_json)


def _prune_old(config: str | None, ages: dict[str, int], *, dry_run: bool, as_json: bool) -> None:
    site = find_site(config)
    rules = rules_of({State(state): age_ms for state, age_ms in ages.items()})
    if not ages:
        rules = (site.config or Config.of({})).rules
        if not rules:
            say("[retention] keeps every job for ever; --failed 30d and its like remove some")
    with site.client() as client:
        counts = client.prune_by(rules, kept=not ages, dry_run=dry_run)
        if not dry_run and any(counts.values()):
            note(client, "prune", ", ".join(map(_rule_told, rules)), sum(counts.values()))
    if as_json:
        print_json({"dry_run": dry_run, "removed": counts})
        return
    verb = "would remove" if dry_run else "removed"
    for state, told in _by_state(rules).items():
        click.echo(f"{verb} {counts[state]} {state} jobs older than {told}")
    if counts.get("kept"):
        click.echo(f"{verb} {counts['kept']} jobs that say themselves how long they are kept")


def _by_state(rules: Iterable[Rule]) -> dict[str, str]:
    """How old they are: `1d, in queue mail than 1h`."""
    found: dict[str, str] = {}
    for rule in sorted(rules, key=lambda rule: rule.within):
        where = f"in {_queues(rule)} than " if rule.within else ""
        before = f"{found[rule.state]}, " if rule.state in found else ""
        found[rule.state] = f"{before}{where}{duration_text(rule.age_ms)}"
    return found


def _rule_told(rule: Rule) -> str:
    where = f" in {_queues(rule)}" if rule.within else ""
    return f"{rule.state}{where} for {duration_text(rule.age_ms)}"


def _queues(rule: Rule) -> str:
    return f"queue{'' if len(rule.queues) == 1 else 's'} {' and '.join(rule.queues)}"


def _check_chosen(verb: str, ids: Sequence[int], given: dict[str, Any]) -> dict[str, Any]:
    """Finished jobs are meant by their ids, or by their state and more: never all by a slip.

    Who names an error without a state means those that failed with it.
    """
    if not given["state"] and (given["error"] or given["error_type"]):
        given = {**given, "state": (State.FAILED.value,)}
    words = words_of(given)
    if ids and words:
        raise click.UsageError(
            f"name either ids or what they have in common, such as: {verb} --state failed"
        )
    if not ids and "state" not in words:
        raise click.UsageError(f"name either ids or --state, such as: {verb} --state failed")
    return given


def _in_words(given: dict[str, Any], any_of: str) -> str:
    return " or ".join(given["state"]) or any_of


def move(
    client: Client,
    verb: str,
    many: Many,
    ids: Sequence[int],
    *,
    dry_run: bool,
    as_json: bool,
    how: str = "",
) -> None:
    """Do it to each, a page in a transaction, and say what came of it; exit code 1 if one was refused.

    `how` is what the log of actions is told beside the verb and the ids.
    """
    for job_id in ids:
        client.get(job_id)  # JobNotFound before anything is changed
    if dry_run:
        _tell_dry_run(verb, len(ids), as_json=as_json)
        return
    moved: Moves = []
    try:
        for start in range(0, len(ids), PAGE):
            page = _noted(client, verb, many, ids[start : start + PAGE], how)
            moved += page
            if not as_json:
                print_moves(page)
    except KeyboardInterrupt:
        say(f"interrupted: {len(moved)} of {len(ids)} are done, the others stand as they stood")
        raise
    finally:
        if as_json:
            print_json([_outcome(each) for each in moved])
    if any(each.error is not None for each in moved):
        click.get_current_context().exit(1)


def _noted(client: Client, verb: str, many: Many, ids: Sequence[int], how: str) -> Moves:
    """One page, and who did it, in one transaction: no deed is without its note."""
    with client.transaction():
        page = many(ids)
        done = [each.id for each in page if each.error is None]
        if done:
            client.note_action(who(), verb, f"{_named(done)} {how}".rstrip(), len(done))
    return page


def _tell_dry_run(verb: str, number: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, "jobs": number})
    else:
        click.echo(f"would {verb} {number} job{'' if number == 1 else 's'}")


def _named(ids: Sequence[int]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else str(Filter(ids=ids[:10_000]))


def _outcome(moved: Moved) -> dict[str, Any]:
    if moved.error is None:
        return {"id": json_id(moved.id), "outcome": moved.outcome}
    return {"id": json_id(moved.id), "error": str(moved.error)}
