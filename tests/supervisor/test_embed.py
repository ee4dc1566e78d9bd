"""The Supervisor of a script, as far as it needs no family; `tests/system` has those that do."""

from __future__ import annotations

import _thread
import sys
import threading
from pathlib import Path

import pytest

from jobvisor import Config, Supervisor
from jobvisor.jobs.errors import EX_CONFIG, FamilyNotRunning, JobsError


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    (tmp_path / "config.toml").write_text('[tasks]\nmodules = ["jobvisor.jobs.demo"]\n')
    return Supervisor(Config.load(str(tmp_path / "config.toml")))


def test_a_family_that_was_not_started_can_neither_be_stopped_nor_joined(
    supervisor: Supervisor,
) -> None:
    assert supervisor.pid is None
    for call in (supervisor.stop, supervisor.join, supervisor.wait_ready):
        with pytest.raises(FamilyNotRunning, match="start\\(\\)"):
            call()


def test_run_is_refused_beside_other_threads_and_names_them(supervisor: Supervisor) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="web-server")
    thread.start()
    try:
        with pytest.raises(JobsError, match="web-server"):
            supervisor.run()
    finally:
        done.set()
        thread.join()


def test_run_is_refused_beside_a_thread_that_python_does_not_know(supervisor: Supervisor) -> None:
    began, done = threading.Event(), threading.Event()

    def live() -> None:
        began.set()
        done.wait()

    _thread.start_new_thread(live, ())  # as a library does
    began.wait()
    try:
        with pytest.raises(JobsError, match=r"\d+ started by a library"):
            supervisor.run()
    finally:
        done.set()


def test_run_is_refused_outside_the_main_thread(supervisor: Supervisor) -> None:
    refused: list[str] = []

    def attempt() -> None:
        try:
            supervisor.run()
        except JobsError as error:
            refused.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "single-threaded" in refused[0]


def test_a_refused_run_leaves_no_trace(supervisor: Supervisor, tmp_path: Path) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    streams = sys.stdout, sys.stderr
    try:
        with pytest.raises(JobsError):
            supervisor.run()
    finally:
        done.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    assert (sys.stdout, sys.stderr) == streams


def test_a_configuration_longer_than_a_pipe_reaches_the_family_whole(tmp_path: Path) -> None:
    queues = [f"{'long-name-of-a-queue-' * 3}{number}" for number in range(5000)]
    supervisor = Supervisor(Config.of({"workers": [{"queues": queues}]}, str(tmp_path)))
    supervisor.start()
    assert supervisor.join() == EX_CONFIG  # what it says of one without modules: it was read


def test_an_interpreter_that_ends_before_it_has_read_its_configuration_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = [f"{'long-name-of-a-queue-' * 3}{number}" for number in range(5000)]
    supervisor = Supervisor(Config.of({"workers": [{"queues": queues}]}, str(tmp_path)))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JobsError, match="/bin/false ended with exit code 1 before"):
        supervisor.start()
