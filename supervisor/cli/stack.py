"""`stack`: what a worker or the worker of a job is doing, asked of the process itself."""

from __future__ import annotations

import click

from jobvisor.jobs.job import State
from jobvisor.supervisor.cli import config_option, examples, json_option, plain, print_json
from jobvisor.supervisor.cli.bearings import find_family
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.selection import read_id
from jobvisor.supervisor.documents.stack import stacks_of_job, stacks_of_process
from jobvisor.supervisor.family import StateDir

__all__ = ["stack"]


@click.command(epilog=examples("jobvisor stack 17", "jobvisor stack worker 2"))
@click.argument(
    "who", metavar="JOB|WORKER", nargs=-1, required=True, shell_complete=jobs([State.RUNNING])
)
@json_option
@config_option
def stack(config: str | None, as_json: bool, who: tuple[str, ...]) -> None:
    """Print where a running job, or a process, is just now.

    A job is named by its id, a process as the log names it: `worker 2`, `caretaker`. It goes on: a
    signal interrupts it for a fraction of a millisecond.
    """
    folder = StateDir(find_family(config).state_dir).ledgers
    name = " ".join(who)
    by_name = name[:1].isalpha()
    found = stacks_of_process(folder, name) if by_name else stacks_of_job(folder, read_id(name))
    if as_json:
        print_json(found)
        return
    for each in found:
        of = f"job {each['job']}" if each["job"] else "no job"
        click.echo(f"{each['name']} pid {each['pid']}, {of}:\n{plain(each['stack'])}")
