"""Commands that look at jobs; the family need not run, here or anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import click

from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.job import Attempt, Job, State, json_id
from jobvisor.jobs.units import duration_text, size_text
from jobvisor.jobs.why import Reason
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    examples,
    json_option,
    plain,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.completing import jobs
from jobvisor.supervisor.cli.selection import filter_of, filter_options, read_id
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.documents.words import call, when_of

__all__ = ["ago", "arguments_of", "job_lines", "list_jobs", "show", "when_told"]

ARGUMENTS_MAX = 60
"""Letters of the arguments that a list shows; `show` and --json have all of them."""


_SHOWN_OF_ATTEMPT = (
    "started_at", "finished_at", "host", "pid", "exit_code", "signal", "verdict", "cpu_ms", "rss_bytes",
)  # fmt: skip


@click.command(
    "list",
    epilog=examples(
        "jobvisor list --state failed --since 1h --error timeout",
        "jobvisor list --task send --text you@example.com",
        "jobvisor list --state pending --state running --json | jq '.[].id'",
    ),
)
@filter_options(State)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--before", metavar="ID", type=read_id, help="Only those with a smaller id.")
@json_option
@config_option
def list_jobs(
    config: str | None, limit: int, before: int | None, as_json: bool, **given: Any
) -> None:
    """List jobs, the newest first.

    WHEN is the end of a finished job, the beginning of a running one, else when it is due.
    """
    with find_site(config).client() as client:
        which = filter_of(client, given)
        found = [] if which is None else client.list(which, limit=limit, before=before)
    if as_json:
        print_json([job.as_json() for job in found])
        return
    print_table(
        ["id", "state", "task", "queue", "attempt", "when", "args", "error"],
        [_job_row(job) for job in found],
        seldom=("args", "error"),
    )
    if len(found) == limit:
        say(f"the newest {limit}; --limit shows more, --before {found[-1].id} those before them")


@click.command(epilog=examples("jobvisor show 7", "jobvisor show 7 --json | jq .result"))
@click.argument("job_id", metavar="ID", type=read_id, shell_complete=jobs(State))
@json_option
@config_option
def show(config: str | None, job_id: int, as_json: bool) -> None:
    """Show one job, with its attempts and why it does not run.

    And who holds its unique key now, where it has one.
    """
    site = find_site(config)
    with site.client() as client:
        job = client.get(job_id)
        attempts = client.attempts(job_id)
        why = client.why(job, served=None if site.config is None else site.config.queues)
        holder = None if job.unique is None else client.holder(job.unique)
    if as_json:
        told = {
            "why": [reason.as_json() for reason in why],
            "attempts": [attempt.as_json() for attempt in attempts],
            "unique_holder": None if holder is None else json_id(holder),
        }
        print_json(job.as_json() | told)
        return
    click.echo("\n".join(job_lines(job, attempts, why)))
    if job.unique is not None:
        click.echo(f"{'unique_holder:':<18}{_holder_told(holder, job.id)}")


def _holder_told(holder: int | None, job: int) -> str:
    return "nobody" if holder is None else "this job" if holder == job else f"job {holder}"


def job_lines(job: Job, attempts: Iterable[Attempt], why: Iterable[Reason] = ()) -> Iterator[str]:
    """All there is to know of a job, why it does not run, and of its unsuccessful runs, as people read it."""
    for name, value in job.as_json().items():
        if value not in (None, False) and name != "created" and (value or name != "headers"):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield from plain(f"{name + ':':<18}{shown}{_in_words(name, value)}").splitlines()
    for reason in why:
        yield f"{'waits:':<18}{plain(reason.text)}"
    for attempt in attempts:
        yield from _attempt_lines(attempt)


def _in_words(name: str, value: Any) -> str:
    """What a run cost as people write it, behind the number."""
    if name == "rss_bytes" and value:
        return f" ({size_text(value)})"
    if name == "cpu_ms" and value >= 1_000:
        return f" ({duration_text(value)})"
    return ""


def _job_row(job: Job) -> list[Any]:
    return [
        job.id,
        job.state.value,
        job.task,
        job.queue,
        f"{job.attempt}/{job.attempts_max}",
        when_told(job),
        arguments_of(job),
        job.error,
    ]


def when_told(job: Job) -> str:
    """How long ago it ended or, while it runs, began; else how long it has been due, or when it will be."""
    return ago(when_of(job))


def ago(moment: datetime) -> str:
    """How long ago a moment was, or in how long it comes."""
    past_ms = SYSTEM.now_ms() - from_datetime(moment)
    return f"in {brief(-past_ms)}" if past_ms < 0 else f"{brief(past_ms)} ago"


def arguments_of(job: Job) -> str:
    """The arguments as a call has them, cut to what fits a column."""
    return call(job.as_json(), ARGUMENTS_MAX)


def _attempt_lines(attempt: Attempt) -> Iterator[str]:
    told = attempt.as_json()
    yield ""
    yield f"attempt {attempt.attempt}: {plain(attempt.outcome)}"
    for name in _SHOWN_OF_ATTEMPT:
        if told[name] is not None:
            yield f"  {name + ':':<16}{plain(str(told[name]))}{_in_words(name, told[name])}"
    if attempt.message or attempt.error_type:
        told_error = f"  {attempt.error_type or 'error'}: {attempt.message or ''}"
        yield from plain(told_error).splitlines()
    for line in (attempt.traceback or "").splitlines():
        yield f"  {plain(line)}"
    for title, text in (("where it stood", attempt.stack), ("what it said last", attempt.said)):
        if text:
            yield f"  {title}:"
            yield from (f"    {plain(line)}" for line in text.splitlines())
