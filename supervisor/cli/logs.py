"""`logs`: what a job said, in its past runs and in the one that goes on; or the log of the family."""

from __future__ import annotations

import os
from typing import BinaryIO

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import Attempt, Job, State
from jobvisor.supervisor.cli import config_option, examples, json_option, plain, print_json, say
from jobvisor.supervisor.cli.bearings import find_family
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.selection import read_id
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.documents.said import Run, Speech, run_of, said_of
from jobvisor.supervisor.family import StateDir

__all__ = ["logs"]

POLL_S = 0.2
"""Between two looks at what is being followed."""

TAIL_BYTES = 1 << 20
"""Of a log at the most, for its last lines."""


@click.command(epilog=examples("jobvisor logs 17", "jobvisor logs 17 -f", "jobvisor logs -f"))
@click.argument("job_id", metavar="[JOB]", type=read_id, required=False, shell_complete=jobs(State))
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is finished, or Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 100_000), default=50, show_default=True,
    help="Of the family's log show so many lines.",
)  # fmt: skip
@json_option
@config_option
def logs(config: str | None, as_json: bool, lines: int, follow: bool, job_id: int | None) -> None:
    """Print what a job logged and printed, or the log of the family.

    Of each run that did not succeed the end is kept ([log] keep); of one that goes on it is read
    where it runs, on this machine.
    """
    if job_id is None:
        if as_json:
            raise click.UsageError('--json needs a job; [log] format = "json" makes the log JSON')
        _print_log(config, lines, follow=follow)
        return
    if as_json and follow:
        raise click.UsageError("--json and --follow exclude each other")
    site = find_site(config)
    folder = StateDir(site.config.family.state_dir).ledgers if site.config else ""
    with site.client() as client:
        job, attempts = client.get(job_id), client.attempts(job_id)
        run = run_of(folder, job)
        if as_json:
            print_json(said_of(job, attempts, run))
        else:
            _print_job(client, folder, job, attempts, run, follow=follow)


# -- of a job


def _print_job(
    client: Client,
    folder: str,
    job: Job,
    attempts: list[Attempt],
    run: Run | None,
    *,
    follow: bool,
) -> None:
    shown = False
    for attempt in attempts:
        if attempt.said:
            say(f"attempt {attempt.attempt}: {attempt.outcome}")
            click.echo(plain(attempt.said.removesuffix("\n")))
            shown = True
    while run is not None or (follow and not job.finished):
        if run is not None:
            say(f"attempt {job.attempt}: running in {run.life.name}, pid {run.life.identity.pid}")
            shown = _print_run(run, follow=follow) or shown
        if not follow:
            break
        SYSTEM.sleep(POLL_S)
        job = client.get(job.id)
        run = run_of(folder, job)
    if follow:
        say(f"job {job.id}: {job.state}")
    elif not shown:
        say(_why_nothing(job, run))


def _print_run(run: Run, *, follow: bool) -> bool:
    """What it says, until it has ended where it is followed; whether it said anything."""
    speech = Speech(run)
    said = False
    while True:
        # Asked before its words are read: what it said last is not missed.
        goes_on = run.goes_on if follow else False
        piece = speech.more()
        if piece is not None:
            said = True
            if piece.missed:
                say("... it said more than could be read")
            click.echo(plain(piece.text), nl=False)
        if not goes_on:
            return said
        SYSTEM.sleep(POLL_S)


def _why_nothing(job: Job, run: Run | None) -> str:
    if run is not None:
        return f"job {job.id} has said nothing yet"
    if job.state is State.RUNNING:
        return f"job {job.id} runs in no worker here: what it says is read on its machine"
    return f"nothing is kept that job {job.id} said; [log] keep tells of which runs it is kept"


# -- of the family


def _print_log(config: str | None, lines: int, *, follow: bool) -> None:
    family = find_family(config)
    if family.config is None or not family.config.log.file:
        raise JobsError(
            "the log goes to the standard error of `jobvisor start` (under systemd: journalctl -u "
            'UNIT); with [log] file = "PATH" it goes into a file, which this command shows'
        )
    path = family.config.log.file
    file = open(path, "rb")  # noqa: SIM115 -- another one, when the log is rotated
    try:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        last = file.read().splitlines(keepends=True)
        click.echo(b"".join(last[-lines:] if lines else []), nl=False)
        while follow:
            SYSTEM.sleep(POLL_S)
            click.echo(file.read(TAIL_BYTES), nl=False)
            if _is_another(path, file):
                click.echo(file.read(), nl=False)
                file.close()
                file = open(path, "rb")  # noqa: SIM115 -- as above
            elif os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)  # it was cut
    finally:
        file.close()


def _is_another(path: str, file: BinaryIO) -> bool:
    """Whether the log has been renamed and begun anew."""
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False  # it is begun in a moment
