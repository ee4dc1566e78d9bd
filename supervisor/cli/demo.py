"""`jobvisor demo`: a real family at the main job on real input, hurt on the way, and the reckoning.

`play` starts the family, gives it jobs and hurts it; reckoning.py says what it came to.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import click
import psutil

from jobvisor.jobs import demo as tasks
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import InvalidOption, JobsError
from jobvisor.jobs.job import FINISHED, Job
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.task import Call
from jobvisor.supervisor.cli import json_option, plain, print_json, print_table, say
from jobvisor.supervisor.cli.reckoning import Death, Facts, Journal, Report, Run, cause, judge
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.embed import Supervisor
from jobvisor.supervisor.family import StateDir

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["demo"]

SIMULATED = 40
"""Jobs that only take their time: about as long as the real work, on a small machine."""

KILL_AFTER = 0.6
"""The share of the jobs that is done when the demo kills a worker at its real work."""

KILL_ANY_AFTER = 0.8
"""If none was found by then (there are many, and they are quick), any busy worker will do."""

LOOK_S = 0.05
LINE_EVERY_NS = 1_000_000_000
RATE_OVER_NS = 2_000_000_000

STALLED_S = 30.0
"""No job takes a tenth of it: where nothing moves for so long, nothing will."""

STOP_S = 2.0
"""So long a stop waits for running jobs; after a Ctrl-C some run, and are given back."""

GONE_S = 15.0
"""By then the family has left by itself, its last settling included; after it, it is killed."""

STATUS_S = 5.0
"""The status is written on every change; so long it may take to show the last one."""

ATTEMPTS_SQL = "SELECT outcome, count(*), max(message) FROM attempts GROUP BY outcome"

CONFIG = """\
# Written by `jobvisor demo`; `jobvisor init` writes one that shows every key.

[database]
url = "sqlite:///jobs.db"

[tasks]
modules = ["jobvisor.jobs.demo"]

[supervisor]
name = "demo"
stop_timeout = "{stop:g}s"

[[workers]]
processes = {workers}

[log]
file = "family.log"
"""


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, PROCESSES_MAX),
    help="How many workers.  [default: as many as CPUs, at least 2]",
)
@click.option("--keep", metavar="DIR", help="Work in this new or empty folder, and leave it there.")
@json_option
def demo(workers: int | None, keep: str | None, as_json: bool) -> None:
    """Watch a family of workers at work, and being hurt.

    It runs one job for each file of Python's standard library, and some that fail at first. On the
    way one job segfaults, one hangs in native code, and a worker is killed. At the end it reckons
    up what ran, how often, and whether anything was lost.

    Exit code 1 if a promise was broken.
    """
    count = workers or max(2, _cpus())
    files = library()
    with Interrupts() as interrupts, _folder(keep) as folder, _show() as show:
        facts = play(folder, files, count, show, interrupts)
    conclude(judge(facts), as_json=as_json, folder=os.path.abspath(keep) if keep else None)


def _cpus() -> int:
    """Those this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library() -> dict[str, str]:
    """The source files of the running Python's standard library: a short name for each path."""
    root = sysconfig.get_path("stdlib")
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {"__pycache__", "site-packages", "dist-packages"})
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                found[path] = os.path.relpath(path, root)
    if not found:
        raise JobsError(f"there is no source file in {root}; run this with another Python")
    return found


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    """The folder to work in; where it is not kept, it goes at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="jobvisor-demo-") as folder:
            yield folder
        return
    folder = os.path.abspath(keep)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise InvalidOption(f"--keep {keep} is not empty; name a new or an empty folder")
    except OSError as error:
        raise InvalidOption(f"--keep {keep} cannot be used: {error.strerror}") from error
    yield folder


class Interrupts:
    """Ctrl-C, TERM and a closed terminal all end the demo alike, and only once.

    What comes while it cleans up is not heard: that is over in seconds, because a stop kills what
    does not end by itself.
    """

    def __enter__(self) -> Self:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {
            number: signal.signal(number, self._interrupt)
            for number in wanted
            if signal.getsignal(number) is not signal.SIG_IGN  # `nohup` meant it
        }
        return self

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        # Here and not in the `finally` that cleans up: a second one could come just before it.
        self.ignore()
        raise KeyboardInterrupt

    def ignore(self) -> None:
        """From here on nothing interrupts."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


# -- the play


class Show(Protocol):
    """Where a person watches."""

    def tell(self, text: str) -> None:
        """Something happened."""

    def update(self, done: int, total: int, rate: float, workers: int, restarts: int) -> None:
        """How far it is."""


def play(
    folder: str, files: Mapping[str, str], workers: int, show: Show, interrupts: Interrupts
) -> Facts:
    """Start a family in this folder, give it the jobs, hurt it, wait for the end, stop it."""
    path = os.path.join(folder, "config.toml")
    journal = Journal(os.path.join(folder, "journal"))
    with open(journal.path, "xb"), open(path, "x", encoding="utf-8") as file:
        file.write(CONFIG.format(workers=workers, stop=STOP_S))
    # Not the variables of somebody's own family: the jobs of the demo belong in the demo's file.
    config = Config.load(path, environ={})
    supervisor = Supervisor(config)
    show.tell(f"starting a family of {workers} workers in {folder}")
    with Client(config.database.url, defaults=config.defaults) as client:
        client.migrate()
        try:
            supervisor.start()
            supervisor.wait_ready()
            watch = _Watch(client, supervisor, journal, show, workers)
            watch.enqueue(_calls(files, journal.path))
            watch.until_done()
        except JobsError:
            _tell_log(config.log.file)  # the folder goes, and with it what the family said
            raise
        finally:
            interrupts.ignore()
            code = _stop(supervisor)
        return watch.facts(code)


def _stop(supervisor: Supervisor) -> int:
    """Until nobody of the family writes to the folder any more; its exit code."""
    if supervisor.pid is not None:
        return supervisor.stop(GONE_S)
    # Its parent is dead. The children notice, finish their jobs and leave: the folder waits.
    status = StateDir(supervisor.config.family.state_dir).status() or {}
    children = [*status.get("workers", ()), status.get("caretaker") or {}]
    left = []
    for pid in filter(None, (child.get("pid") for child in children)):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    psutil.wait_procs(left, timeout=GONE_S)
    return 1


def _tell_log(path: str) -> None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=20):
            say(line.rstrip())


Calls = list[tuple[Call, str]]


def _calls(files: Mapping[str, str], journal: str) -> Calls:
    """All jobs in their order, each with what to call it: the trouble spread among the work."""
    calls: Calls = [
        (tasks.analyze.call(path, journal=journal), name) for path, name in files.items()
    ]
    pretended: Calls = [
        (task.call(f"{what}-{number}", journal=journal), task.name.partition(":")[2])
        for number in range(SIMULATED // 4)
        for task, what in (
            (tasks.send_email, "reader"),
            (tasks.resize_image, "photo"),
            (tasks.summarize_text, "letter"),
            (tasks.webhook_delivery, "order"),
        )
    ]
    every = 0.9 * len(calls) / len(pretended)  # the last of them still has time for its retries
    for number, pair in enumerate(pretended):
        calls.insert(int(number * every) + number, pair)
    calls.insert(len(calls) // 5, (tasks.segfault.call(journal=journal), "segfault"))
    calls.insert(len(calls) * 2 // 5, (tasks.hang.call(journal=journal), "hang"))
    return calls


class _Watch:
    """One pair of eyes on the database, the status and the journal until all is done."""

    def __init__(
        self, client: Client, supervisor: Supervisor, journal: Journal, show: Show, workers: int
    ) -> None:
        self._client = client
        self._supervisor = supervisor
        self._state = StateDir(supervisor.config.family.state_dir)
        self._journal = journal
        self._show = show
        self._workers = workers
        self._names: dict[int, str] = {}
        self._killed_ns: dict[int, int] = {}
        self._status: Mapping[str, Any] = {}
        self._deaths_told = 0
        self._began = self._ended = 0
        self._pace: deque[tuple[int, int]] = deque()

    def enqueue(self, calls: Calls) -> None:
        """One transaction for all."""
        self._began = SYSTEM.monotonic_ns()
        ids = self._client.enqueue_many([call for call, _ in calls])
        self._names = dict(zip(ids, (name for _, name in calls), strict=True))
        took_ms = (SYSTEM.monotonic_ns() - self._began) / 1e6
        self._show.tell(f"enqueued {len(ids):,} jobs in {took_ms:.0f} ms")

    def until_done(self) -> None:
        """Until every job is finished, or nothing moves any more."""
        total = len(self._names)
        moved, moved_at = (-1, -1), SYSTEM.monotonic_ns()
        while True:
            self._journal.read()
            done = self._finished()
            now = SYSTEM.monotonic_ns()
            self._update(now, done, total)
            if done >= total:
                break
            self._hurt(done / total)
            if (done, len(self._journal.runs)) != moved:
                moved, moved_at = (done, len(self._journal.runs)), now
            elif now - moved_at > STALLED_S * 1e9:
                self._show.tell(f"nothing has moved for {STALLED_S:g} s: giving up")
                break
            SYSTEM.sleep(LOOK_S)
        self._ended = SYSTEM.monotonic_ns()
        self._await_status()

    def _finished(self) -> int:
        counts = self._client.counts().values()
        return sum(queue.get(state, 0) for queue in counts for state in FINISHED)

    def _update(self, now: int, done: int, total: int) -> None:
        self._pace.append((now, done))
        while now - self._pace[0][0] > RATE_OVER_NS:
            self._pace.popleft()
        since, had = self._pace[0]
        rate = (done - had) * 1e9 / (now - since) if now > since else 0.0
        self._look_at_family()
        self._show.update(done, total, rate, _ready(self._status), self._status.get("restarts", 0))

    def _look_at_family(self) -> None:
        """What it says of itself, and a line for each new death."""
        self._status = self._state.status() or {}
        deaths = self._status.get("deaths", [])
        for death in deaths[self._deaths_told :]:
            name = self._names.get(death["job"], "no job")
            self._show.tell(
                f"worker {death['slot']} died in {name}: {cause(death, self._killed_ns)}; "
                f"settled after {death['settled_after_ms']} ms"
            )
        self._deaths_told = len(deaths)

    def _hurt(self, share: float) -> None:
        """Kill one busy worker when its time has come."""
        family = self._supervisor.pid
        if family is None:
            raise JobsError(
                "the family has ended before its jobs; above are the last lines of its log"
            )
        if self._killed_ns or share < KILL_AFTER:
            return
        spared = {tasks.segfault.name, tasks.hang.name}
        for run in self._journal.open_runs():
            real = run.task == tasks.analyze.name
            if run.task not in spared and (real or share >= KILL_ANY_AFTER):
                self._kill_worker_of(run, family)
            if self._killed_ns:
                return

    def _kill_worker_of(self, run: Run, family: int) -> None:
        """SIGKILL to the worker of a run that is certain to be in the middle of it.

        It is stopped first: what the journal says of a stopped process stays true until the kill.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(run.pid)
            if worker.ppid() != family:
                return
            worker.suspend()
            try:
                if self._is_stopped(worker) and self._is_open(run):
                    self._killed_ns[run.pid] = SYSTEM.monotonic_ns()
                    worker.kill()
            finally:
                worker.resume()

    def _is_stopped(self, worker: psutil.Process) -> bool:
        """A stop is a signal too: it arrives a moment after it was sent."""
        for _ in range(100):
            if worker.status() == psutil.STATUS_STOPPED:
                return True
            SYSTEM.sleep(0.001)
        return False

    def _is_open(self, run: Run) -> bool:
        self._journal.read()
        return run in self._journal.runs[run.job]

    def _await_status(self) -> None:
        """The last death is in the database a moment before it is in the status."""
        self._journal.read()
        died = {(run.pid, run.job) for run in self._journal.open_runs()}
        ends = SYSTEM.monotonic_ns() + int(STATUS_S * 1e9)
        while SYSTEM.monotonic_ns() < ends:
            self._look_at_family()
            told = {(death["pid"], death["job"]) for death in self._status.get("deaths", [])}
            settled = died <= told and self._status.get("restarts") == len(told)
            if settled and _ready(self._status) == self._workers:
                return
            SYSTEM.sleep(LOOK_S)

    def facts(self, exit_code: int) -> Facts:
        """All there is to know, once the family has left."""
        status = self._status
        self._journal.read()
        return Facts(
            workers=self._workers,
            seconds=(self._ended - self._began) / 1e9,
            names=self._names,
            jobs={job.id: job for job in self._all_jobs()},
            runs=self._journal.runs,
            deaths=status.get("deaths", []),
            restarts=status.get("restarts", 0),
            ready=_ready(status),
            killed_ns=self._killed_ns,
            exit_code=exit_code,
        )

    def _all_jobs(self) -> Iterator[Job]:
        before = None
        while page := self._client.list(limit=1000, before=before):
            yield from page
            before = page[-1].id


def _ready(status: Mapping[str, Any]) -> int:
    """Workers that are there and have their tasks."""
    states = [worker["state"] for worker in status.get("workers", [])]
    return sum(state in {"idle", "turn", "busy"} for state in states)


class _Lines:
    """Where there is no terminal: a plain line a second, and one for each event."""

    def __init__(self) -> None:
        self._next_ns = 0

    def tell(self, text: str) -> None:
        say(text)

    def update(self, done: int, total: int, rate: float, workers: int, restarts: int) -> None:
        now = SYSTEM.monotonic_ns()
        if now >= self._next_ns:
            self._next_ns = now + LINE_EVERY_NS
            say(f"{done:,} of {total:,} jobs{_beside(rate, workers, restarts)}")


class _Bar:
    """At a terminal: one bar that moves, and the events above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, beside="")

    def tell(self, text: str) -> None:
        self._progress.console.print(plain(text), markup=False, soft_wrap=True)

    def update(self, done: int, total: int, rate: float, workers: int, restarts: int) -> None:
        text = f"{done:,}/{total:,} jobs{_beside(rate, workers, restarts)}"
        self._progress.update(self._task, completed=done, total=total, beside=text)
        self._progress.refresh()


def _beside(rate: float, workers: int, restarts: int) -> str:
    return f"  {rate:,.0f}/s  {workers} workers  {restarts} restarts"


@contextlib.contextmanager
def _show() -> Iterator[Show]:
    """On stderr, since the report has stdout; no control characters but at a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield _Lines()
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

    columns = (
        SpinnerColumn(),
        BarColumn(complete_style="cyan"),
        TextColumn("{task.fields[beside]}"),
    )
    console = Console(stderr=True, highlight=False)
    # Drawn by our own loop: it looks often enough, and no thread is left to draw over the end.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        yield _Bar(progress)


def conclude(report: Report, *, as_json: bool, folder: str | None) -> None:
    """Print it, and where to look around if the folder was kept; exit code 1 for a broken promise."""
    if as_json:
        print_json({**report.as_json(), "folder": folder})
    else:
        _print_report(report)
        if folder is not None:
            _print_ways_in(folder)
    if report.broken:
        click.get_current_context().exit(1)


def _print_report(report: Report) -> None:
    """The sum first, then what died, then what was found."""
    rate = report.jobs / report.seconds if report.seconds else 0.0
    if sys.stdout.isatty():
        click.echo()  # between the events and the report
    _print(
        f"{report.jobs:,} jobs in {report.seconds:.1f} s on {report.workers} workers: "
        f"{rate:,.0f} a second",
        "bold",
    )
    click.echo()
    for name, number, text in _sums(report):
        click.echo(f"{name:<10}{number:>7,}  {text}".rstrip())
    _print_part(
        ["worker", "died of", "in job", "ran again after"],
        [[death.worker, death.cause, _in_job(death), _again(death)] for death in report.deaths],
    )
    _print_part(
        ["the biggest modules", "lines", "functions", "classes", "deepest"],
        [[m.name, m.lines, m.functions, m.classes, m.deepest] for m in report.biggest],
    )
    if not sys.stdout.isatty():
        click.echo()
    for text in report.broken:
        _print(f"broken: {text}", "bold red")
    if not report.broken:
        _print("every promise was held", "bold green")


def _print_part(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with a blank line above it; at a terminal it has one of its own, and one below."""
    if not sys.stdout.isatty():
        click.echo()
    print_table(columns, rows)


def _sums(report: Report) -> list[tuple[str, int, str]]:
    unparsed = f"{report.unparsed} are files that do not parse: a result, not a failure"
    raised = f"{report.retries} of them after one that raised"
    return [
        ("done", report.done, unparsed if report.unparsed else ""),
        ("failed", report.failed, _named(report.failed_jobs)),
        ("lost", report.lost, ""),
        ("run twice", report.run_twice, _named(report.run_twice_jobs)),
        ("attempts", report.attempts, raised),
        ("restarts", report.restarts, ""),
    ]


def _named(names: Sequence[str]) -> str:
    few = ", ".join(names[:5])
    return f"{few} and {len(names) - 5} more" if len(names) > 5 else few


def _in_job(death: Death) -> str | None:
    return None if death.job is None else f"{death.job} {death.name}"


def _again(death: Death) -> str:
    return "no attempt left" if death.again_ms is None else f"{death.again_ms:.0f} ms"


def _print(text: str, style: str) -> None:
    """A line on stdout, in colour at a terminal; NO_COLOR is rich's to obey."""
    if not sys.stdout.isatty():
        click.echo(plain(text))
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    Console(highlight=False).print(plain(text), style=style, markup=False, soft_wrap=True)


def _print_ways_in(folder: str) -> None:
    config = shlex.quote(os.path.join(folder, "config.toml"))
    database = shlex.quote(os.path.join(folder, "jobs.db"))
    say(f"all of it is in {folder}; to look around:")
    say(f"  jobvisor list -c {config} --state failed")
    say(f"  sqlite3 -box {database} {shlex.quote(ATTEMPTS_SQL)}")
