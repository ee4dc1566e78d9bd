"""The tables of the screen: what each shows of a worker, a queue, a job, a group of failures, a death."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from jobvisor.jobs.found import Group
from jobvisor.jobs.job import Job
from jobvisor.jobs.units import size_text
from jobvisor.supervisor.cli import brief, plain
from jobvisor.supervisor.cli.look import ago, arguments_of, when_told
from jobvisor.supervisor.cli.top.columns import Column

__all__ = [
    "FAILURES",
    "JOBS",
    "TABS",
    "WORKERS",
    "Row",
    "Table",
    "cell",
    "deaths",
    "failures",
    "jobs",
    "key_of",
    "queues",
    "workers",
]

TABS = WORKERS, JOBS, FAILURES = ("workers", "jobs", "failures")
"""The tables that one moves in."""


class Row(NamedTuple):
    """One line of a table, and what it is about."""

    key: Hashable
    cells: list[str]
    style: str = ""
    about: Any = None


class Table(NamedTuple):
    """What stands below a head."""

    columns: tuple[Column, ...]
    rows: list[Row]

    def narrowed(self, text: str) -> Table:
        """The rows that have this text in a cell, in any case."""
        wanted = text.casefold()
        return self._replace(
            rows=[row for row in self.rows if wanted in " ".join(row.cells).casefold()]
        )


_WORKERS = (
    Column("slot", right=True), Column("pool", 5, elastic=True), Column("state"),
    Column("pid", 4, right=True), Column("job", right=True), Column("for", 1, right=True),
    Column("runs", 7, right=True), Column("up", 6, right=True), Column("memory", 3, right=True),
    Column("cpu", 2, right=True),
)  # fmt: skip

_QUEUES = (
    Column("queue", elastic=True), Column("waiting", right=True), Column("oldest", 1, right=True),
    Column("running", 2, right=True), Column("later", 4, right=True), Column("blocked", 6, right=True),
    Column("failed", 3, right=True), Column("served", 5),
)  # fmt: skip

_JOBS = (
    Column("id", right=True), Column("state"), Column("task", elastic=True),
    Column("queue", 4, elastic=True), Column("attempt", 5, right=True), Column("when", 3, right=True),
    Column("args", 7, elastic=True), Column("error", 6, elastic=True),
)  # fmt: skip

_FAILURES = (
    Column("jobs", right=True), Column("task", elastic=True), Column("type", elastic=True),
    Column("last", 1, right=True), Column("first", 3, right=True), Column("job", 2, right=True),
    Column("error", 4, elastic=True),
)  # fmt: skip

_DEATHS = (
    Column("at"), Column("slot", 2, right=True), Column("pid", 3, right=True),
    Column("cause", elastic=True), Column("job", 1, right=True),
)  # fmt: skip

_STYLES = {
    "succeeded": "green", "failed": "bold red", "cancelled": "dim", "running": "cyan", "busy": "cyan",
    "backoff": "bold red",
}  # fmt: skip


def workers(found: Iterable[Mapping[str, Any]], cpu: Mapping[int, int]) -> Table:
    """Who works, at what, and at what cost."""
    return Table(_WORKERS, [_worker(each, cpu) for each in found])


def _worker(worker: Mapping[str, Any], cpu: Mapping[int, int]) -> Row:
    state, why = cell(worker.get("state")), worker.get("leaving")
    others = (worker.get("running") or 0) - 1
    job, rss, pid = worker.get("job"), worker.get("rss"), worker.get("pid")
    percent = cpu.get(pid) if isinstance(pid, int) else None
    cells = [
        cell(worker.get("slot")), cell(worker.get("pool")), f"{state} ({why})" if why else state,
        cell(pid), f"{job} +{others}" if others > 0 else cell(job),
        _seconds(worker.get("job_seconds")), cell(worker.get("started")),
        _seconds(worker.get("up_seconds")), size_text(rss) if isinstance(rss, int) else "-",
        "-" if percent is None else f"{percent}%",
    ]  # fmt: skip
    return Row(worker.get("slot"), cells, _STYLES.get(state, ""), worker)


def queues(found: Mapping[str, Mapping[str, Any]], at_least: Collection[str]) -> Table:
    """What waits, for how long, and whether anybody serves it; the longest waiting first."""
    told = sorted(found.items(), key=lambda each: -(each[1].get("oldest_pending_ms") or -1))
    return Table(_QUEUES, [_queue(name, queue, at_least) for name, queue in told])


def _queue(name: str, queue: Mapping[str, Any], at_least: Collection[str]) -> Row:
    oldest, served = queue.get("oldest_pending_ms"), queue.get("served")
    paused = bool(queue.get("paused"))
    pending, running, scheduled, blocked, failed = (
        f"{queue[state]}{'+' if state in at_least else ''}" if state in queue else "-"
        for state in ("pending", "running", "scheduled", "blocked", "failed")
    )
    cells = [
        cell(name), pending, "-" if oldest is None else brief(oldest), running, scheduled, blocked, failed,
        _served(served, paused=paused),
    ]  # fmt: skip
    waits = oldest is not None and (served is False or paused)
    return Row(name, cells, "yellow" if waits else "", queue)


def _served(served: bool | None, *, paused: bool) -> str:
    if paused:
        return "paused"
    return "-" if served is None else "yes" if served else "by nobody"


def jobs(found: Iterable[Job]) -> Table:
    """Jobs, the newest first."""
    return Table(_JOBS, [_job(job) for job in found])


def _job(job: Job) -> Row:
    cells = [
        str(job.id), job.state.value, cell(job.task), cell(job.queue),
        f"{job.attempt}/{job.attempts_max}", when_told(job), cell(arguments_of(job)), cell(job.error),
    ]  # fmt: skip
    return Row(job.id, cells, _STYLES.get(job.state.value, ""), job)


def failures(found: Iterable[Group]) -> Table:
    """Failed jobs, by task and type of error."""
    return Table(_FAILURES, [_group(group) for group in found])


def _group(group: Group) -> Row:
    cells = [
        str(group.jobs), cell(group.task), cell(group.error_type), ago(group.last), ago(group.first),
        str(group.example), cell(group.message),
    ]  # fmt: skip
    return Row(key_of(group), cells, "", group)


def key_of(group: Group) -> Hashable:
    """What tells one group from another, however many more of it come."""
    return group.task, group.error_type


def deaths(found: Iterable[Mapping[str, Any]]) -> Table:
    """Workers that have died, the last one first."""
    rows = [
        Row(
            number,
            [
                _clock(each.get("at")),
                *(cell(each.get(name)) for name in ("slot", "pid", "cause", "job")),
            ],
        )
        for number, each in enumerate(reversed(list(found)))
    ]
    return Table(_DEATHS, rows)


def _clock(at: Any) -> str:
    """Of a moment the time of the day, as its text has it: `2026-01-31T08:00:00.000Z` is `08:00:00Z`."""
    day, _, time = str(at).partition("T")
    return f"{time[:8]}Z" if time else cell(day)


def _seconds(told: Any) -> str:
    return brief(int(told * 1000)) if isinstance(told, (int, float)) else "-"


def cell(value: Any) -> str:
    """A value on one line, without what could steer a terminal."""
    text = "" if value is None else plain(str(value))
    return " ".join(text.split()) or "-"
