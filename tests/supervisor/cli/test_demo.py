"""`jobvisor demo` with a real family: played to its end, interrupted, and robbed of its parent."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from jobvisor.jobs import demo as tasks
from jobvisor.supervisor.cli.demo import Interrupts, conclude, demo, library, play
from jobvisor.supervisor.cli.reckoning import Facts, Report, judge
from jobvisor.supervisor.config import Config
from tests.supervisor.cli.conftest import ROOT, Run
from tests.supervisor.cli.test_reckoning import sound
from tests.waiting import eventually

pytestmark = pytest.mark.system

SOME_FILES = 60
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Listener:
    """A show that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.updates: list[tuple[int, int, float, int, int]] = []

    def tell(self, text: str) -> None:
        self.events.append(text)

    def update(self, done: int, total: int, rate: float, workers: int, restarts: int) -> None:
        self.updates.append((done, total, rate, workers, restarts))


class Played:
    """One small demo, to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.show = Listener()
        self.files = dict(list(library().items())[:SOME_FILES])
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with Interrupts() as interrupts:
            self.facts: Facts = play(str(folder), self.files, 3, self.show, interrupts)
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        self.report: Report = judge(self.facts)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("demo"))


class TestPlayed:
    """Every test here looks at the same play; under xdist it stays in one process."""

    pytestmark = pytest.mark.xdist_group("demo")

    def test_no_promise_is_broken(self, played: Played) -> None:
        assert played.report.broken == ()

    def test_every_job_ends_and_only_the_poison_one_fails(self, played: Played) -> None:
        report = played.report
        assert report.jobs == SOME_FILES + 40 + 2
        assert (report.done, report.failed, report.lost) == (report.jobs - 1, 1, 0)
        assert report.failed_jobs == ("segfault",)

    def test_only_those_whose_worker_died_run_twice(self, played: Played) -> None:
        names = {death.name for death in played.report.deaths}
        assert set(played.report.run_twice_jobs) == names
        assert {"segfault", "hang"} < names
        assert len(names) == 3

    def test_the_deaths_have_their_causes_and_the_jobs_go_on(self, played: Played) -> None:
        causes = [death.cause for death in played.report.deaths]
        assert sorted(causes) == ["SIGKILL, by us", "SIGSEGV", "SIGSEGV", "its timeout of 1 s"]
        assert played.report.restarts == 4
        again = [death.again_ms for death in played.report.deaths]
        assert again.count(None) == 1
        # Far above what it takes: the simulated jobs wait up to 200 ms for their retry.
        assert all(ms < 5000 for ms in again if ms is not None)

    def test_every_simulated_job_was_tried_again(self, played: Played) -> None:
        simulated = [
            job for job in played.facts.jobs.values() if job.task.partition(":")[2] in tasks.PLANS
        ]
        assert len(simulated) == 40
        assert all(job.attempt >= 2 for job in simulated)

    def test_the_modules_are_those_of_the_library(self, played: Played) -> None:
        assert len(played.report.biggest) == 10
        assert {module.name for module in played.report.biggest} <= set(played.files.values())
        assert played.report.biggest[0].lines > 0

    def test_the_show_goes_from_nothing_to_all(self, played: Played) -> None:
        done = [update[0] for update in played.show.updates]
        assert done == sorted(done)
        assert done[-1] == played.report.jobs
        assert sum("SIGSEGV" in event for event in played.show.events) == 2
        assert {update[1] for update in played.show.updates} == {played.report.jobs}

    def test_the_family_has_left(self, played: Played) -> None:
        pids = {run.pid for runs in played.facts.runs.values() for run in runs}
        assert pids
        for pid in pids:
            with suppress(psutil.Error):
                assert "jobvisor.supervisor.embed" not in " ".join(psutil.Process(pid).cmdline())

    def test_what_is_kept_can_be_looked_at(self, played: Played, run: Run) -> None:
        config = str(played.folder / "config.toml")
        assert Config.load(config).workers[0].processes == 3
        listed = run("list", "-c", config, "--state", "failed", "--json")
        assert [job["task"] for job in json.loads(listed.stdout)] == ["jobvisor.jobs.demo:segfault"]


# -- what it says in the end


def test_a_report_names_what_was_not_held_and_the_exit_code_is_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = judge(replace(sound(), exit_code=75))
    with click.Context(demo), pytest.raises(click.exceptions.Exit) as left:
        conclude(report, as_json=False, folder=None)
    assert left.value.exit_code == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "broken: the family left with exit code 75"
    assert "every promise" not in shown.out


def test_a_report_is_plain_text_in_a_pipe_and_says_where_to_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conclude(judge(sound()), as_json=False, folder="/tmp/my demo")
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "5 jobs in 2.0 s on 2 workers: 2 a second"
    assert "lost            0" in lines
    assert "run twice       3  crash, hang, os.py" in lines
    assert "3       its timeout of 1 s  4 hang   30 ms" in lines
    assert "os.py                200    2          1        3" in lines
    assert lines[-1] == "every promise was held"
    assert not CONTROL.search(shown.out)
    assert "jobvisor list -c '/tmp/my demo/config.toml'" in shown.err


# -- as a command


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
def test_the_whole_library_is_done_within_a_minute_and_leaves_nothing_behind(start: Start) -> None:
    show = start("--json", "--workers", "3", **PIPES)
    stdout, stderr = show.process.communicate(timeout=100)
    report = json.loads(stdout)
    assert report["broken"] == []
    assert show.process.returncode == 0
    assert report["jobs"] == len(library()) + 42
    assert (report["lost"], report["failed"], report["run_twice"]) == (0, 1, 3)
    assert report["seconds"] < 60
    assert (report["workers"], report["folder"]) == (3, None)
    assert not CONTROL.search(stderr)
    assert re.search(r"^[0-9,]+ of [0-9,]+ jobs  [0-9,]+/s  ", stderr, re.MULTILINE)
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


def test_a_family_that_is_gone_is_an_error_that_shows_its_log(start: Start) -> None:
    show = start(**PIPES)
    os.kill(show.family(), signal.SIGKILL)
    _stdout, stderr = show.process.communicate(timeout=30)
    assert show.process.returncode == 1
    assert "family demo started: " in stderr
    assert stderr.splitlines()[-1].startswith("jobvisor: the family has ended before its jobs")
    assert show.left_behind() == []


def test_a_demo_that_is_killed_takes_its_family_along(start: Start) -> None:
    show = start(**PIPES)
    show.family()
    show.process.kill()
    show.process.wait(10)
    eventually(
        lambda: all(isinstance(left, Path) for left in show.left_behind()),
        what="every process has left",
    )


def test_at_a_terminal_a_bar_moves_and_ctrl_c_gives_the_cursor_back(start: Start) -> None:
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    show = start(start_new_session=True, preexec_fn=_take_terminal, **streams)
    os.close(slave)
    os.set_blocking(master, False)
    shown = b""

    def has_shown(wanted: bytes) -> bool:
        nonlocal shown
        with suppress(BlockingIOError, OSError):  # EIO: nobody writes there any more
            shown += os.read(master, 65536)
        return wanted in shown

    try:
        eventually(lambda: has_shown(b" jobs  "), what="the bar is there")
        assert b"\x1b[?25l" in shown  # the cursor is hidden
        os.write(master, b"\x03")
        eventually(lambda: has_shown(b"\x1b[?25h"), what="the cursor is back")
        assert show.process.wait(30) == 130
    finally:
        os.close(master)
    assert show.left_behind() == []


def _take_terminal() -> None:
    """Make stdin the controlling terminal, so that what is typed there can interrupt."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


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
