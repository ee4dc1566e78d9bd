"""The reckoning of a demo: it holds for a sound world, and each way to be unsound is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs import demo as tasks
from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.job import Job, State
from jobvisor.supervisor.cli.reckoning import Facts, Journal, Report, Run, judge

ANALYZED, MAILED, CRASHED, HUNG, KILLED = range(1, 6)
SECOND = 1_000_000_000
NOW = to_datetime(0)


def job(number: int, task: str, attempt: int, state: State = State.SUCCEEDED, **more: Any) -> Job:
    values: dict[str, Any] = dict.fromkeys(Job.__slots__)
    values |= {
        "id": number,
        "task": f"jobvisor.jobs.demo:{task}",
        "state": state,
        "attempt": attempt,
    }
    return Job(**values | {"created": True} | more)


def run(  # noqa: PLR0917 - a line of a small table
    number: int, attempt: int, pid: int, at: float, word: str = "", task: str = ""
) -> Run:
    began = int(at * SECOND)
    ended = began + SECOND // 100 if word else 0
    return Run(number, attempt, pid, began, f"jobvisor.jobs.demo:{task}", word, ended)


def death(pid: int, number: int, signal: str, outcome: str = "crash") -> dict[str, Any]:
    return {
        "pid": pid, "job": number, "signal": signal, "outcome": outcome, "slot": pid - 10,
        "exit_code": None,
    }  # fmt: skip


def module(lines: int) -> dict[str, int]:
    return {"lines": lines, "functions": 2, "classes": 1, "deepest": 3}


def sound() -> Facts:
    """Five jobs: one quiet, one that retries, one for each planned way to die."""
    return Facts(
        workers=2,
        seconds=2.0,
        names={ANALYZED: "ast.py", MAILED: "mail", CRASHED: "crash", HUNG: "hang", KILLED: "os.py"},
        jobs={
            ANALYZED: job(ANALYZED, "analyze", 1, result=module(100)),
            MAILED: job(MAILED, "send_email", 2),
            CRASHED: job(CRASHED, "segfault", 2, State.FAILED),
            HUNG: job(HUNG, "hang", 2),
            KILLED: job(KILLED, "analyze", 2, result=module(200)),
        },
        runs={
            ANALYZED: [run(ANALYZED, 1, 11, 1.0, "done", "analyze")],
            MAILED: [
                run(MAILED, 1, 11, 1.1, "raised", "send_email"),
                run(MAILED, 2, 12, 1.3, "done", "send_email"),
            ],
            CRASHED: [run(CRASHED, 1, 11, 2.0), run(CRASHED, 2, 12, 2.02)],
            HUNG: [run(HUNG, 1, 13, 2.1), run(HUNG, 2, 14, 3.13, "done")],
            KILLED: [run(KILLED, 1, 14, 4.0), run(KILLED, 2, 15, 4.06, "done")],
        },
        deaths=[
            death(11, CRASHED, "SIGSEGV"),
            death(12, CRASHED, "SIGSEGV"),
            death(13, HUNG, "SIGKILL", "timeout"),
            death(14, KILLED, "SIGKILL"),
        ],
        restarts=4,
        ready=2,
        killed_ns={14: int(4.01 * SECOND)},
        exit_code=0,
    )


@pytest.fixture
def facts() -> Facts:
    return sound()


@pytest.fixture(autouse=True)
def _drawn() -> None:
    """What the sound world relies on."""
    steps = tasks.PLANS["send_email"]
    assert tasks.failing_step(steps, MAILED, 1) is not None
    assert tasks.failing_step(steps, MAILED, 2) is None


def test_a_sound_world_breaks_no_promise(facts: Facts) -> None:
    report = judge(facts)
    assert report.broken == ()
    assert (report.jobs, report.done, report.failed, report.lost) == (5, 4, 1, 0)
    assert report.failed_jobs == ("crash",)
    assert report.run_twice_jobs == ("crash", "hang", "os.py")
    assert (report.attempts, report.retries, report.restarts) == (9, 1, 4)
    assert [module.name for module in report.biggest] == ["os.py", "ast.py"]


def test_the_time_to_run_again_counts_from_the_death(facts: Facts) -> None:
    deaths = judge(facts).deaths
    assert [death.again_ms for death in deaths] == [20.0, None, 30.0, 50.0]
    assert [death.cause for death in deaths] == [
        "SIGSEGV",
        "SIGSEGV",
        "its timeout of 1 s",
        "SIGKILL, by us",
    ]


Change = Callable[[Facts], Facts]


def with_job(number: int, **values: Any) -> Change:
    return lambda facts: replace(
        facts, jobs={**facts.jobs, number: replace(facts.jobs[number], **values)}
    )


def with_runs(number: int, *runs: Run) -> Change:
    return lambda facts: replace(facts, runs={**facts.runs, number: list(runs)})


def without_job(facts: Facts) -> Facts:
    return replace(facts, jobs={n: j for n, j in facts.jobs.items() if n != ANALYZED})


def with_death(facts: Facts) -> Facts:
    return replace(facts, deaths=[*facts.deaths, death(15, ANALYZED, "SIGABRT")], restarts=5)


def without_kill(facts: Facts) -> Facts:
    return replace(facts, deaths=facts.deaths[:3], restarts=3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_job, "job 1 (ast.py) is lost"),
        (with_job(ANALYZED, state=State.PENDING), "job 1 (ast.py) is lost"),
        (with_runs(ANALYZED, run(1, 1, 11, 1.0)), "job 1 (ast.py) is lost"),
        (
            with_runs(ANALYZED, run(1, 1, 11, 1, "done"), run(1, 2, 12, 1.5, "done")),
            "job 1 (ast.py) ran again, and its worker had not died",
        ),
        (
            with_runs(MAILED, run(2, 1, 11, 1, "raised"), run(2, 2, 12, 1.001, "done")),
            "job 2 (mail) ran twice at the same time",
        ),
        (
            with_runs(KILLED, run(5, 1, 14, 4.0), run(5, 2, 15, 4.001, "done")),
            "job 5 (os.py) ran twice at the same time",
        ),
        (
            with_job(ANALYZED, attempt=2),
            "job 1 (ast.py) began 1 times and was charged 2 attempts",
        ),
        (
            with_runs(
                MAILED,
                run(2, 1, 11, 1, "done", "send_email"),
                run(2, 2, 12, 1.5, "done", "send_email"),
            ),
            "job 2 (mail) ended its attempt 1 otherwise than drawn",
        ),
        (
            with_job(ANALYZED, state=State.FAILED, error="oh"),
            "job 1 (ast.py) is failed: oh",
        ),
        (with_job(CRASHED, state=State.SUCCEEDED), "job 3 (crash) is lost"),
        (with_runs(77, run(77, 1, 11, 1.0)), "job 77 was never enqueued"),
        (lambda facts: replace(facts, ready=1), "1 of 2 workers were there at the end"),
        (lambda facts: replace(facts, exit_code=75), "the family left with exit code 75"),
        (with_death, "worker 5 died of SIGABRT, which was not planned"),
        (without_kill, "killed: 1 deaths were planned, 0 happened"),
        (lambda facts: replace(facts, restarts=9), "9 restarts for 4 deaths"),
    ],
)
def test_what_is_not_so_is_named(facts: Facts, change: Change, sentence: str) -> None:
    assert sentence in judge(change(facts)).broken


def test_the_biggest_modules_are_ten_at_most_and_one_that_does_not_parse_counts(
    facts: Facts,
) -> None:
    many = {n: job(n, "analyze", 1, result=module(n)) for n in range(10, 30)}
    many[30] = job(30, "analyze", 1, result={"lines": 9999, "error": "SyntaxError: no"})
    report = judge(replace(facts, jobs=many, names={n: f"m{n}.py" for n in many}))
    assert [module.name for module in report.biggest][:2] == ["m30.py", "m29.py"]
    assert len(report.biggest) == 10
    assert report.unparsed == 1


def test_a_report_is_json_of_its_fields(facts: Facts) -> None:
    told = judge(facts).as_json()
    assert set(Report.__slots__) <= set(told)
    assert told["jobs_per_second"] == 2.5
    assert told["deaths"][0]["again_ms"] == 20.0


def test_a_journal_is_read_as_it_grows_and_only_in_whole_lines(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    with open(journal.path, "w") as file:
        file.write(
            "start 7 1 11 100 jobvisor.jobs.demo:add\nstart 8 1 12 105 jobvisor.jobs.demo:add\ndone 7 1 11 1"
        )
        file.flush()
        journal.read()
        assert [run.job for run in journal.open_runs()] == [8, 7]
        file.write("10 jobvisor.jobs.demo:add\n")
        file.flush()
        journal.read()
    assert journal.runs[7] == [Run(7, 1, 11, 100, "jobvisor.jobs.demo:add", "done", 110)]
    assert [run.job for run in journal.open_runs()] == [8]
