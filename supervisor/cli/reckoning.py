"""What a demo comes to: the database, the journal and the status held against each other.

The journal is the second witness. Each run itself wrote there that it began and how it ended
(`jobvisor.jobs.demo.noted`), so what the database says of the jobs can be wrong without taking it along.
"""

from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from jobvisor.jobs import demo as tasks
from jobvisor.jobs.job import Job, State

__all__ = ["Death", "Facts", "Journal", "Module", "Report", "Run", "cause", "judge"]

HANG_NS = 1_000_000_000
"""The timeout of the task that hangs."""

SEGFAULTS = 2
"""The attempts of the task that crashes its worker; then it is failed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, as its own lines in the journal tell it."""

    job: int
    attempt: int
    pid: int
    began_ns: int
    task: str
    word: str = ""
    """How it ended: `done`, `raised`, or "" where no line tells an end."""
    ended_ns: int = 0


@dataclass(slots=True)
class Journal:
    """What the runs wrote about themselves, read as it grows."""

    path: str
    runs: dict[int, list[Run]] = field(default_factory=dict)
    """The runs of each job, in the order they began."""
    _offset: int = 0

    def read(self) -> None:
        """Take in what was written since the last time."""
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            self._take(*line.split())

    def _take(self, word: str, *fields: str) -> None:
        job, attempt, pid, moment_ns = map(int, fields[:4])
        runs = self.runs.setdefault(job, [])
        if word == "start":
            runs.append(Run(job, attempt, pid, moment_ns, fields[4]))
            return
        for index, run in enumerate(runs):
            if (run.attempt, run.pid, run.word) == (attempt, pid, ""):
                runs[index] = replace(run, word=word, ended_ns=moment_ns)

    def open_runs(self) -> list[Run]:
        """Those that have not told their end, the youngest first."""
        found = [run for runs in self.runs.values() for run in runs if not run.word]
        return sorted(found, key=lambda run: -run.began_ns)


@dataclass(frozen=True, slots=True)
class Facts:
    """What happened, from every witness."""

    workers: int
    seconds: float
    names: Mapping[int, str]
    """Each enqueued job, by id, and what to call it."""
    jobs: Mapping[int, Job]
    """What the database has at the end."""
    runs: Mapping[int, Sequence[Run]]
    deaths: Sequence[Mapping[str, Any]]
    """As in status.json."""
    restarts: int
    ready: int
    """Workers at the end."""
    killed_ns: Mapping[int, int]
    """The pids that the demo killed, and when."""
    exit_code: int
    """Of the family, when it was stopped."""


def cause(death: Mapping[str, Any], killed: Mapping[int, int]) -> str:
    """What a worker died of, in a few words; `killed` holds the pids that the demo killed."""
    if death["pid"] in killed:
        return f"{death['signal']}, by us"
    if death["outcome"] == "timeout":
        return f"its timeout of {HANG_NS / 1e9:g} s"
    return str(death["signal"] or f"exit code {death['exit_code']}")


@dataclass(frozen=True, slots=True)
class Death:
    """A worker's, and what it cost."""

    worker: int
    cause: str
    job: int | None
    name: str
    again_ms: float | None
    """From the death to the same job running again; None where it had no attempt left."""


@dataclass(frozen=True, slots=True)
class Module:
    """What `analyze` found out about one file."""

    name: str
    lines: int
    functions: int
    classes: int
    deepest: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the facts come to."""

    workers: int
    seconds: float
    jobs: int
    done: int
    failed: int
    failed_jobs: tuple[str, ...]
    lost: int
    run_twice: int
    run_twice_jobs: tuple[str, ...]
    """Those that ran again although the run before had not asked for it by raising."""
    attempts: int
    retries: int
    """Attempts after one that raised, as a simulated job's first one does."""
    restarts: int
    deaths: tuple[Death, ...]
    unparsed: int
    biggest: tuple[Module, ...]
    broken: tuple[str, ...]
    """Each promise that was not held, in a sentence."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {
            "python": platform.python_version(),
            "jobs_per_second": round(self.jobs / self.seconds, 1) if self.seconds else None,
            **dataclasses.asdict(self),
        }


def judge(facts: Facts) -> Report:
    """Hold the database, the journal and the status against each other."""
    runs = [run for _, of_job in sorted(facts.runs.items()) for run in of_job]
    lost = [job for job in facts.names if _is_lost(facts, job)]
    modules = [_module(job, facts) for job in facts.jobs.values() if _has_module(job)]
    twice = [job for job, of_job in sorted(facts.runs.items()) if _ran_twice(of_job)]
    failed = [number for number, job in sorted(facts.jobs.items()) if job.state == State.FAILED]
    biggest = sorted(modules, key=lambda module: (-module.lines, module.name))[:10]
    return Report(
        workers=facts.workers,
        seconds=round(facts.seconds, 2),
        jobs=len(facts.names),
        done=sum(job.state == State.SUCCEEDED for job in facts.jobs.values()),
        failed=len(failed),
        failed_jobs=tuple(facts.names.get(job, "") for job in failed),
        lost=len(lost),
        run_twice=len(twice),
        run_twice_jobs=tuple(facts.names.get(job, "") for job in twice),
        attempts=len(runs),
        retries=sum(
            run.word == "raised" for of_job in facts.runs.values() for run, _ in pairwise(of_job)
        ),
        restarts=facts.restarts,
        deaths=tuple(_death(death, facts) for death in facts.deaths),
        unparsed=sum("error" in (job.result or ()) for job in facts.jobs.values()),
        biggest=tuple(biggest),
        broken=tuple(
            [f"{_called(facts, job)} is lost" for job in lost]
            + [text for job in facts.names for text in _broken_runs(facts, job)]
            + list(_broken_ends(facts))
            + list(_broken_deaths(facts))
        ),
    )


def _called(facts: Facts, job: int) -> str:
    return f"job {job} ({facts.names.get(job, 'unknown')})"


def _is_lost(facts: Facts, number: int) -> bool:
    """Not finished; or called a success, and no run of it came to its end."""
    job = facts.jobs.get(number)
    if job is None or not job.finished:
        return True
    words = [run.word for run in facts.runs.get(number, ())]
    return job.state == State.SUCCEEDED and "done" not in words


def _ran_twice(runs: Sequence[Run]) -> bool:
    return any(earlier.word != "raised" for earlier, _ in pairwise(runs))


def _broken_runs(facts: Facts, number: int) -> Iterator[str]:
    """What is wrong with the runs of one job."""
    runs = facts.runs.get(number, ())
    called = _called(facts, number)
    died = {(death["pid"], death["job"]) for death in facts.deaths}
    for earlier, later in pairwise(runs):
        if earlier.word != "raised" and (earlier.pid, number) not in died:
            yield f"{called} ran again, and its worker had not died"
        if later.began_ns < _over_ns(earlier, facts):
            yield f"{called} ran twice at the same time"
    job = facts.jobs.get(number)
    if job is not None and job.attempt != len(runs):
        yield f"{called} began {len(runs)} times and was charged {job.attempt} attempts"
    for run in runs:
        steps = tasks.PLANS.get(run.task.partition(":")[2])
        if not steps or not run.word:
            continue
        draws = "done" if tasks.failing_step(steps, run.job, run.attempt) is None else "raised"
        if run.word != draws:
            yield f"{called} ended its attempt {run.attempt} otherwise than drawn"


def _over_ns(run: Run, facts: Facts) -> int:
    """When a run was over at the earliest: what told no end was cut off some time after it began."""
    return run.ended_ns or facts.killed_ns.get(run.pid, run.began_ns)


def _broken_ends(facts: Facts) -> Iterator[str]:
    """Jobs that ended otherwise than they should, or were never asked for; the family's end."""
    for number in sorted({*facts.jobs, *facts.runs} - set(facts.names)):
        yield f"job {number} was never enqueued"
    for number, job in sorted(facts.jobs.items()):
        should = State.FAILED if job.task == tasks.segfault.name else State.SUCCEEDED
        if job.finished and job.state != should:
            yield f"{_called(facts, number)} is {job.state}: {job.error}"
    if facts.ready != facts.workers:
        yield f"{facts.ready} of {facts.workers} workers were there at the end"
    if facts.exit_code:
        yield f"the family left with exit code {facts.exit_code}"


def _broken_deaths(facts: Facts) -> Iterator[str]:
    """Every death was planned, and every planned one happened."""
    planned = {"segfault": SEGFAULTS, "hang": 1, "killed": 1}
    seen: Counter[str] = Counter()
    for death in facts.deaths:
        kind = _kind(death, facts)
        if kind is None:
            what = cause(death, facts.killed_ns)
            yield f"worker {death['slot']} died of {what}, which was not planned"
        else:
            seen[kind] += 1
    for kind, times in planned.items():
        if seen[kind] != times:
            yield f"{kind}: {times} deaths were planned, {seen[kind]} happened"
    if facts.restarts != len(facts.deaths):
        yield f"{facts.restarts} restarts for {len(facts.deaths)} deaths"


def _kind(death: Mapping[str, Any], facts: Facts) -> str | None:
    """Which of the planned deaths it was."""
    if death["pid"] in facts.killed_ns:
        return "killed"
    job = facts.jobs.get(death["job"] or 0)
    task = job.task if job else ""
    if task == tasks.segfault.name and death["signal"] in {"SIGSEGV", "SIGBUS"}:
        return "segfault"
    if task == tasks.hang.name and death["outcome"] == "timeout":
        return "hang"
    return None


def _death(death: Mapping[str, Any], facts: Facts) -> Death:
    number = death["job"]
    # A segfault comes at once. The time of the one that hangs counts from a moment before its first
    # line, so its death may be some microseconds earlier than this.
    lasted_ns = HANG_NS if _kind(death, facts) == "hang" else 0
    again = [
        max(0, later.began_ns - _over_ns(earlier, facts) - lasted_ns) / 1e6
        for earlier, later in pairwise(facts.runs.get(number, ()))
        if earlier.pid == death["pid"] and not earlier.word
    ]
    return Death(
        worker=death["slot"],
        cause=cause(death, facts.killed_ns),
        job=number,
        name=facts.names.get(number, ""),
        again_ms=round(again[0], 1) if again else None,
    )


def _has_module(job: Job) -> bool:
    return job.task == tasks.analyze.name and isinstance(job.result, dict)


def _module(job: Job, facts: Facts) -> Module:
    """One that did not parse has lines, and no more is known of it."""
    counts = [job.result.get(name, 0) for name in ("lines", "functions", "classes", "deepest")]
    return Module(facts.names.get(job.id, ""), *counts)
