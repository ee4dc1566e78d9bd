"""Commands about whole queues and tasks: `queues`, `pause`, `resume`; the family need not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from jobvisor.jobs.annals import QUEUE, TASK, Family, Paused
from jobvisor.jobs.client import Client
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.store.older import is_older
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    examples,
    json_option,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.completing import queues as known_queues
from jobvisor.supervisor.cli.completing import whole_tasks
from jobvisor.supervisor.cli.noting import note
from jobvisor.supervisor.cli.selection import ending, read_until
from jobvisor.supervisor.cli.site import Site, find_site
from jobvisor.supervisor.documents.queues import queues_of

__all__ = ["pause", "queues", "resume"]

SHOWN = (State.PENDING, State.RUNNING, State.SCHEDULED, State.BLOCKED, State.FAILED)

_task = click.option(
    "--task",
    metavar="NAME",
    shell_complete=whole_tasks,
    help="A task, in whatever queue; the end of its name is enough.",
)


@click.command(
    epilog=examples(
        "jobvisor queues",
        "jobvisor queues --json | jq .queues.mail.paused",
        "jobvisor queues fair reports on",
    )
)
@click.argument("verb", metavar="[list|fair]", type=click.Choice(["list", "fair"]), default="list")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=known_queues)
@click.argument("fair", metavar="[on|off]", required=False, type=click.Choice(["on", "off"]))
@json_option
@config_option
def queues(
    config: str | None, verb: str, name: str | None, fair: str | None, *, as_json: bool
) -> None:
    """Show the queues: who serves them, what waits, what is paused.

    `queues fair NAME on` (or `off`) sets whether one is fair. Counting ends at some
    thousands, where a + says that there are more.
    """
    site = find_site(config)
    if verb == "fair":
        _set_fair(site, name, fair, as_json=as_json)
        return
    if name is not None:
        raise click.UsageError(f"list takes no name; `jobvisor queues` shows {name} among all")
    with site.client() as client:
        found = queues_of(client, site.config.queues if site.config else None)
        tasks = [each for each in client.paused() if each.kind == TASK]
    if as_json:
        print_json({**found, "paused_tasks": [each.as_json() for each in tasks]})
        return
    print_table(
        ["queue", "served", "oldest waits", *(state.value for state in SHOWN), "fair", "paused"],
        [_row(name, told, found["at_least"]) for name, told in found["queues"].items()],
        seldom=("blocked", "fair", "paused"),
    )
    for each in tasks:
        say(f"task {each.name} is {each}")


def _set_fair(site: Site, name: str | None, word: str | None, *, as_json: bool) -> None:
    if name is None or word is None:
        raise click.UsageError("name a queue, and on or off, such as: queues fair reports on")
    fair = word == "on"
    with site.client(create=True) as client:
        changed = client.set_fair(name, fair)
        if changed:
            note(client, "fair", f"queue {name} {word}")
    if as_json:
        print_json({"queue": name, "fair": fair, "changed": changed})
    else:
        still = "" if changed else " already" if fair else " anyway"
        click.echo(f"queue {name} is {'' if fair else 'not '}fair{still}")
    said = {each.name: each.fair for each in site.config.named_queues} if site.config else {}
    if said.get(name) not in (None, fair):
        say(
            f"warning: [queues.{name}] says fair = {'true' if said[name] else 'false'}, which counts "
            f"again when the family starts; change it there too"
        )


def _row(name: str, told: Mapping[str, Any], at_least: list[str]) -> list[Any]:
    wait, paused = told["oldest_pending_ms"], told["paused"]
    return [
        name,
        {True: "yes", False: "by nobody", None: None}[told["served"]],
        None if wait is None else brief(wait),
        *(_count(told.get(state.value), state.value in at_least) for state in SHOWN),
        "yes" if told["fair"] else None,
        None if paused is None else _pause_told(paused),
    ]


def _count(number: int | None, more: bool) -> str | None:
    return None if not number else f"{number}{'+' if more else ''}"


def _pause_told(paused: Mapping[str, Any]) -> str:
    until = paused["until"]
    return "yes" if until is None else f"until {until}"


@click.command(
    epilog=examples(
        "jobvisor pause mail", "jobvisor pause mail --until 2h", "jobvisor pause --task send"
    )
)
@click.argument("queue", required=False, shell_complete=known_queues)
@_task
@click.option("--until", metavar="DURATION|TIME", help="Not longer than so: 2h, 2027-01-31T08:00Z.")
@json_option
@config_option
def pause(
    config: str | None, queue: str | None, task: str | None, until: str | None, *, as_json: bool
) -> None:
    """Have no job of a queue, or of a task, begin, in no family.

    Jobs are enqueued on, and what runs goes on. It holds until `resume`, also over restarts.
    """
    moment = None if until is None else read_until("--until", until)
    site = find_site(config)
    with site.client(create=True) as client:
        paused = client.pause(**_which(client, queue, task), until=moment)
        note(client, "pause", f"{paused.kind} {paused.name}")
        unheard = _unheard(site, client, paused)
        heedless = sorted({each.name for each in client.families() if _claims_on(each)})
    if as_json:
        print_json(paused.as_json())
    else:
        click.echo(_told(paused))
    if unheard:
        say(f"warning: {unheard}")
    for family in heedless:
        say(
            f"warning: family {family} is of an older release, which knows of no pause and claims on"
        )


def _unheard(site: Site, client: Client, paused: Paused) -> str:
    """That nobody has heard of it so far, which may be meant, or a slip."""
    if paused.kind == TASK:
        known = [each.name for each in client.tasks()]
        which, text = Filter(task=paused.name), "no worker has told of this task"
    else:
        known = list(site.config.queues) if site.config else []
        which, text = Filter(queue=paused.name), "no [[workers]] of this configuration serves it"
    if paused.name in known or client.page(which, limit=1).jobs:
        return ""
    return f"{text} and there is no such job{did_you_mean(paused.name, known)}"


def _claims_on(family: Family) -> bool:
    return not family.died and family.silent <= family.dead_after and is_older(family.version)


@click.command(epilog=examples("jobvisor resume mail", "jobvisor resume --task send"))
@click.argument("queue", required=False, shell_complete=known_queues)
@_task
@json_option
@config_option
def resume(config: str | None, queue: str | None, task: str | None, *, as_json: bool) -> None:
    """Let the jobs of a queue, or of a task, begin again.

    Exit code 1 where it was not paused.
    """
    with find_site(config).client() as client:
        which = _which(client, queue, task)
        [(kind, name)] = which.items()
        was_paused = client.resume(**which)
        if was_paused:
            note(client, "resume", f"{kind} {name}")
    if as_json:
        print_json({"kind": kind, "name": name, "was_paused": was_paused})
    else:
        click.echo(f"{kind} {name} {'is resumed' if was_paused else 'was not paused'}")
    if not was_paused:
        click.get_current_context().exit(1)


def _told(paused: Paused) -> str:
    until = "until it is resumed" if paused.until is None else f"until {paused.as_json()['until']}"
    return f"{paused.kind} {paused.name} is paused {until}"


def _which(client: Client, queue: str | None, task: str | None) -> dict[str, Any]:
    if (queue is None) == (task is None):
        raise click.UsageError("name either a queue or --task, such as: pause mail")
    if task is None:
        return {QUEUE: queue}
    known = {each.name for each in client.tasks()} | {each.name for each in client.paused()}
    if task in known or client.page(Filter(task=task), limit=1).jobs:
        return {TASK: task}
    found = ending(task, sorted(known))
    if len(found) > 1:
        raise click.UsageError(f"--task {task} may be {', '.join(found)}; write the whole name")
    return {TASK: found[0] if found else task}
