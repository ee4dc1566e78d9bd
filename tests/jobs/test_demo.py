"""The tasks of the demo, run here one by one; the two that kill their worker have tests with one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor import Client, Job
from jobvisor.jobs import demo
from jobvisor.jobs.task import Call
from tests.waiting import eventually

SIMULATED = [demo.send_email, demo.resize_image, demo.summarize_text, demo.webhook_delivery]
MANY_JOBS = 500


@pytest.fixture
def client() -> Iterator[Client]:
    with Client("memory://") as client:
        yield client


@pytest.fixture
def analyze(client: Client, tmp_path: Path) -> Callable[[str | bytes], Job]:
    def run(source: str | bytes) -> Job:
        path = tmp_path / "module.py"
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return _run(client, demo.analyze.call(str(path)))

    return run


def _run(client: Client, call: Call) -> Job:
    """To the end, all retries included."""
    number = client.enqueue(call).id

    def finished() -> Job | None:
        client.run_one()
        job = client.get(number)
        return job if job.finished else None

    return eventually(finished, what=f"job {number} is finished")  # type: ignore[return-value] # true


def test_the_first_tasks_to_try_do_what_they_say(client: Client) -> None:
    assert _run(client, demo.hello.call("Ada")).result == "hello, Ada"
    assert _run(client, demo.hello.call()).result == "hello, world"
    assert _run(client, demo.add.call(1, 2.5)).result == 3.5


SOURCE = """
class Shop:
    def open(self):
        for door in doors:
            if door.locked:
                def unlock(): ...

    async def close(self): ...

class Till: ...
"""


def test_analyze_counts_what_a_file_holds(analyze: Callable[[str], Job]) -> None:
    result = analyze(SOURCE).result
    assert result == {"lines": 10, "functions": 3, "classes": 2, "deepest": 5}


@pytest.mark.parametrize(
    ("source", "deepest"),
    [
        ("", 0),
        ("x = [lambda: 1 for _ in y]\n", 0),
        ("if a: pass\nelif b: pass\nelif c: pass\nelse: pass\n", 1),
        ("if a:\n  pass\nelse:\n  if b:\n    pass\n", 2),
        ("while a:\n  try:\n    pass\n  except E:\n    with b: pass\n", 3),
        ("match a:\n  case 1:\n    if b: pass\n", 2),
    ],
)
def test_only_blocks_within_blocks_are_nesting(
    analyze: Callable[[str], Job], source: str, deepest: int
) -> None:
    assert analyze(source).result["deepest"] == deepest


@pytest.mark.parametrize(
    "source",
    [
        b"def broken(:\n",
        b"x = '\x00'\n",
        b"# coding: nobody-knows\n",
        b"\xff\xfe\n",
        b"x = '\\ud800' + \xed\xa0\x80\n",
        b"(" * 1000,
        b"x = " + b"-" * 100_000 + b"1\n",
    ],
)
def test_a_file_that_does_not_parse_is_a_result(
    analyze: Callable[[bytes], Job], source: bytes
) -> None:
    job = analyze(source)
    assert job.state == "succeeded"
    assert set(job.result) == {"lines", "error"}
    assert 0 < len(job.result["error"]) <= 200


def test_a_warning_about_somebodys_file_is_not_ours(analyze: Callable[[str], Job]) -> None:
    # Here a warning is an error (pyproject.toml).
    assert "error" not in analyze("x = '\\d'\n").result


def test_a_file_that_is_not_there_is_a_failure(client: Client, tmp_path: Path) -> None:
    job = _run(client, demo.analyze.call(str(tmp_path / "gone.py")))
    assert (job.state, job.attempt) == ("failed", 4)
    assert "FileNotFoundError" in str(job.error)


@pytest.mark.parametrize("task", SIMULATED)
def test_simulated_work_fails_at_first_and_succeeds_on_a_retry(client: Client, task: Any) -> None:
    quick = task.using(retry="0s")
    job = _run(client, quick.call("it"))
    assert job.state == "succeeded"
    assert job.attempt >= 2
    assert {attempt.error_type for attempt in client.attempts(job.id)} == {"ConnectionError"}


@pytest.mark.parametrize("task", SIMULATED)
def test_simulated_work_fails_at_the_attempts_that_were_drawn(client: Client, task: Any) -> None:
    steps = demo.PLANS[task.name.partition(":")[2]]
    job = _run(client, task.using(retry="0s").call("it"))
    drawn = [demo.failing_step(steps, job.id, n) is not None for n in range(1, job.attempt + 1)]
    assert drawn == [True] * (job.attempt - 1) + [False]


@given(st.integers(1, 2**62), st.sampled_from(sorted(demo.PLANS)))
def test_every_first_attempt_fails(job: int, plan: str) -> None:
    assert demo.failing_step(demo.PLANS[plan], job, 1) is not None


@pytest.mark.parametrize("plan", demo.PLANS)
def test_no_simulated_job_uses_up_its_attempts(plan: str) -> None:
    steps = demo.PLANS[plan]
    attempts = range(2, 11)
    assert demo.send_email.options.retries == 9
    for job in range(1, MANY_JOBS):
        assert None in {demo.failing_step(steps, job, attempt) for attempt in attempts}


def test_some_retries_fail_too() -> None:
    steps = demo.PLANS["send_email"]
    seconds = {demo.failing_step(steps, job, 2) is None for job in range(1, MANY_JOBS)}
    assert seconds == {True, False}


def test_a_run_notes_its_beginning_and_how_it_ended(client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    number = _run(client, demo.send_email.using(retry="0s").call("a", journal=str(journal))).id
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert [line[0] for line in lines[:3]] == ["start", "raised", "start"]
    assert lines[-1][0] == "done"
    assert {tuple(line[1:4:2]) for line in lines} == {(str(number), str(os.getpid()))}
    moments = [int(line[4]) for line in lines]
    assert moments == sorted(moments)
    assert {line[5] for line in lines} == {"jobvisor.jobs.demo:send_email"}


def test_without_a_journal_nothing_is_noted(
    analyze: Callable[[str], Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    analyze("x = 1")
    assert [path.name for path in tmp_path.iterdir()] == ["module.py"]


CRASH = """
from jobvisor import Client
from jobvisor.jobs import demo
with Client("memory://") as client:
    client.enqueue(demo.segfault)
    client.run_one()
"""


def test_a_segfault_leaves_no_core_file(tmp_path: Path) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),  # noqa: PLW1509 - the limit is of that process
    )
    _pid, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []
