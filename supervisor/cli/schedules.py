"""`schedules`: what is enqueued when; shown, added, removed, paused, resumed, and triggered now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.schedule import CATCH_UPS, OVERLAPS, Schedule
from jobvisor.supervisor.cli import (
    config_option,
    examples,
    json_option,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.arguments import Arguments
from jobvisor.supervisor.cli.completing import queues, whole_tasks
from jobvisor.supervisor.cli.completing import schedules as names
from jobvisor.supervisor.cli.enqueue import known_task
from jobvisor.supervisor.cli.look import ago
from jobvisor.supervisor.cli.noting import note
from jobvisor.supervisor.cli.selection import read_moment
from jobvisor.supervisor.cli.site import Site, find_site

__all__ = ["schedules", "ticks_text"]

NEXT = "%a %Y-%m-%d %H:%M:%S %Z"

_name = click.argument("name", shell_complete=names)


@click.group(
    epilog=examples(
        "jobvisor schedules list",
        'jobvisor schedules add nightly app:report --cron "0 3 * * *" --timezone Europe/Berlin',
        "jobvisor schedules pause nightly",
    )
)
def schedules() -> None:
    """Show and change what is enqueued when.

    Those that [[schedules]] or the code of tasks says are changed there; here they can be paused.
    """


@schedules.command(
    "list", epilog=examples("jobvisor schedules list --json | jq '.schedules[].next[0]'")
)
@json_option
@config_option
def list_schedules(config: str | None, *, as_json: bool) -> None:
    """Show all schedules, with their next times."""
    with find_site(config).client() as client:
        found = client.schedules.list()
    if as_json:
        print_json({"schedules": [each.as_json() for each in found]})
        return
    if not found:
        say(
            "there is no schedule; [[schedules]], @task(cron=) or `jobvisor schedules add` makes one"
        )
        return
    print_table(
        ["schedule", "task", "when", "what", "next", "last", "job", "from"],
        [
            [
                each.name, each.task, each.when, each.words, _next(each),
                None if each.last_tick is None else ago(each.last_tick), each.last_job, _source(each),
            ]
            for each in found
        ],
        seldom=("what", "job", "last"),
    )  # fmt: skip


@schedules.command(
    "add",
    epilog=examples(
        'jobvisor schedules add nightly app:report --cron "0 3 * * *" --timezone Europe/Berlin',
        "jobvisor schedules add sweep app:sweep 30 --every 15m --overlap skip",
    ),
)
@click.argument("name")
@click.argument("task", shell_complete=whole_tasks)
@click.argument("args", metavar="[ARG...]", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Keyword arguments as one JSON object.")
@click.option("--typed", is_flag=True, help='ARGs may hold tags: {"$date": "2027-01-31"}.')
@click.option("--cron", metavar="FIELDS", help='When: "0 3 * * *", or @daily and the like.')
@click.option("--every", metavar="DURATION", help="Or how often: 15m.")
@click.option("--timezone", metavar="NAME", help="Whose clocks --cron goes by.  [default: UTC]")
@click.option("--anchor", metavar="TIME", help="From when --every counts.  [default: 1970]")
@click.option(
    "--queue", metavar="NAME", help="Another queue than the task's.", shell_complete=queues
)
@click.option(
    "--catch-up",
    type=click.Choice(CATCH_UPS),
    default="latest",
    show_default=True,
    help="What is enqueued for times that nobody was there for.",
)
@click.option(
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="allow",
    show_default=True,
    help="skip: nothing while the job of the time before is unfinished.",
)
@click.option("--paused", is_flag=True, help="Enqueue nothing until `resume`.")
@click.option("--replace", is_flag=True, help="Change one of this name that was added before.")
@click.option("--force", is_flag=True, help="Also where no configured module has the task.")
@json_option
@config_option  # fmt: skip
def add(
    config: str | None,
    name: str,
    task: str,
    args: tuple[str, ...],
    *,
    kwargs: str | None,
    typed: bool,
    force: bool,
    as_json: bool,
    anchor: str | None,
    **given: Any,
) -> None:
    """Add a schedule NAME that enqueues TASK.

    Each ARG is as `enqueue` takes it. Exit code 1 if the name is taken, 2 if something of it cannot be.
    """
    site = find_site(config)
    known = known_task(site, task, force=force)
    arguments = Arguments(task, known.function if known else None, typed=typed)
    begins: datetime | None = None if anchor is None else read_moment("--anchor", anchor)
    with site.client(create=True) as client:
        target = task if known is None else known
        found = client.schedules.add(
            name,
            target,
            args=arguments.of_words(args),
            kwargs=arguments.of_keywords(kwargs),
            anchor=begins,
            **given,
        )
        note(client, "schedule", f"schedule {name}: {found.task} {found.when}", 1)
    if as_json:
        print_json(found.as_json())
        return
    click.echo(f"{found.words}; next: {ticks_text(found.next)}")


@schedules.command("remove")
@_name
@config_option
def remove(config: str | None, name: str) -> None:
    """Remove a schedule; its jobs stay."""
    with find_site(config).client() as client:
        client.schedules.remove(name)
        note(client, "unschedule", f"schedule {name}", 1)
    click.echo("removed")


@schedules.command("pause")
@_name
@config_option
def pause(config: str | None, name: str) -> None:
    """Let a schedule enqueue nothing, until `resume`."""
    with find_site(config).client() as client:
        if not client.schedules.pause(name):
            say(f"schedule {name} is paused already")
            return
        note(client, "pause", f"schedule {name}", 1)
    click.echo("paused")


@schedules.command("resume")
@_name
@config_option
def resume(config: str | None, name: str) -> None:
    """Let a schedule go on; what a pause hid is lost.

    Exit code 1 where it was not paused, or where a configuration pauses it.
    """
    with find_site(config).client() as client:
        resumed = client.schedules.resume(name)
        found = client.schedules.get(name)
        if resumed:
            note(client, "resume", f"schedule {name}", 1)
    if found.paused == "config":
        say(
            f"schedule {name} is paused in the configuration of family {found.family}; change it there"
        )
    elif not resumed:
        say(f"schedule {name} is not paused")
    else:
        click.echo(f"resumed; next: {ticks_text(found.next)}")
        return
    click.get_current_context().exit(1)


@schedules.command("trigger")
@_name
@json_option
@config_option
def trigger(config: str | None, name: str, *, as_json: bool) -> None:
    """Enqueue its job now, beside its ticks; print the id."""
    site = find_site(config)
    with site.client() as client:
        _know(site, client, client.schedules.get(name).task)
        job = client.schedules.trigger(name)
        note(client, "trigger", f"schedule {name}, job {job.id}", 1)
    if as_json:
        print_json(job.as_json() | {"created": job.created})
    else:
        click.echo(job.id)


def _know(site: Site, client: Client, task: str) -> None:
    """Learn the options of a task from its module where no worker has told of it yet."""
    if all(each.name != task for each in client.tasks()):
        known_task(site, task, force=True)


def ticks_text(ticks: Iterable[datetime]) -> str:
    """The next times, as the clocks of their zone show them.

    >>> ticks_text([])
    'never'
    """
    return ", ".join(each.strftime(NEXT) for each in ticks) or "never"


def _next(schedule: Schedule) -> str:
    return f"paused ({schedule.paused})" if schedule.paused else ticks_text(schedule.next)


def _source(schedule: Schedule) -> str:
    return schedule.source if schedule.family is None else f"{schedule.source} of {schedule.family}"
