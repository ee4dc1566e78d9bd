"""The tasks of the demo, run here one by one; the two that kill their worker have tests with one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor import Client, Job
from jobvisor.jobs import demo
from jobvisor.jobs.task import Call
from tests.waiting import eventually


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

    def finished() -> bool:
        client.run_one()
        return client.get(number).finished

    eventually(finished, what=f"job {number} is finished")
    return client.get(number)


def test_the_first_tasks_to_try_do_what_they_say(client: Client) -> None:
    assert _run(client, demo.hello.call("Ada")).result == "hello, Ada"
    assert _run(client, demo.hello.call()).result == "hello, world"


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
    assert result == {"lines": 10, "functions": 3, "classes": 2}


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
    assert (job.result["functions"], job.result["classes"]) == (0, 0)


def test_a_warning_about_somebodys_file_is_not_ours(analyze: Callable[[str], Job]) -> None:
    # Here a warning is an error (pyproject.toml).
    assert analyze("def f(): return '\\d'\n").result["functions"] == 1


def test_a_file_that_is_not_there_is_a_failure(client: Client, tmp_path: Path) -> None:
    job = _run(client, demo.analyze.call(str(tmp_path / "gone.py")))
    assert (job.state, job.attempt) == ("failed", 4)
    assert "FileNotFoundError" in str(job.error)


def test_a_run_notes_its_beginning_and_its_end(client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    (tmp_path / "module.py").write_text("x = 1")
    call = demo.analyze.call(str(tmp_path / "module.py"), journal=str(journal))
    number = _run(client, call).id
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert [line[0] for line in lines] == ["start", "done"]
    assert {tuple(line[1:4]) for line in lines} == {(str(number), "1", str(os.getpid()))}
    assert int(lines[0][4]) <= int(lines[1][4])


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
