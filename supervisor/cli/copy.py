"""`copy`: a job run once more as a job of its own, with other arguments if they are given."""

from __future__ import annotations

from typing import Any

import click

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.job import State
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.task import Call
from jobvisor.supervisor.cli import config_option, examples, json_option, print_json
from jobvisor.supervisor.cli.arguments import Arguments
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.enqueue import known_task
from jobvisor.supervisor.cli.noting import who
from jobvisor.supervisor.cli.selection import read_id
from jobvisor.supervisor.cli.site import find_site

__all__ = ["copy"]


@click.command(
    epilog=examples(
        "jobvisor copy 17",
        "jobvisor copy 17 --args '[\"you@example.com\"]'",
        "jobvisor copy 17 --kwargs '{}'",
    )
)
@click.argument("job_id", metavar="ID", type=read_id, shell_complete=jobs(State))
@click.option("--args", "args", metavar="JSON", help="Other arguments, as one JSON list.")
@click.option("--kwargs", metavar="JSON", help="Other keyword arguments, as one JSON object.")
@click.option("--typed", is_flag=True, help='They may hold tags: {"$date": "2027-01-31"}.')
@json_option
@config_option
def copy(
    config: str | None,
    job_id: int,
    *,
    args: str | None,
    kwargs: str | None,
    typed: bool,
    as_json: bool,
) -> None:
    """Enqueue a job like this one, due at once, and print its id.

    It has the queue, priority, attempts, limits and headers of that one; what is not given here has its
    arguments too. It has no unique key. The job that is copied stays as it is, whatever its state.
    """
    site = find_site(config)
    with site.client() as client:
        job = client.get(job_id)
        changed: dict[str, Any] = {}
        if args is not None or kwargs is not None:
            known = known_task(site, job.task, force=True)
            reader = Arguments(job.task, known.function if known else None, typed=typed)
            changed = _changed(reader, args, kwargs)
            if known is not None:
                whole = {"args": job.args, "kwargs": job.kwargs, **changed}
                call = Call(
                    job.task, tuple(whole["args"]), whole["kwargs"], function=known.function
                )
                call.new_job(
                    site.settings.defaults, Payload()
                )  # refused where it cannot be called so
        with client.transaction():
            made = client.copy(job_id, **changed)
            client.note_action(who(), "copy", f"job {job_id} as {made.id}", 1)
    if as_json:
        print_json(made.as_json())
    else:
        click.echo(made.id)


def _changed(reader: Arguments, args: str | None, kwargs: str | None) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if args is not None:
        try:
            changed["args"] = reader.of_line(args)
        except InvalidOption as error:  # a ValueError too
            raise InvalidOption(f"--args: {error}") from None
        except ValueError as error:
            raise InvalidOption(f"--args is no JSON list: {error}") from None
    if kwargs is not None:
        changed["kwargs"] = reader.of_keywords(kwargs)
    return changed
