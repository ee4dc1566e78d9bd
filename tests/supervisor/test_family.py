"""The state directory: one holder at a time, signals only to that holder, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobvisor.jobs.errors import ConfigError, FamilyNotRunning, FamilyRunning, JobsError
from jobvisor.jobs.identity import Identity, start_ticks
from jobvisor.supervisor.family import ENDED, LOCK_PATIENCE_S, STOPPING, StateDir

HOLDER = """
import signal, sys
from jobvisor.supervisor.family import StateDir
state = StateDir(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
state.create()
state.lock()
print("held", flush=True)
print(signal.sigwait({signal.SIGTERM, signal.SIGHUP}).name, flush=True)
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(str(tmp_path / "state"))
    made.create()
    return made


@contextmanager
def holding(state: StateDir) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, state.path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_create_makes_everything_for_this_user_alone(state: StateDir) -> None:
    for folder in (state.path, state.ledgers, state.rejected):
        assert os.stat(folder).st_mode & 0o777 == 0o700


def test_create_twice_is_create_once(state: StateDir) -> None:
    state.create()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_others_can_write_is_refused(state: StateDir, mode: int) -> None:
    os.chmod(state.path, mode)
    with pytest.raises(ConfigError, match=r"written by others .*chmod 700"):
        state.create()
    with pytest.raises(ConfigError, match="chmod 700"):
        state.lock()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(state: StateDir) -> None:
    os.chown(state.path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        state.create()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"cannot be made: .*set \[supervisor\] state_dir"):
        StateDir(str(path)).create()
    with pytest.raises(ConfigError, match="not a folder"):
        StateDir(str(path)).check()


def test_the_lock_names_its_holder(state: StateDir) -> None:
    descriptor = state.lock()
    mine = Identity.mine()
    assert Path(state.path, "lock").read_text().split() == [str(mine.pid), str(mine.start_ticks)]
    assert state.holder() == os.getpid()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert state.holder() is None


def test_what_the_holder_says_of_itself_stands_behind_the_line_that_names_it(
    state: StateDir,
) -> None:
    descriptor = state.lock()
    assert not state.is_stopping()
    state.note(descriptor, STOPPING)
    assert state.is_stopping()
    assert state.exit_code() is None
    state.note(descriptor, f"{ENDED} 75")
    assert not state.is_stopping()
    assert state.exit_code() == 75
    assert state.holder() == os.getpid()
    # All that an earlier release reads of it.
    assert len(Path(state.path, "lock").read_bytes()[:64].split()) == 2
    os.close(descriptor)
    os.close(state.lock())
    assert state.exit_code() is None  # of a later family


def test_a_family_waits_while_another_one_settles_the_dead_of_its_folder(state: StateDir) -> None:
    custody = state.custody()
    assert state.holder() is None  # who settles is no family
    with pytest.raises(FamilyNotRunning):
        state.signal(signal.SIGTERM)
    # Longer than who only asks is waited for.
    leaving = threading.Timer(2 * LOCK_PATIENCE_S, os.close, [custody])
    leaving.start()
    os.close(state.lock())
    leaving.join()


def test_two_families_do_not_wait_for_each_other_to_settle_a_third(state: StateDir) -> None:
    custody = state.custody()
    with pytest.raises(FamilyRunning, match="being settled by another family"):
        state.custody()
    os.close(custody)


def test_a_second_family_is_refused_with_the_pid_of_the_first(state: StateDir) -> None:
    with holding(state) as process, pytest.raises(FamilyRunning) as refused:
        state.lock()
    assert refused.value.pid == process.pid
    assert f"(pid {process.pid})" in str(refused.value)


def test_a_killed_holder_leaves_the_lock_free(state: StateDir) -> None:
    with holding(state) as process:
        process.kill()
        process.wait()
        assert state.holder() is None
        os.close(state.lock())


def test_who_only_asks_cannot_keep_a_family_from_starting(state: StateDir) -> None:
    probe = os.open(os.path.join(state.path, "lock"), os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(probe, fcntl.LOCK_SH)
    leaving = threading.Timer(0.1, os.close, [probe])
    leaving.start()
    os.close(state.lock())
    leaving.join()


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "none"))
    assert state.holder() is None
    assert state.status() is None
    assert state.wait_released(0)
    with pytest.raises(FamilyNotRunning, match="jobvisor start"):
        state.signal(signal.SIGTERM)


def test_a_signal_reaches_the_holder(state: StateDir) -> None:
    with holding(state) as process:
        assert state.signal(signal.SIGHUP) == process.pid
        assert process.stdout is not None
        assert process.stdout.readline() == "SIGHUP\n"
        assert state.wait_released(10)


def test_a_process_with_the_pid_of_an_earlier_holder_is_never_signalled(state: StateDir) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        Path(state.path, "lock").write_text(f"{stranger.pid} 1\n")
        with pytest.raises(FamilyNotRunning):
            state.signal(signal.SIGKILL)
        held = os.open(os.path.join(state.path, "lock"), os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        assert state.holder() == 0
        with pytest.raises(JobsError, match="cannot be signalled from here"):
            state.signal(signal.SIGKILL)
        os.close(held)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_does_not_kill_for_the_owner_of_a_planted_lock(state: StateDir) -> None:
    with holding(state) as process:
        os.chown(state.path, 12345, -1)
        with pytest.raises(JobsError, match="nothing was signalled"):
            state.signal(signal.SIGTERM)
        assert process.poll() is None


def test_a_lock_that_is_a_link_is_refused(state: StateDir, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    os.symlink(target, os.path.join(state.path, "lock"))
    with pytest.raises(ConfigError, match="cannot be opened"):
        state.lock()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "\0\0\0", "x y\n", "12 ", "-5 -5\n", "9" * 5000])
def test_a_damaged_lock_file_names_nobody(state: StateDir, text: str) -> None:
    Path(state.path, "lock").write_text(text)
    held = os.open(os.path.join(state.path, "lock"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert state.holder() == 0
    os.close(held)
    os.close(state.lock())


def test_waiting_for_a_release_has_a_limit(state: StateDir) -> None:
    with holding(state):
        assert not state.wait_released(0.05)


def test_status_is_what_was_written(state: StateDir) -> None:
    assert state.status() is None
    Path(state.path, "status.json").write_text(json.dumps({"pid": 7}))
    assert state.status() == {"pid": 7}


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000])
def test_a_damaged_status_is_said(state: StateDir, text: str) -> None:
    Path(state.path, "status.json").write_text(text, encoding="latin-1")
    with pytest.raises(JobsError, match=r"status\.json"):
        state.status()


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_look_into_the_folder_sees_the_family_and_not_the_lock(state: StateDir) -> None:
    for folder in Path(state.path).parents:
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    with holding(state) as process:
        told = {"pid": process.pid, "start_ticks": start_ticks(process.pid), "state": "running"}
        path = Path(state.path, "status.json")
        path.write_text(json.dumps(told))
        path.chmod(0o644)
        with as_nobody(), pytest.raises(ConfigError, match="run this as the user"):
            state.holder()
        Path(state.path).chmod(0o711)
        with as_nobody():
            assert state.holder() == process.pid
            assert state.status() == told
            with pytest.raises(ConfigError):
                state.signal(signal.SIGTERM)
    with as_nobody():
        assert state.holder() is None, "it was killed, and left its status behind"
