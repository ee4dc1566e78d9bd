"""`limits`: how many jobs of a kind run at once, and start in a while; shown, set, removed."""

from __future__ import annotations

import click

from jobvisor.jobs.limit import CONCURRENCY_MAX, LimitStanding
from jobvisor.supervisor.cli import (
    config_option,
    examples,
    json_option,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.completing import limits as names
from jobvisor.supervisor.cli.noting import note
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.documents.limits import counted, limits_of, said_of, told_unknown_limits

__all__ = ["limits"]


@click.group(
    epilog=examples(
        "jobvisor limits list",
        "jobvisor limits set stripe --concurrency 5 --rate 100/1m",
        "jobvisor limits remove stripe",
    )
)
def limits() -> None:
    """Show and change how many jobs of a kind may run at once.

    What is set here counts more than [limits.NAME] of a config, for all families, and at once.
    """


@limits.command("list", epilog=examples("jobvisor limits list --json | jq '.limits[].waiting'"))
@json_option
@config_option
def list_limits(config: str | None, *, as_json: bool) -> None:
    """Show all limits, with how many of their jobs run and wait.

    Of each up to 10,000 are counted. Limits that jobs wait for and nobody has set are named.
    """
    with find_site(config).client() as client:
        told = limits_of(client)
        found = client.limits.list() if not as_json else []
    if as_json:
        print_json(told)
    elif found:
        columns = ["limit", "concurrency", "rate", "burst", "running", "waiting", "keys", "from"]
        print_table(columns, [_row(each) for each in found], seldom=("burst", "rate"))
    else:
        say("there is no limit; [limits.NAME] or `jobvisor limits set` makes one")
    for sentence in told_unknown_limits(told["unknown"]):
        say(f"warning: {sentence}")


def _row(each: LimitStanding) -> list[object]:
    limit = each.limit
    return [
        limit.name, limit.concurrency, limit.rate_text, limit.burst,
        *(counted(number).replace(",", "") for number in (each.running, each.waiting, each.keys)),
        said_of(limit),
    ]  # fmt: skip


@limits.command(
    "set",
    epilog=examples(
        "jobvisor limits set stripe --concurrency 5",
        "jobvisor limits set api --rate 100/1m --burst 20",
    ),
)
@click.argument("name", shell_complete=names)
@click.option(
    "--concurrency",
    type=click.IntRange(0, CONCURRENCY_MAX),
    metavar="NUMBER",
    help="How many run at once; 0 lets none begin.",
)
@click.option("--rate", metavar="NUMBER/TIME", help="How many start in a while: 100/1m.")
@click.option(
    "--burst",
    type=int,
    metavar="NUMBER",
    help="How many may start at once after a rest.  [default: what the rate gives in 1 s]",
)
@json_option
@config_option
def set_limit(
    config: str | None,
    name: str,
    *,
    concurrency: int | None,
    rate: str | None,
    burst: int | None,
    as_json: bool,
) -> None:
    """Say what a limit is, from now on; what is not said is not limited.

    Jobs that run go on where it is made less; those that wait begin where it is made more.
    """
    with find_site(config).client() as client:
        limit = client.limits.set(name, concurrency=concurrency, rate=rate, burst=burst)
        note(client, "limit", str(limit))
    if as_json:
        print_json(limit.as_json())
    else:
        click.echo(str(limit))


@limits.command("remove", epilog=examples("jobvisor limits remove stripe"))
@click.argument("name", shell_complete=names)
@json_option
@config_option
def remove_limit(config: str | None, name: str, *, as_json: bool) -> None:
    """Take back what was said of a limit.

    What a running family's [limits.NAME] says counts again within ten seconds; without that its jobs
    wait. Exit code 1 where nothing was said.
    """
    with find_site(config).client() as client:
        removed = client.limits.remove(name)
        if removed:
            note(client, "limit", f"{name}: removed")
    if as_json:
        print_json({"name": name, "removed": removed})
    elif removed:
        click.echo(f"{name}: removed")
    if not removed:
        say(f"there is no limit {name}")
        click.get_current_context().exit(1)
