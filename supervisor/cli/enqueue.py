"""`enqueue`: a job, or one for each line of stdin, and the end of one if that is waited for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, cast

import click

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.codec import named_codec
from jobvisor.jobs.errors import InvalidOption, JobNotFound, JobsError, UnknownTask, WaitTimeout
from jobvisor.jobs.job import Job, State, json_id
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import registry
from jobvisor.jobs.settings import Settings
from jobvisor.jobs.task import NAME_MAX, Call, Options, OptionValues, Task
from jobvisor.jobs.uniqueness import CONFLICTS
from jobvisor.supervisor.cli import config_option, examples, json_option, print_json, say
from jobvisor.supervisor.cli.arguments import Arguments
from jobvisor.supervisor.cli.completing import limits, queues, whole_tasks
from jobvisor.supervisor.cli.selection import PAGE, ending, read_duration, read_moment, read_until
from jobvisor.supervisor.cli.site import Site, find_site
from jobvisor.supervisor.family import StateDir

__all__ = ["enqueue", "known_task"]

INPUT_BYTES_MAX = 64 << 20
"""All lines of `enqueue TASK -` together: they are kept until the last of them is known good."""

INPUT_LINES_MAX = 1_000_000
"""Very short lines cost more memory as Python objects than as text."""

LOOK_S = 0.5
"""How often `--wait` looks for progress; the end of the job is seen at once."""


@click.command(
    epilog=examples(
        'jobvisor enqueue app:send you@example.com --kwargs \'{"subject": "Hi"}\' --in 5m',
        "jobvisor enqueue app:add 1 2 --wait --wait-timeout 30s",
        "seq 3 | jq -c '[.]' | jobvisor enqueue app:greet -",
    )
)
@click.argument("task", shell_complete=whole_tasks)
@click.argument("args", metavar="[ARG...]", nargs=-1)
@click.option("--kwargs", metavar="JSON", help="Keyword arguments as one JSON object.")
@click.option("--typed", is_flag=True, help='ARGs may hold tags: {"$date": "2027-01-31"}.')
@click.option("--in", "run_in", metavar="DURATION", help="Not before this has passed: 5m.")
@click.option("--at", "run_at", metavar="TIME", help="Not before: 2027-01-31T08:00+01:00.")
@click.option(
    "--queue", metavar="NAME", help="Another queue than the task's.", shell_complete=queues
)
@click.option("--priority", type=int, help="Higher runs earlier within its queue.")
@click.option("--unique", metavar="KEY", help="Only if no other job holds this key.")
@click.option(
    "--unique-for",
    metavar="HOW_LONG",
    help="It is held while unfinished, kept, or for 10m from now.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(CONFLICTS),
    help="Where it is held: return that job, raise, replace one that waits, debounce it.",
)
@click.option("--delay", metavar="DURATION", help="Debounced: so long after the last call.")
@click.option("--max-wait", metavar="DURATION", help="And so long after the first at the latest.")
@click.option(
    "--limit",
    metavar="KEY",
    help="The limit that it runs under: stripe, stripe:acct_1.",
    shell_complete=limits,
)
@click.option("--share", metavar="NAME", help="On whose behalf it runs, in a fair queue.")
@click.option("--weight", type=int, help="Of that share: 3 is three times as often as 1.")
@click.option("--retries", type=int, help="Further attempts after the first.")
@click.option("--timeout", metavar="DURATION", help="The longest one run may take.")
@click.option(
    "--expires", metavar="DURATION|TIME", help="Cancelled where it has not begun by then: 1h."
)
@click.option(
    "--deadline", metavar="DURATION", help="Failed where it is not done by then, with all attempts."
)
@click.option(
    "--keep",
    metavar="DURATION",
    help="Kept so long after its end: 1h, forever, succeeded=1h,failed=90d.",
)
@click.option("--headers", metavar="JSON", help="What goes along with the job, as one JSON object.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@click.option(
    "--wait-timeout", metavar="DURATION", help="Wait no longer than this; the job goes on."
)
@click.option("--force", is_flag=True, help="Also where no configured module has the task.")
@json_option
@config_option
def enqueue(
    config: str | None,
    task: str,
    args: tuple[str, ...],
    *,
    kwargs: str | None,
    typed: bool,
    force: bool,
    as_json: bool,
    wait: bool,
    wait_timeout: str | None,
    **given: Any,
) -> None:
    """Enqueue a job of TASK and print its id.

    Each ARG is JSON, or text where it is not JSON: 3 is a number, '"3"' and three are texts. Where
    the task's parameter is annotated with str, datetime, date, time, timedelta, Decimal, UUID, Path,
    bytes or an Enum, it becomes one: 3, 2027-01-31T08:00Z, 2027-01-31, 08:30, 1m30s, 12.50. Put --
    before an ARG that begins with a dash.

    A single - reads one JSON list of arguments per line from stdin, at most 64 MiB and a million
    lines: every line is checked before the first is stored, then they are stored 1000 in a
    transaction and their ids printed.

    Exit code 1 if no module has the task, and with --wait if the job failed, was cancelled, or had
    not ended in --wait-timeout.
    """
    patience_ms = None if wait_timeout is None else read_duration("--wait-timeout", wait_timeout)
    wait = wait or patience_ms is not None
    bulk = args == ("-",)
    if bulk and (wait or given["unique"] is not None):
        raise InvalidOption("--wait and --unique are about one job; leave them out with -")
    site = find_site(config)
    options = _read_options(given)
    known = known_task(site, task, force=force)
    arguments = Arguments(task, known.function if known else None, typed=typed)
    make = _maker(site, task, known, options, arguments.of_keywords(kwargs))
    with site.client(create=True) as client:
        if bulk:
            _enqueue_lines(client, arguments, make, site.settings, as_json=as_json)
            return
        job = client.enqueue(make(arguments.of_words(args)))
        if job.replaced:
            say(
                f"job {job.id} was waiting under the key {job.unique!r}; it has this call's arguments now"
            )
        elif not job.created:
            say(
                f"job {job.id} ({job.state.value}) holds the key {job.unique!r} already; nothing was added"
            )
        if wait:
            job = _wait(client, job, site, patience_ms)
            _print_end(job, as_json=as_json)
        elif as_json:
            print_json(job.as_json())
        else:
            click.echo(job.id)


Maker = Callable[[Sequence[Any]], Call]


def known_task(site: Site, name: str, *, force: bool) -> Task[..., Any] | None:
    """The task of this name, None where no module is configured, or by force."""
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InvalidOption(f"{name[:80]!r} is no task; write its name, such as app.tasks:send")
    if site.config is None:
        say(f"warning: without a config.toml the options of {name} are not known; it gets defaults")
        return None
    modules = site.config.tasks.modules
    if not modules:
        say(f"warning: no [tasks] modules: the options of {name} are not known; it gets defaults")
        return None
    # What a module prints while it is imported is talk, and stdout is for data.
    with contextlib.redirect_stdout(sys.stderr):
        registry.load(modules, site.config.tasks.path)
    known = registry.get(name)
    if known is None:
        where = f" in {', '.join(modules)}" if modules else ": [tasks] modules names no module"
        told = f"no task {name!r}{where}"
        if not force:
            names = registry.names()
            ends = ending(name, names)
            hint = f"; did you mean {ends[0]!r}?" if ends else did_you_mean(name, names)
            raise UnknownTask(f"{told}{hint or '.'} --force enqueues it all the same")
        say(f"warning: {told}; enqueued with default options")
    return known


def _maker(
    site: Site,
    name: str,
    known: Task[..., Any] | None,
    given: OptionValues,
    kwargs: Mapping[str, Any],
) -> Maker:
    """What makes calls of this task: options given here, else its own, else the configured ones."""
    defaults = site.settings.defaults
    options = Options(defaults.queue, retries=defaults.retries, timeout_ms=defaults.timeout_ms)
    if known is not None:
        options = options.merged(known.options)
    options = options.merged(Options.of(given))
    if site.config is not None and options.queue not in site.config.queues:
        say(f"warning: no [[workers]] of {site.config.path} serves queue {options.queue!r}")
    function = known.function if known is not None else None
    return lambda arguments: Call(name, tuple(arguments), kwargs, options, function)


def _read_options(given: dict[str, Any]) -> OptionValues:
    """The options that were given, durations and moments read; the task judges the rest."""
    options: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
    if "run_in" in options and "run_at" in options:
        raise InvalidOption("--in and --at are two answers to one question; give one of them")
    for name, flag in (
        ("run_in", "--in"), ("timeout", "--timeout"), ("delay", "--delay"), ("max_wait", "--max-wait"),
        ("deadline", "--deadline"),
    ):  # fmt: skip
        if name in options:
            options[name] = f"{read_duration(flag, options[name])}ms"
    if "expires" in options:
        expires = read_until("--expires", options.pop("expires"))
        options["expires_at" if isinstance(expires, datetime) else "expires_in"] = expires
    if "keep" in options:
        options["keep"] = _read_keep(options["keep"])
    if "headers" in options:
        options["headers"] = _read_headers(options["headers"])
    if "run_at" in options:
        options["run_at"] = read_moment("--at", options["run_at"])
    return cast(OptionValues, options)


def _read_keep(text: str) -> str | dict[str, str]:
    """One time for every end, or one for each, as a variable has it."""
    parts = [part.partition("=") for part in text.split(",")]
    if not any(equals for _, equals, _ in parts):
        return text
    return {state.strip(): time.strip() for state, _, time in parts}


def _read_headers(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOption(
            f'--headers is no JSON: {error}; write \'{{"trace": "4bf9"}}\''
        ) from None


def _enqueue_lines(
    client: Client, arguments: Arguments, make: Maker, settings: Settings, *, as_json: bool
) -> None:
    lines = list(_read_lines(sys.stdin.buffer, arguments, make, settings))
    stored = 0
    ids: list[int] = []
    for start in range(0, len(lines), PAGE):
        page = lines[start : start + PAGE]
        try:
            made = client.enqueue_many([make(arguments.of_line(line)) for _, line in page])
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


def _read_lines(
    file: BinaryIO, arguments: Arguments, make: Maker, settings: Settings
) -> Iterator[tuple[int, str]]:
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
            text = line.decode()
            make(arguments.of_line(text)).new_job(settings.defaults, payload)
        except (JobsError, ValueError) as error:
            raise InvalidOption(f"stdin line {number}: {error}. Nothing was enqueued") from None
        yield number, text


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
