"""Stopping: it always ends, the exit code is true, and no job is lost or charged for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build, House, NewDatabase, alive
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, True),
]

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def gated(n):
    mark("began", n)
    gate("go")
    mark("ended", n)

@task
def stuck():
    mark("stuck")
    while True:
        time.sleep(60)  # task body
"""


def pids_of(house: House, parent: int) -> list[int]:
    return [parent, *house.children(parent)]


def is_taken(pid: int, number: int) -> bool:
    """Whether a signal has been delivered: those of one kind that wait together are one signal."""
    try:
        told = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    pending = [int(told.split(f"\n{name}:")[1].split()[0], 16) for name in ("SigPnd", "ShdPnd")]
    return not any(bits >> (number - 1) & 1 for bits in pending)


def everybody_left(pids: list[int]) -> bool:
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_family_leaves_at_once_with_exit_code_0(build: Build, number: int) -> None:
    house = build(TASKS)
    family = house.start()
    pids = pids_of(house, family.pid)
    began = SYSTEM.monotonic_ns()
    assert house.stop(family, number) == 0
    assert SYSTEM.monotonic_ns() - began < 15e9  # of the 30 of stop_timeout
    assert everybody_left(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_the_running_job_finish_and_starts_no_other(build: Build, number: int) -> None:
    house = build(TASKS, processes=1)
    running, waiting = house.enqueue("gated", 1), house.enqueue("gated", 2)
    family = house.start()
    house.wait_lines("began")
    family.send_signal(number)
    eventually(lambda: house.said("stopping: running jobs have"))
    house.touch("go")
    assert family.wait(20) == 0
    assert house.lines("ended") == ["1"]
    assert house.client.get(running).state == "succeeded"
    left = house.client.get(waiting)
    assert (left.state, left.attempt) == ("pending", 0)


@pytest.mark.lanes(1, 4)
def test_idle_workers_leave_while_a_busy_one_still_drains(build: Build) -> None:
    house = build(TASKS, processes=3)
    house.enqueue("gated", 1)
    family = house.start()
    house.wait_lines("began")
    family.send_signal(signal.SIGTERM)
    # The parent's children are then the busy worker and the caretaker.
    eventually(lambda: len(house.children(family.pid)) == 2, what="the idle have left")
    house.touch("go")
    assert family.wait(20) == 0


@pytest.mark.lanes(1, 4)
def test_quit_kills_at_once_and_gives_the_job_back_uncharged(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("stuck", retries=0)
    family = house.start()
    house.wait_lines("stuck")
    began = SYSTEM.monotonic_ns()
    assert house.stop(family, signal.SIGQUIT) == 75
    assert SYSTEM.monotonic_ns() - began < 15e9  # of the 30 of stop_timeout
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("pending", 0)
    assert house.history(job) == ["stopped"]


def test_terms_within_a_moment_are_one_and_a_later_one_kills(build: Build) -> None:
    house = build(TASKS, processes=2)
    job = house.enqueue("stuck", retries=0)
    family = house.start()
    house.wait_lines("stuck")
    pids = pids_of(house, family.pid)
    for _ in range(5):
        family.send_signal(signal.SIGTERM)
        eventually(lambda: is_taken(family.pid, signal.SIGTERM), what="it is not pending any more")
    assert not house.said("stopping now")

    def is_gone_by_another() -> bool:
        family.send_signal(signal.SIGTERM)
        return family.poll() is not None

    eventually(is_gone_by_another, what="a later TERM kills")
    assert family.wait(20) == 75
    assert everybody_left(pids)
    found = house.client.get(job)
    assert (found.state, found.attempt, found.owner is None) == ("pending", 0, False)
    assert house.history(job) == ["stopped"]


@pytest.mark.lanes(1, 4)
def test_a_stuck_task_is_killed_at_stop_timeout_and_its_job_is_given_back(build: Build) -> None:
    house = build(TASKS, processes=2, config={"supervisor": {"stop_timeout": "1s"}})
    job = house.enqueue("stuck", retries=0)
    family = house.start()
    house.wait_lines("stuck")
    began = SYSTEM.monotonic_ns()
    assert house.stop(family) == 75
    assert 0.9e9 < SYSTEM.monotonic_ns() - began < 15e9
    found = house.client.get(job)
    assert (found.state, found.attempt, found.losses) == ("pending", 0, 0)
    (attempt,) = house.client.attempts(job)
    assert (attempt.outcome, attempt.verdict) == ("stopped", "stop")


def test_a_term_to_every_process_at_once_drains_and_loses_nothing(build: Build) -> None:
    house = build(TASKS, processes=3)
    ids = [house.enqueue("quick", n) for n in range(200)]
    gated = [house.enqueue("gated", n) for n in range(2)]
    ids += [house.enqueue("quick", n) for n in range(200, 400)]
    family = house.start()
    house.wait_lines("began")
    for pid in pids_of(house, family.pid):
        os.kill(pid, signal.SIGTERM)
    house.touch("go")
    assert family.wait(30) == 0
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]
    assert house.query("SELECT outcome, verdict, error_type, signal, message FROM attempts") == []
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    assert house.drain() == 0
    house.wait_finished([*ids, *gated])
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(400)]


@pytest.mark.lanes(1, 4)
def test_nothing_of_a_stopped_family_stays_behind(build: Build) -> None:
    house = build(TASKS, processes=2)
    ids = [house.enqueue("quick", n) for n in range(50)]
    family = house.start()
    house.wait_finished(ids)
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    assert house.query("SELECT count(*) FROM families") == [(0,)]
    ledgers = [path.name for path in (house.state_dir / "ledger").iterdir()]
    assert [name for name in ledgers if not name.startswith("spare-")] == []
    assert house.status()["state"] == "stopped"


@pytest.mark.preload(False)  # an import by a template is ended at once
def test_a_stop_during_the_boot_ends_at_stop_timeout(build: Build) -> None:
    house = build(
        f"{TASKS}\nmark('importing')\ntime.sleep(600)  # task body\n",
        processes=1,
        config={"supervisor": {"stop_timeout": "1s"}},
    )
    family = house.start(ready=False)
    house.wait_lines("importing")
    assert house.stop(family) == 75


SEQUENCES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN,
                signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
            ]
        ),
        st.sampled_from([0.0, 0.0, 0.01, 0.1]),
    ),
    max_size=10,
)  # fmt: skip


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sequence=SEQUENCES, busy=st.booleans())
def test_whatever_signals_come_a_stop_ends_and_says_truly_how(
    tmp_path: Path,
    new_database: NewDatabase,
    preload: bool,
    sequence: list[tuple[signal.Signals, float]],
    busy: bool,
) -> None:
    folder = tmp_path / f"house-{SYSTEM.monotonic_ns()}"
    house = House(
        folder,
        TASKS,
        database=new_database(),
        config={"supervisor": {"stop_timeout": "1s"}},
        preload=preload,
    )
    try:
        job = house.enqueue("stuck" if busy else "quick", *([] if busy else [1]), retries=0)
        family = house.start()
        house.wait_lines("stuck" if busy else "quick")
        if not busy:
            house.wait_state(job, "succeeded")  # its line is written before its end is recorded
        pids = pids_of(house, family.pid)
        for number, pause in sequence:
            if family.poll() is None:
                family.send_signal(number)
                SYSTEM.sleep(pause)
        if family.poll() is None:
            pids += house.children(family.pid)
            family.send_signal(signal.SIGQUIT)
        code = family.wait(20)
        assert code == (75 if house.said("is killed:") else 0)
        eventually(lambda: everybody_left(pids), what="everybody has left")
        found = house.client.get(job)
        expected = ("pending", 0) if busy else ("succeeded", 1)
        assert (found.state.value, found.attempt) == expected
        assert house.query("SELECT count(*) FROM owners") == [(0,)]
    finally:
        house.close()


@pytest.mark.parametrize("moment", range(0, 240, 24))
def test_a_term_at_any_moment_of_the_start_leaves_nobody_behind(build: Build, moment: int) -> None:
    house = build(TASKS)
    family = house.start(ready=False)
    SYSTEM.sleep(moment / 1000)
    family.send_signal(signal.SIGTERM)
    # Before there are handlers the signal ends the process itself, as it does any other.
    assert family.wait(20) in (0, -signal.SIGTERM)
    eventually(lambda: not processes_in(house.folder), what="nobody is left")


def processes_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if alive(pid)]


@pytest.mark.lanes(1, 4)
def test_a_stop_ends_although_the_database_is_locked_for_ever(build: Build) -> None:
    house = build(TASKS, processes=1, config={"supervisor": {"stop_timeout": "1s"}})
    job = house.enqueue("gated", 1, retries=0)
    family = house.start()
    house.wait_lines("began")
    with house.locked():
        house.touch("go")
        house.wait_lines("ended")
        assert house.stop(family) in (0, 75)
    assert house.drain() == 0
    # What ended while nobody could write was in the ledger, and the next family settles it.
    assert house.client.get(job).state == "succeeded"
    assert house.lines("began") == ["1"]


def test_a_caretaker_killed_during_the_stop_is_forked_once_more_to_settle(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("stuck", retries=0)
    family = house.start()
    house.wait_lines("stuck")
    caretaker = house.caretaker()
    os.kill(caretaker, signal.SIGSTOP)
    family.send_signal(signal.SIGQUIT)
    eventually(lambda: house.said("ended: SIGKILL"), what="the worker is dead")
    os.kill(caretaker, signal.SIGKILL)
    assert family.wait(20) == 75
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("pending", 0)
    assert len(house.heard("caretaker started as pid")) == 2
