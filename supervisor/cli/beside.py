"""Commands that show what there is beside single jobs: groups of failures, who did what, the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from jobvisor.supervisor.cli import (
    config_option,
    examples,
    json_option,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.look import ago
from jobvisor.supervisor.cli.selection import read_since
from jobvisor.supervisor.cli.site import find_site

__all__ = ["actions", "failures", "tasks"]

TASKS_MAX = 1_000


@click.command(
    epilog=examples(
        "jobvisor failures --since 1h",
        "jobvisor requeue --task app:send --error-type OSError",
    )
)
@click.option(
    "--since", metavar="DURATION|TIME", help="Only what failed since then: 1h, 2027-01-31T08:00Z."
)
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@json_option
@config_option
def failures(config: str | None, as_json: bool, limit: int, since: str | None) -> None:
    """Show failed jobs in groups, by task and type of error.

    That which failed last comes first. JOB is the last of a group, with its error. `requeue` and
    `prune` take such a group by --task and --error-type.
    """
    moment = None if since is None else read_since("--since", since)
    with find_site(config).client() as client:
        found = client.failures(since=moment, limit=limit)
    if as_json:
        print_json(found.as_json())
        return
    if not found.groups:
        say("no job has failed" + ("" if since is None else f" since {since}"))
        return
    print_table(
        ["jobs", "task", "type", "first", "last", "job", "error"],
        [
            [
                group.jobs, group.task, group.error_type, ago(group.first), ago(group.last),
                group.example, group.message,
            ]
            for group in found.groups
        ],
        seldom=("first", "error"),
    )  # fmt: skip
    if found.at_least:
        say(f"there are more than these {len(found.groups)} groups; --limit, --since show others")


@click.command(epilog=examples("jobvisor actions", "jobvisor actions --json | jq '.actions[].who'"))
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@click.option(
    "--before",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Only what was done before this one.",
)
@json_option
@config_option
def actions(config: str | None, as_json: bool, limit: int, before: int | None) -> None:
    """Show who did what: by commands, on pages and over HTTP.

    The newest 100,000 are kept. What an application does through the client is not among them.
    """
    with find_site(config).client() as client:
        found = client.actions(limit=limit, before=before)
    if as_json:
        further = str(found[-1].id) if len(found) == limit else None
        print_json({"actions": [action.as_json() for action in found], "next": further})
        return
    if not found:
        say("nobody has done anything" + ("" if before is None else f" before number {before}"))
        return
    print_table(
        ["number", "when", "who", "verb", "jobs", "what"],
        [
            [action.id, ago(action.at), action.who, action.verb, action.number, action.what]
            for action in found
        ],
    )
    if len(found) == limit:
        say(f"the newest {limit}; --before {found[-1].id} shows those before them")


@click.command(epilog=examples("jobvisor tasks", "jobvisor tasks --json | jq '.tasks[].name'"))
@json_option
@config_option
def tasks(config: str | None, as_json: bool) -> None:
    """Show the tasks that workers have told of, and what each takes.

    Those of the last 30 days.
    """
    with find_site(config).client() as client:
        found = client.tasks(limit=TASKS_MAX)
    if as_json:
        print_json({"tasks": [task.as_json() for task in found]})
        return
    if not found:
        say("no worker has told of a task yet; `jobvisor check` shows those of the configuration")
        return
    print_table(
        ["task", "takes", "queue", "seen", "about"],
        [
            [
                task.name, takes(task.told), _option(task.told, "queue"), ago(task.seen_at),
                task.told.get("doc"),
            ]
            for task in found
        ],
        seldom=("about", "queue"),
    )  # fmt: skip
    if len(found) == TASKS_MAX:
        say(f"these are the first {TASKS_MAX}, by their name")


def takes(told: Mapping[str, Any]) -> str | None:
    """The parameters of a task as a call of it has them; those in brackets may be left out.

    >>> takes({"parameters": [{"name": "to", "required": True}, {"name": "at", "required": False}]})
    'to [at]'
    """
    parameters = told.get("parameters")
    if not isinstance(parameters, list):
        return None
    named = [each for each in parameters if isinstance(each, Mapping)]
    return " ".join(
        str(each.get("name")) if each.get("required") else f"[{each.get('name')}]" for each in named
    )


def _option(told: Mapping[str, Any], name: str) -> Any:
    options = told.get("options")
    return options.get(name) if isinstance(options, Mapping) else None
