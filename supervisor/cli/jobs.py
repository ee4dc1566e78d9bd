"""Commands that look at jobs and move them; the family need not run, here or anywhere."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, cast

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.codec import named_codec
from jobvisor.jobs.errors import (
    InvalidOption,
    JobNotFound,
    JobsError,
    StoreUnavailable,
    WaitTimeout,
)
from jobvisor.jobs.job import FINISHED, Attempt, Job, State, json_id
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import registry
from jobvisor.jobs.settings import Settings
from jobvisor.jobs.task import NAME_MAX, Call, Options, OptionValues, Task
from jobvisor.jobs.units import duration_ms, duration_text
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    json_option,
    plain,
    print_json,
    print_table,
    say,
)
from jobvisor.supervisor.cli.site import Site, find_site
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir

__all__ = ["cancel", "enqueue", "list_jobs", "prune", "requeue", "show"]

PAGE = 1000
"""Jobs of one transaction: long enough to be fast, short enough to let workers in between."""

INPUT_BYTES_MAX = 64 << 20
"""All lines of `enqueue TASK -` together: they are kept until the last of them is known good."""

INPUT_LINES_MAX = 1_000_000
"""Very short lines cost more memory as Python objects than as text."""

LOOK_S = 0.5
"""How often `--wait` looks for progress; the end of the job is seen at once."""


def _job_id(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text) or not 0 < int(text) < 1 << 63:
        raise click.BadParameter(f"{text[:80]!r} is no job id; it is a number, as `list` shows it")
    return int(text)


@click.command()
@click.argument("task")
@click.argument("args", metavar="[ARG...]", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Keyword arguments as one JSON object.")
@click.option("--in", "run_in", metavar="DURATION", help="Not before this has passed: 5m.")
@click.option("--at", "run_at", metavar="TIME", help="Not before: 2027-01-31T08:00+01:00.")
@click.option("--queue", help="Another queue than the task's.")
@click.option("--priority", type=int, help="Higher runs earlier within its queue.")
@click.option("--unique", metavar="KEY", help="Only if no unfinished job has this key.")
@click.option("--retries", type=int, help="Further attempts after the first.")
@click.option("--timeout", metavar="DURATION", help="The longest one run may take.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@click.option(
    "--wait-timeout", metavar="DURATION", help="Wait no longer than this; the job goes on."
)
@json_option
@config_option
def enqueue(
    config: str | None,
    task: str,
    args: tuple[str, ...],
    *,
    as_json: bool,
    wait: bool,
    wait_timeout: str | None,
    **given: Any,
) -> None:
    """Enqueue a job of TASK and print its id.

    Each ARG is JSON, or text where it is not JSON: 3 is a number, '"3"' and three are texts. Put --
    before an ARG that begins with a dash.

    A single - reads one JSON list of arguments per line from stdin, at most 64 MiB and a million
    lines: every line is checked before the first is stored, then they are stored 1000 in a
    transaction and their ids printed.

    Exit code 1 with --wait if the job failed, was cancelled, or had not ended in --wait-timeout.
    """
    patience_ms = None if wait_timeout is None else _read_duration("--wait-timeout", wait_timeout)
    wait = wait or patience_ms is not None
    kwargs = _read_kwargs(given.pop("kwargs"))
    bulk = args == ("-",)
    if bulk and (wait or given["unique"] is not None):
        raise InvalidOption("--wait and --unique are about one job; leave them out with -")
    site = find_site(config)
    options = _read_options(given)
    make = _maker(site, task, kwargs, options)
    with site.client(create=True) as client:
        if bulk:
            _enqueue_lines(client, make, site.settings, as_json=as_json)
            return
        job = client.enqueue(make([_read_argument(text) for text in args]))
        if not job.created:
            say(f"job {job.id} holds the key {job.unique!r} already; nothing was added")
        if wait:
            job = _wait(client, job, site, patience_ms)
            _print_end(job, as_json=as_json)
        elif as_json:
            print_json(job.as_json() | {"created": job.created})
        else:
            click.echo(job.id)


@click.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]))
@click.option("--queue")
@click.option("--task")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
@config_option
def list_jobs(config: str | None, limit: int, as_json: bool, **filters: str | None) -> None:
    """List jobs, the newest first."""
    with find_site(config).client() as client:
        found = list(_pages(client, filters, limit))
    if as_json:
        print_json([job.as_json() for job in found])
    else:
        print_table(
            ["id", "state", "task", "queue", "attempt", "when", "error"],
            [_job_row(job) for job in found],
        )
        if len(found) == limit:
            say(f"the newest {limit}; --limit shows more")


@click.command()
@click.argument("job_id", metavar="ID", type=_job_id)
@json_option
@config_option
def show(config: str | None, job_id: int, as_json: bool) -> None:
    """Show one job with its attempts and their tracebacks."""
    with find_site(config).client() as client:
        job = client.get(job_id)
        attempts = client.attempts(job_id)
    if as_json:
        print_json(job.as_json() | {"attempts": [attempt.as_json() for attempt in attempts]})
        return
    for name, value in job.as_json().items():
        if value not in (None, False) and name != "created":
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name + ':':<18}{plain(shown)}")
    for attempt in attempts:
        _print_attempt(attempt)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=_job_id)
@json_option
@config_option
def cancel(config: str | None, ids: tuple[int, ...], as_json: bool) -> None:
    """Cancel jobs.

    Of a running one it is requested, and after cancel_grace it is killed. An id that does not exist
    stops the command before the first is cancelled. A job that is finished already is named, the
    others are cancelled all the same, and the exit code is 1.
    """
    with find_site(config).client() as client:
        for job_id in ids:
            client.get(job_id)
        _each(ids, client.cancel, as_json=as_json)


@click.command()
@click.argument("ids", metavar="[ID...]", nargs=-1, type=_job_id)
@click.option(
    "--state",
    type=click.Choice(sorted(state.value for state in FINISHED)),
    help="All jobs in this state instead of ids.",
)
@click.option("--queue", help="With --state: only of this queue.")
@click.option("--task", help="With --state: only of this task.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def requeue(
    config: str | None, ids: tuple[int, ...], yes: bool, as_json: bool, **filters: str | None
) -> None:
    """Let finished jobs start over.

    At attempt 0, their history is kept. An id that does not exist stops the command before the
    first is requeued. A job that cannot be requeued is named, the others are requeued all the same,
    and the exit code is 1.
    """
    if bool(ids) == (filters["state"] is not None):
        raise click.UsageError("name either ids or --state, such as: requeue --state failed")
    if ids and (filters["queue"] or filters["task"]):
        raise click.UsageError("--queue and --task go with --state; an id needs neither")
    with find_site(config).client() as client:
        for job_id in ids:
            client.get(job_id)
        # The ids first: a requeued job leaves the state that is being paged through.
        # The oldest first, so that they run again in the order they were enqueued.
        chosen = ids or tuple(job.id for job in _pages(client, filters, None))[::-1]
        if not ids and chosen and not yes:
            _confirm(f"requeue {len(chosen)} {filters['state']} jobs")
        _each(chosen, lambda job_id: client.requeue(job_id).state.value, as_json=as_json)
        if not chosen:
            say(f"no {filters['state']} job to requeue")


@click.command()
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
        state: _read_duration(f"--{state}", text)
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
    with site.client() as client:
        counts = client.prune(ages, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "removed": counts})
        return
    verb = "would remove" if dry_run else "removed"
    for state, age_ms in ages.items():
        click.echo(f"{verb} {counts[state]} {state} jobs older than {duration_text(age_ms)}")


Maker = Callable[[Sequence[Any]], Call]


def _maker(site: Site, name: str, kwargs: dict[str, Any], given: OptionValues) -> Maker:
    """What makes calls of this task: options given here, else its own, else the configured ones."""
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InvalidOption(f"{name[:80]!r} is no task; write its name, such as app.tasks:send")
    known = _known_task(site, name)
    defaults = site.settings.defaults
    options = Options(defaults.queue, retries=defaults.retries, timeout_ms=defaults.timeout_ms)
    if known is not None:
        options = options.merged(known.options)
    options = options.merged(Options.of(given))
    if site.config is not None and options.queue not in site.config.queues:
        say(f"warning: no [[workers]] of {site.config.path} serves queue {options.queue!r}")
    function = known.function if known is not None else None
    return lambda arguments: Call(name, tuple(arguments), kwargs, options, function)


def _known_task(site: Site, name: str) -> Task[..., Any] | None:
    if site.config is None:
        say(f"warning: without a config.toml the options of {name} are not known; it gets defaults")
        return None
    modules = site.config.tasks.modules
    # What a module prints while it is imported is talk, and stdout is for data.
    with contextlib.redirect_stdout(sys.stderr):
        registry.load(modules, site.config.tasks.path)
    known = registry.get(name)
    if known is None:
        say(f"warning: no task {name!r} in {', '.join(modules)}; enqueued with default options")
    return known


def _read_options(given: dict[str, Any]) -> OptionValues:
    """The options that were given, durations and moments read; the task judges the rest."""
    options: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
    if "run_in" in options and "run_at" in options:
        raise InvalidOption("--in and --at are two answers to one question; give one of them")
    for name, flag in (("run_in", "--in"), ("timeout", "--timeout")):
        if name in options:
            options[name] = f"{_read_duration(flag, options[name])}ms"
    if "run_at" in options:
        options["run_at"] = _read_moment(options["run_at"])
    return cast(OptionValues, options)


def _read_duration(option: str, text: str) -> int:
    try:
        return duration_ms(text)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def _read_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(
            f"--at: {text!r} is not a time; write 2027-01-31T08:00+01:00 or 2027-01-31T07:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise InvalidOption(f"--at: {text!r} has no timezone; add one, such as Z or +01:00")
    from_datetime(moment)
    return moment


def _read_kwargs(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = _read_json(text)
    except ValueError as error:
        raise InvalidOption(f"--kwargs is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidOption("--kwargs is not a JSON object; write '{\"name\": 1}'")
    return found


def _read_argument(text: str) -> Any:
    try:
        return _read_json(text)
    except ValueError:
        return text


def _read_json(text: str) -> Any:
    """JSON as its standard has it: NaN and Infinity are none, and deep nesting is no crash."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _enqueue_lines(client: Client, make: Maker, settings: Settings, *, as_json: bool) -> None:
    lines = list(_read_lines(sys.stdin.buffer, make, settings))
    stored = 0
    ids: list[int] = []
    for start in range(0, len(lines), PAGE):
        page = lines[start : start + PAGE]
        try:
            made = client.enqueue_many([make(json.loads(line)) for _, line in page])
        except JobsError as error:
            # The first page failing means that nothing was stored; later ones must say how far.
            if stored:
                say(f"{stored} of {len(lines)} were enqueued, all before line {page[0][0]}")
            raise error from None
        stored += len(made)
        if as_json:
            ids += made
        else:
            click.echo("\n".join(map(str, made)))
    if as_json:
        print_json([json_id(number) for number in ids])
    say(f"enqueued {stored} jobs")


def _read_lines(file: BinaryIO, make: Maker, settings: Settings) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, once it is known to make a job; blank ones are passed over."""
    payload = Payload(named_codec(settings.codec, settings.path))
    total = 0
    for number, line in enumerate(iter(lambda: file.readline(INPUT_BYTES_MAX + 1), b""), 1):
        total += len(line)
        if total > INPUT_BYTES_MAX or number > INPUT_LINES_MAX:
            raise InvalidOption(
                f"stdin is longer than 64 MiB or 1000000 lines at line {number}; split it. "
                "Nothing was enqueued"
            )
        if not line.strip():
            continue
        try:
            arguments = _read_json(line.decode())
            if not isinstance(arguments, list):
                raise InvalidOption('it is not a list; write the arguments as [1, "two"]')
            make(arguments).new_job(settings.defaults, payload)
        except (JobsError, ValueError) as error:
            raise InvalidOption(f"stdin line {number}: {error}. Nothing was enqueued") from None
        yield number, line


def _wait(client: Client, job: Job, site: Site, patience_ms: int | None) -> Job:
    ends = None if patience_ms is None else SYSTEM.monotonic_ns() + patience_ms * 1_000_000
    if site.config is not None and StateDir(site.config.family.state_dir).holder() is None:
        say(f"family {site.config.family.name} is not running here; waiting all the same")
    told = ""
    try:
        while True:
            line = _standing(job)
            if line != told:
                say(line)
                told = line
            if job.finished:
                return job
            left_s = LOOK_S if ends is None else (ends - SYSTEM.monotonic_ns()) / 1e9
            if left_s <= 0:
                say(f"it goes on; see `jobvisor show {job.id}`")
                return job
            try:
                job = client.wait(job.id, timeout=min(left_s, LOOK_S))
            except WaitTimeout:
                job = client.get(job.id)
    except JobNotFound:
        raise JobNotFound(
            f"job {job.id} has ended and was not kept, so its result is not known; "
            "raise [retention] to see it"
        ) from None
    except KeyboardInterrupt:
        say(f"no longer waiting; job {job.id} goes on: `jobvisor show {job.id}`")
        raise


def _standing(job: Job) -> str:
    line = f"job {job.id} {job.state.value}"
    if job.attempt:
        line += f", attempt {job.attempt} of {job.attempts_max}"
    if job.progress and not job.finished:
        line += f", {json.dumps(job.progress, ensure_ascii=False)}"
    if job.error and job.state is not State.SUCCEEDED:
        line += f": {job.error}"
    return line


def _print_end(job: Job, *, as_json: bool) -> None:
    told = job.as_json()
    if as_json:
        print_json(told)
    elif job.state is State.SUCCEEDED:
        print_json(told["result"])
    if job.state is not State.SUCCEEDED:
        click.get_current_context().exit(1)


def _pages(client: Client, filters: dict[str, str | None], limit: int | None) -> Iterator[Job]:
    """Matching jobs, newest first, fetched a page at a time."""
    state = State(filters["state"]) if filters["state"] else None
    before: int | None = None
    left = limit
    while left is None or left > 0:
        page = client.list(
            state=state,
            queue=filters["queue"],
            task=filters["task"],
            limit=PAGE if left is None else min(left, PAGE),
            before=before,
        )
        yield from page
        if not page:
            return
        before = page[-1].id
        left = None if left is None else left - len(page)


def _each(ids: Sequence[int], act: Callable[[int], str], *, as_json: bool) -> None:
    """Do one thing to each job and say what came of it; exit code 1 if one could not be done."""
    outcomes: list[dict[str, Any]] = []
    for job_id in ids:
        try:
            done = act(job_id)
        except StoreUnavailable:
            raise
        except JobsError as error:
            outcomes.append({"id": json_id(job_id), "error": str(error)})
            say(f"jobvisor: {error}")
        else:
            outcomes.append({"id": json_id(job_id), "outcome": done})
            if not as_json:
                click.echo(f"{job_id} {done}")
    if as_json:
        print_json(outcomes)
    if any("error" in outcome for outcome in outcomes):
        click.get_current_context().exit(1)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: there is nobody to ask here, so add -y")
    click.confirm(f"{question}?", abort=True, err=True)


def _job_row(job: Job) -> list[Any]:
    return [
        job.id,
        job.state.value,
        job.task,
        job.queue,
        f"{job.attempt}/{job.attempts_max}",
        _ago(_when(job)),
        job.error,
    ]


def _when(job: Job) -> datetime:
    """The end of a finished job, the beginning of a running one, else when it is due."""
    if job.finished:
        return job.finished_at or job.run_at
    if job.state is State.RUNNING:
        return job.claimed_at or job.run_at
    return job.run_at


def _ago(moment: datetime) -> str:
    past_ms = SYSTEM.now_ms() - from_datetime(moment)
    return f"in {brief(-past_ms)}" if past_ms < 0 else f"{brief(past_ms)} ago"


def _print_attempt(attempt: Attempt) -> None:
    told = attempt.as_json()
    click.echo(f"\nattempt {attempt.attempt}: {attempt.outcome}")
    for name in ("started_at", "finished_at", "host", "pid", "exit_code", "signal", "verdict"):
        if told[name] is not None:
            click.echo(f"  {name + ':':<16}{plain(str(told[name]))}")
    if attempt.message or attempt.error_type:
        click.echo(f"  {plain(attempt.error_type or 'error')}: {plain(attempt.message or '')}")
    for line in (attempt.traceback or "").splitlines():
        click.echo(f"  {plain(line)}")
