"""Wishes for workers: none hides another, each has its own answer, and none outlives who made it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobvisor.jobs.errors import FamilyNotRunning, JobsError
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.parent.wishes import STALE_MS, Wish, Wishes
from tests.clock import MovableClock
from tests.waiting import eventually

HOLDER = """
import signal, sys
from jobvisor.supervisor.family import StateDir
state = StateDir(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
state.create()
state.lock()
print("held", flush=True)
signal.sigwait({signal.SIGWINCH})
print("heard", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(str(tmp_path / "state"))
    made.create()
    return made


@pytest.fixture
def holder(state: StateDir) -> Iterator[subprocess.Popen[str]]:
    """Holds the lock and does nothing about a wish; the test answers in its place."""
    command = [sys.executable, "-c", HOLDER, state.path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def files(state: StateDir) -> list[str]:
    return sorted({*os.listdir(state.path)} - {"lock", "ledger", "rejected"})


@pytest.mark.usefixtures("holder")
def test_of_many_wishes_at_once_each_is_taken_and_has_its_own_answer(state: StateDir) -> None:
    asked = [("mail", "4"), ("default", "+1"), ("default", "+1")]
    pools = {"mail": 2, "default": 2}
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(Wishes(state).ask, *one, 30.0) for one in asked]
        eventually(lambda: len([name for name in files(state) if ".new" not in name]) == 3)
        for wish in Wishes(state).take():
            pools[wish.pool] = wish.workers(pools[wish.pool])
            wish.answer(workers=pools[wish.pool])
    assert pools == {"mail": 4, "default": 4}
    mail, *default = [one.result()["workers"] for one in answers]
    assert (mail, sorted(default)) == (4, [3, 4])
    assert files(state) == []


@pytest.mark.usefixtures("holder")
def test_a_wish_that_nobody_takes_is_withdrawn(state: StateDir) -> None:
    with pytest.raises(JobsError, match=r"did not answer in 0\.05 s"):
        Wishes(state).ask("mail", "4", 0.05)
    assert files(state) == []


def test_a_family_that_ends_before_it_answers_is_not_waited_for(
    state: StateDir, holder: subprocess.Popen[str]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(Wishes(state).ask, "mail", "4", 600.0)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "heard\n"
        holder.kill()
        holder.wait()
        with pytest.raises(FamilyNotRunning):
            answer.result()
    assert files(state) == []


def test_without_a_family_nothing_is_left_behind(state: StateDir, tmp_path: Path) -> None:
    for path in (state, StateDir(str(tmp_path / "nowhere"))):
        with pytest.raises(FamilyNotRunning):
            Wishes(path).ask("mail", "4", 1.0)
    assert files(state) == []


def lying(state: StateDir, text: str) -> None:
    Path(state.path, "wish-1").write_text(text)


def taken(state: StateDir, clock: MovableClock) -> list[Wish]:
    return list(Wishes(StateDir(state.path, clock)).take())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "[" * 5000),
        *('{"pool": "mail"}', '{"pool": 1, "wanted": "1"}'),
        *('{"pool": "mail", "wanted": "x"}', '{"pool": "mail", "wanted": null}'),
    ],
)
def test_what_is_no_wish_is_removed_and_passed_over(state: StateDir, text: str) -> None:
    lying(state, text)
    assert list(Wishes(state).take()) == []
    assert files(state) == []


def test_a_wish_whose_command_was_killed_long_ago_is_not_granted(state: StateDir) -> None:
    clock = MovableClock()
    for late, count in ((0, 1), (STALE_MS + 1000, 0)):
        lying(state, '{"pool": "mail", "wanted": "4"}')
        os.utime(Path(state.path, "wish-1"), (0, clock.now_ms() // 1000))
        clock.move(late)
        assert len(taken(state, clock)) == count
        assert files(state) == []


def test_a_new_family_grants_no_wish_of_the_one_before(state: StateDir) -> None:
    lying(state, '{"pool": "mail", "wanted": "4"}')
    Wishes(state).clear()
    assert files(state) == []
