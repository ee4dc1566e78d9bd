"""`jobvisor demo`: a real family at real work, killed on the way, and what came of it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import click

from jobvisor.jobs import demo as tasks
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import InvalidOption, JobsError
from jobvisor.jobs.job import FINISHED, Job, State
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.task import Call, Options
from jobvisor.supervisor.cli import json_option, print_json, print_table, say
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.embed import Supervisor
from jobvisor.supervisor.family import StateDir

__all__ = ["demo"]

KILLS = (0.3, 0.5, 0.7)
"""A worker at its work is killed when so large a share of the jobs is done."""

HURTING = {"segfault": tasks.segfault, "hang": tasks.hang}
LOOK_S = 0.05
TELL_NS = 1_000_000_000
REMOVED_NS = 10_000_000_000
"""So long the removal of the folder is tried: a worker ends its job of a file in a tenth of it."""
STALLED_S = 30.0
"""No job takes a tenth of it: where nothing moves for so long, nothing will."""

SPREAD_S = 60.0
"""With --web the jobs come over so long a time: else all would be over before a page is opened."""


CONFIG = """\
# Written by `jobvisor demo`; `jobvisor init` writes one that shows every key.
[tasks]
modules = ["jobvisor.jobs.demo"]
[supervisor]
name = "demo"
stop_timeout = "2s"
[[workers]]
processes = {workers}
[log]
file = "family.log"
"""

SITE = """\
[web]
enabled = true
port = 0
allow_tasks = ["jobvisor.jobs.demo:*"]
"""
"""What --web adds: pages on a free port, for this machine alone."""


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, PROCESSES_MAX),
    default=max(2, os.cpu_count() or 1),
    help="How many workers.  [default: as many as CPUs, at least 2]",
)
@click.option("--keep", metavar="DIR", help="Work in this new or empty folder, and leave it there.")
@click.option(
    "--web", is_flag=True, help="Show it live on pages; the jobs come over a minute then."
)
@json_option
def demo(workers: int, keep: str | None, web: bool, as_json: bool) -> None:
    """Watch a family of workers at work, and being killed.

    It runs one job for each file of Python's standard library. On the way one job segfaults, one
    hangs in native code, and three times a worker is killed. At the end it reckons up what ran, how
    often, and whether anything was lost.

    With --web it says where to look, and at a terminal goes on until you press Enter.

    Exit code 1 if a promise was broken.
    """
    with _folder(keep) as folder:
        report = play(folder, library(), workers, spread_s=SPREAD_S if web else None)
    _print(report, as_json=as_json)
    if keep is not None:
        config = shlex.quote(os.path.join(os.path.abspath(keep), "config.toml"))
        say(f"to look around: jobvisor list -c {config} --state failed")
    if report["broken"]:
        click.get_current_context().exit(1)


def library() -> dict[str, str]:
    """The source files of the running Python's standard library: a short name for each path."""
    root = sysconfig.get_path("stdlib")
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {"__pycache__", "site-packages", "dist-packages"})
        for path in (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")):
            found[path] = os.path.relpath(path, root)
    if not found:
        raise JobsError(f"there is no source file in {root}; run this with another Python")
    return found


@contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    """The folder to work in; where it is not kept, it goes at the end."""
    if keep is None:
        folder = tempfile.mkdtemp(prefix="jobvisor-demo-")
        try:
            yield folder
        finally:
            _remove(folder)
        return
    folder = os.path.abspath(keep)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise InvalidOption(f"--keep {keep} is not empty; name a new or an empty folder")
    except OSError as error:
        raise InvalidOption(f"--keep {keep} cannot be used: {error.strerror}") from error
    yield folder


def _remove(folder: str) -> None:
    """Away with it, though what is left of a family that was killed may still be writing there."""
    ends = SYSTEM.monotonic_ns() + REMOVED_NS
    while os.path.exists(folder):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if SYSTEM.monotonic_ns() > ends:
                say(f"{folder} cannot be removed ({error.strerror}); remove it by hand")
                return
            SYSTEM.sleep(LOOK_S)


# -- the play


def play(
    folder: str, files: Mapping[str, str], workers: int, *, spread_s: float | None = None
) -> dict[str, Any]:
    """Start a family in this folder, give it the jobs, kill its workers, stop it; the report.

    With `spread_s` it has pages, and the jobs come over so many seconds.
    """
    path, journal = os.path.join(folder, "config.toml"), os.path.join(folder, "journal")
    with open(journal, "xb"), open(path, "x", encoding="utf-8") as file:
        file.write(CONFIG.format(workers=workers) + ("" if spread_s is None else SITE))
    # Not the variables of somebody's own family: the jobs of the demo belong in the demo's file.
    config = Config.load(path, environ={})
    config.check_extras()
    supervisor = Supervisor(config)
    with Client(config.database.url, defaults=config.defaults) as client, _one_interrupt() as hold:
        client.migrate()
        try:
            supervisor.start()
            supervisor.wait_ready()
            watch = Watch(client, supervisor, journal)
            if spread_s is not None:
                say(f"look at it: {_address(supervisor)} shows it live")
            watch.enqueue(files, spread_s or 0.0)
            watch.until_done()
            if spread_s is not None:
                _until_enter()
        except JobsError:
            _tell_log(config.log.file)  # the folder goes, and with it what the family said
            raise
        finally:
            hold()
            code = supervisor.stop() if supervisor.pid is not None else supervisor.join()
        return watch.report(workers, code)


def _address(supervisor: Supervisor) -> str:
    """Where the pages are, once the web role has told it."""
    state = StateDir(supervisor.config.family.state_dir)
    ends = SYSTEM.monotonic_ns() + int(STALLED_S * 1e9)
    while SYSTEM.monotonic_ns() < ends and supervisor.pid is not None:
        site = (state.status() or {}).get("web") or {}
        if site.get("url"):
            return str(site["url"])
        SYSTEM.sleep(LOOK_S)
    raise JobsError("the pages do not come up; above is the log of the family")


def _until_enter() -> None:
    """Somebody at a terminal may look on; a program goes on at once."""
    if sys.stdin.isatty():
        say("all is done; the pages stay until you press Enter")
        with suppress(KeyboardInterrupt):  # who has seen enough still gets the reckoning
            sys.stdin.readline()


@contextmanager
def _one_interrupt() -> Iterator[Any]:
    """Ctrl-C, TERM and a closed terminal end the demo alike; after `hold`, nothing does.

    A stop is over in seconds, because it kills what does not end by itself.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {
        number: signal.signal(number, _interrupt)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN  # `nohup` meant it
    }

    def hold() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield hold
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a second one could come before the clean-up begins
    raise KeyboardInterrupt


def _tell_log(path: str) -> None:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=20):
            say(line.rstrip())


@dataclass(slots=True)
class Run:
    """One run of a job, as its own lines in the journal tell it."""

    attempt: int
    pid: int
    began_ns: int
    done: bool = False


def runs_of(journal: str) -> dict[int, list[Run]]:
    """The runs of each job, in the order they began."""
    runs: dict[int, list[Run]] = {}
    with open(journal, encoding="ascii") as file:
        for line in file:
            word, *numbers = line.split()
            job, attempt, pid, moment = map(int, numbers)
            if word == "start":
                runs.setdefault(job, []).append(Run(attempt, pid, moment))
            for run in runs[job]:
                run.done = run.done or (word, run.attempt, run.pid) == ("done", attempt, pid)
    return runs


class Watch:
    """It enqueues, kills, and looks until all is done."""

    def __init__(self, client: Client, supervisor: Supervisor, journal: str) -> None:
        self._client = client
        self._supervisor = supervisor
        self._state = StateDir(supervisor.config.family.state_dir)
        self._journal = journal
        self._names: dict[int, str] = {}
        self._killed_ns: dict[int, int] = {}
        self._began = 0

    def enqueue(self, files: Mapping[str, str], spread_s: float = 0.0) -> None:
        """One transaction for all, the two that hurt among the others; each due at its part of the time."""
        calls: list[tuple[Call, str]] = [
            (tasks.analyze.call(path, journal=self._journal), name) for path, name in files.items()
        ]
        for number, name in enumerate(HURTING, 1):
            hurting = HURTING[name].call(journal=self._journal)
            calls.insert(len(calls) * number // 5, (hurting, name))
        self._began = SYSTEM.monotonic_ns()
        apart = spread_s / len(calls)
        ids = self._client.enqueue_many(
            _put_off(call, apart * place) if spread_s else call
            for place, (call, _) in enumerate(calls)
        )
        self._names = dict(zip(ids, (name for _, name in calls), strict=True))
        say(f"enqueued {len(ids):,} jobs in {(SYSTEM.monotonic_ns() - self._began) / 1e6:.0f} ms")

    def until_done(self) -> None:
        """Until every job is finished, or nothing moves any more."""
        total, done, moved_at, told_at = len(self._names), 0, self._began, 0
        while done < total:
            if self._supervisor.pid is None:
                raise JobsError("the family has ended before its jobs; above is its log")
            counts = self._client.counts().values()
            before, done = done, sum(queue.get(state, 0) for queue in counts for state in FINISHED)
            now = SYSTEM.monotonic_ns()
            moved_at = now if done > before else moved_at
            if now - moved_at > STALLED_S * 1e9:
                say(f"nothing has moved for {STALLED_S:g} s: giving up")
                return
            if now - told_at > TELL_NS:
                told_at = now
                say(f"{done:,} of {total:,} jobs")
            self._kill(done / total)
            SYSTEM.sleep(LOOK_S)

    def _kill(self, share: float) -> None:
        """Kill one worker at its real work each time when enough is done.

        The journal tells who is at it: the status is up to a second old.
        """
        if len(self._killed_ns) >= sum(share >= part for part in KILLS):
            return
        for number, runs in runs_of(self._journal).items():
            pid, name = runs[-1].pid, self._names[number]
            if not runs[-1].done and name not in HURTING and pid not in self._killed_ns:
                self._killed_ns[pid] = SYSTEM.monotonic_ns()
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                say(f"killed the worker of {name}, pid {pid}")
                return

    def report(self, workers: int, exit_code: int) -> dict[str, Any]:
        """What happened: the database held against what the runs wrote themselves."""
        jobs = {job.id: job for job in self._all_jobs()}
        deaths = (self._state.status() or {}).get("deaths", [])
        runs = runs_of(self._journal)
        seconds = (max(j.finished_at.timestamp() for j in jobs.values() if j.finished_at)
                   - min(j.created_at.timestamp() for j in jobs.values()))  # fmt: skip
        return {
            "workers": workers,
            "seconds": round(seconds, 2),
            "jobs": len(self._names),
            "done": sum(job.state == State.SUCCEEDED for job in jobs.values()),
            "failed": self._named(n for n, job in jobs.items() if job.state == State.FAILED),
            "lost": self._named(n for n in self._names if is_lost(jobs.get(n), runs.get(n, []))),
            "run_twice": self._named(n for n, of_job in runs.items() if len(of_job) > 1),
            "deaths": [self._death(death, runs) for death in deaths],
            "biggest": self._biggest(jobs),
            "broken": list(broken(self._names, jobs, runs, self._dead(deaths), exit_code)),
        }

    def _all_jobs(self) -> Iterator[Job]:
        before = None
        while page := self._client.list(limit=1000, before=before):
            yield from page
            before = page[-1].id

    def _named(self, numbers: Iterator[int]) -> list[str]:
        return sorted(self._names.get(number, f"job {number}") for number in numbers)

    def _dead(self, deaths: list[dict[str, Any]]) -> set[int]:
        return {death["pid"] for death in deaths} | set(self._killed_ns)

    def _death(self, death: Mapping[str, Any], runs: Mapping[int, list[Run]]) -> dict[str, Any]:
        of_job = runs.get(death["job"] or 0, [])
        killed = self._killed_ns.get(death["pid"])
        again = [later for earlier, later in pairwise(of_job) if earlier.pid == death["pid"]]
        return {
            "worker": death["slot"],
            "cause": f"{death['cause']}, by us" if killed else death["cause"],
            "job": death["job"],
            "name": self._names.get(death["job"] or 0),
            "ran_again_after_ms": round((again[0].began_ns - killed) / 1e6, 1)
            if again and killed
            else None,
        }

    def _biggest(self, jobs: Mapping[int, Job]) -> list[dict[str, Any]]:
        found = [
            {"name": self._names.get(number), **job.result}
            for number, job in jobs.items()
            if job.task == tasks.analyze.name and isinstance(job.result, dict)
        ]
        return sorted(found, key=lambda module: -module["lines"])[:5]


def _put_off(call: Call, seconds: float) -> Call:
    """The same call, due after so long."""
    return replace(call, options=call.options.merged(Options.of({"run_in": seconds})))


# -- the reckoning


def is_lost(job: Job | None, runs: list[Run]) -> bool:
    """Not finished; or called a success, and no run of it came to its end."""
    if job is None or not job.finished:
        return True
    return job.state == State.SUCCEEDED and not any(run.done for run in runs)


def broken(
    names: Mapping[int, str],
    jobs: Mapping[int, Job],
    runs: Mapping[int, list[Run]],
    dead: set[int],
    exit_code: int,
) -> Iterator[str]:
    """Each promise that was not held, in a sentence; `dead` holds the pids of the workers that died."""
    for number, name in names.items():
        called = f"job {number} ({name})"
        job, of_job = jobs.get(number), runs.get(number, [])
        if is_lost(job, of_job):
            yield f"{called} is lost"
        for earlier, _later in pairwise(of_job):
            if earlier.pid not in dead:
                yield f"{called} ran again, and its worker had not died"
        if job is not None and job.attempt != len(of_job):
            yield f"{called} began {len(of_job)} times and was charged {job.attempt} attempts"
        if job is not None and (job.state == State.FAILED) != (name == "segfault"):
            yield f"{called} is {job.state}: {job.error}"
    for number in sorted({*jobs, *runs} - set(names)):
        yield f"job {number} was never enqueued"
    if exit_code:
        yield f"the family left with exit code {exit_code}"


def _print(report: Mapping[str, Any], *, as_json: bool) -> None:
    """The sum first, then who died, then what was found."""
    if as_json:
        print_json(report)
        return
    rate = report["jobs"] / report["seconds"] if report["seconds"] else 0
    click.echo(f"{report['jobs']:,} jobs on {report['workers']} workers: {rate:,.0f} a second\n")
    for name in ("done", "failed", "lost", "run_twice"):
        found = report[name]
        names = "" if isinstance(found, int) else ", ".join(found)
        count = found if isinstance(found, int) else len(found)
        click.echo(f"{name.replace('_', ' '):<10}{count:>7,}  {names}".rstrip())
    click.echo()
    print_table(
        ["worker", "died of", "in", "ran again after ms"],
        [[d["worker"], d["cause"], d["name"], d["ran_again_after_ms"]] for d in report["deaths"]],
    )
    click.echo()
    print_table(
        ["the biggest modules", "lines", "functions", "classes"],
        [[m["name"], m["lines"], m["functions"], m["classes"]] for m in report["biggest"]],
    )
    click.echo()
    for sentence in report["broken"]:
        click.echo(f"broken: {sentence}")
    if not report["broken"]:
        click.echo("every promise was held")
