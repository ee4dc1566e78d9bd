"""`jobvisor demo` with a real family: played to its end, interrupted, and robbed of its parent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from jobvisor import Client, Job, State
from jobvisor.jobs import demo as tasks
from jobvisor.supervisor.cli.demo import Run as OneRun
from jobvisor.supervisor.cli.demo import _folder, broken, library, play, runs_of
from jobvisor.supervisor.config import Config
from tests.supervisor.cli.conftest import ROOT, Run
from tests.waiting import eventually

pytestmark = pytest.mark.system

SOME_FILES = 60
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Played:
    """One small demo, to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = dict(list(library().items())[:SOME_FILES])
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        self.report = play(str(folder), self.files, 3)
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("demo"))


class TestPlayed:
    """Every test here looks at the same play; under xdist it stays in one process."""

    pytestmark = pytest.mark.xdist_group("demo")

    def test_no_promise_is_broken(self, played: Played) -> None:
        assert played.report["broken"] == []

    def test_every_job_ends_and_only_the_poison_one_fails(self, played: Played) -> None:
        report = played.report
        assert report["jobs"] == SOME_FILES + 2
        assert (report["done"], report["failed"], report["lost"]) == (
            report["jobs"] - 1,
            ["segfault"],
            [],
        )

    def test_only_those_whose_worker_died_run_twice(self, played: Played) -> None:
        names = {death["name"] for death in played.report["deaths"]}
        assert {"segfault", "hang"} <= set(played.report["run_twice"]) <= names

    def test_the_deaths_have_their_causes(self, played: Played) -> None:
        causes = " ".join(death["cause"] for death in played.report["deaths"])
        assert causes.count("SIGSEGV") == 2
        assert causes.count("timeout of 1 s") == 1

    def test_the_modules_are_those_of_the_library(self, played: Played) -> None:
        names = {module["name"] for module in played.report["biggest"]}
        assert len(names) == 5
        assert names <= set(played.files.values())

    def test_the_family_has_left(self, played: Played) -> None:
        runs = runs_of(str(played.folder / "journal"))
        pids = {run.pid for of_job in runs.values() for run in of_job}
        assert pids
        for pid in pids:
            with suppress(psutil.Error):
                assert "jobvisor.supervisor.embed" not in " ".join(psutil.Process(pid).cmdline())

    def test_what_is_kept_can_be_looked_at(self, played: Played, run: Run) -> None:
        config = str(played.folder / "config.toml")
        assert Config.load(config).workers[0].processes.most == 3
        listed = run("list", "-c", config, "--state", "failed", "--json")
        assert [job["task"] for job in json.loads(listed.stdout)] == ["jobvisor.jobs.demo:segfault"]


# -- what it says in the end


def _sound() -> Job:
    with Client("memory://") as client:
        client.enqueue(tasks.hello)
        job = client.run_one()
    assert job is not None
    return job


SOUND = _sound()
DONE = OneRun(1, 11, 100, done=True)
CUT_OFF = OneRun(1, 10, 50)


@pytest.mark.parametrize(
    ("job", "runs", "dead", "code", "sentences"),
    [
        (SOUND, [DONE], set(), 0, []),
        (None, [DONE], set(), 0, ["job 1 (os.py) is lost"]),
        (SOUND, [replace(DONE, done=False)], set(), 0, ["job 1 (os.py) is lost"]),
        (replace(SOUND, attempt=2), [CUT_OFF, DONE], {10}, 0, []),
        (
            replace(SOUND, attempt=2),
            [CUT_OFF, DONE],
            set(),
            0,
            ["job 1 (os.py) ran again, and its worker had not died"],
        ),
        (
            SOUND,
            [CUT_OFF, DONE],
            {10},
            0,
            ["job 1 (os.py) began 2 times and was charged 1 attempts"],
        ),
        (
            replace(SOUND, state=State.FAILED, error="it broke"),
            [DONE],
            set(),
            0,
            ["job 1 (os.py) is failed: it broke"],
        ),
        (SOUND, [DONE], set(), 75, ["the family left with exit code 75"]),
    ],
)
def test_what_is_not_so_is_named(
    job: Job | None, runs: list[OneRun], dead: set[int], code: int, sentences: list[str]
) -> None:
    jobs = {} if job is None else {1: job}
    assert list(broken({1: "os.py"}, jobs, {1: runs}, dead, code)) == sentences


def test_a_job_that_nobody_enqueued_is_named() -> None:
    told = list(broken({}, {1: SOUND}, {2: [DONE]}, set(), 0))
    assert told == ["job 1 was never enqueued", "job 2 was never enqueued"]


# -- as a command


def _hear() -> None:
    """Whoever started the tests behind a shell's `&`, or under nohup, has these ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Demo:
    """The command in a process of its own, with a place for temporary files that can be searched."""

    def __init__(self, folder: Path, *arguments: str, **streams: Any) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobvisor", "demo", *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self.temporary),
                # None of these may lead the demo to somebody's own jobs, or its colours into a pipe.
                "JOBVISOR_DATABASE_URL": "sqlite:////nowhere/jobs.db",
                "JOBVISOR_LOG_LEVEL": "error",
                "FORCE_COLOR": "1",
                "TERM": "xterm",
            },
            preexec_fn=_hear,  # noqa: PLW1509 -- the tests have no threads
            **streams,
        )

    def family(self) -> int:
        """The pid of its family, once that runs jobs."""

        def running() -> int:
            for folder in self.temporary.glob("jobvisor-demo-*"):
                if "start" in (folder / "journal").read_text():
                    return int((folder / ".jobvisor" / "lock").read_text().split()[0])
            return 0

        return eventually(lambda: suppressed(running), what="the family runs jobs")

    def left_behind(self) -> list[Any]:
        """Processes and files that should not be there any more."""
        found: list[Any] = list(self.temporary.iterdir())
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.temporary):
                    found.append(process)
        return found

    def close(self) -> None:
        """Whatever a failed test left."""
        for left in self.left_behind():
            if isinstance(left, psutil.Process):
                with suppress(psutil.Error):
                    left.kill()
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def suppressed(look: Callable[[], int]) -> int:
    """0 while what it looks at is not there yet."""
    with suppress(FileNotFoundError, IndexError):
        return look()
    return 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def begin(*arguments: str, **streams: Any) -> Demo:
        demos.append(Demo(tmp_path, *arguments, **streams))
        return demos[-1]

    yield begin
    for begun in demos:
        begun.close()


Start = Callable[..., Demo]
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.mark.soak  # 19 s of CPU: the play above has the same, with fewer modules
def test_the_whole_library_is_done_and_leaves_nothing_behind(start: Start) -> None:
    show = start("--json", "--workers", "3", **PIPES)
    stdout, stderr = show.process.communicate(timeout=100)
    report = json.loads(stdout)
    assert report["broken"] == []
    assert show.process.returncode == 0
    assert report["jobs"] == len(library()) + 2
    assert (report["lost"], report["failed"], report["workers"]) == ([], ["segfault"], 3)
    assert stderr.count("killed the worker") == 3
    assert not CONTROL.search(stderr)
    assert show.left_behind() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_the_family_and_leaves_nothing_behind(
    start: Start, number: signal.Signals
) -> None:
    show = start(**PIPES)
    show.family()
    show.process.send_signal(number)
    show.process.send_signal(number)  # an impatient second one changes nothing
    stdout, stderr = show.process.communicate(timeout=30)
    assert show.process.returncode == 130
    assert show.left_behind() == []
    assert stdout == ""
    assert "Traceback" not in stderr, stderr


def test_with_pages_it_is_watched_while_it_runs(start: Start) -> None:
    show = start("--web", "--workers", "1", **PIPES)
    assert show.process.stderr is not None
    found = re.search("http://127.0.0.1:[0-9]+", show.process.stderr.readline())
    assert found

    def done() -> int:
        with urlopen(f"{found[0]}/jobs?state=succeeded") as page:
            return int(page.read().count(b'data-state="succeeded"'))

    first = eventually(done, what="a job is done, and a page shows it")
    eventually(lambda: done() > first, what="more of them are shown")
    show.process.send_signal(signal.SIGINT)
    show.process.communicate(timeout=30)
    assert show.process.returncode == 130
    assert show.left_behind() == []


def test_a_family_that_is_gone_is_an_error_that_shows_its_log(start: Start) -> None:
    show = start(**PIPES)
    os.kill(show.family(), signal.SIGKILL)
    _stdout, stderr = show.process.communicate(timeout=30)
    assert show.process.returncode == 1
    assert "family demo started: " in stderr
    assert stderr.splitlines()[-1].startswith("jobvisor: the family has ended before its jobs")
    assert show.left_behind() == []


def test_the_folder_goes_though_somebody_still_writes_there() -> None:
    written: list[str] = []

    def write_once(event: str, arguments: tuple[Any, ...]) -> None:
        """As the last of a family that was killed: between the emptying and the removal."""
        if event == "os.rmdir" and arguments[0] == folder and not written:
            written.append(os.path.join(folder, "late"))
            Path(written[0]).touch()

    with _folder(None) as folder:
        sys.addaudithook(write_once)  # for good; it looks at this folder alone
    assert written
    assert not os.path.exists(folder)


def test_a_demo_that_is_killed_takes_its_family_along(start: Start) -> None:
    show = start(**PIPES)
    show.family()
    show.process.kill()
    show.process.wait(10)
    eventually(
        lambda: all(isinstance(left, Path) for left in show.left_behind()),
        what="every process has left",
    )


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear")
    result = run("demo", "--keep", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == (
        f"jobvisor: --keep {tmp_path} is not empty; name a new or an empty folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_folder_to_keep(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear")
    result = run("demo", "--keep", str(tmp_path / "mine"))
    assert result.exit_code == 2
    assert "cannot be used" in result.stderr
    assert result.stderr.count("\n") == 1
