"""Two families: on one database side by side, on one state directory never, and at one instant."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import Build, House, alive
from tests.system.history import (
    SHORT,
    calls,
    check_charges,
    check_each_succeeded,
    check_nothing_left,
    marking,
    marks,
    never_overlapped,
    wait_begun,
    wait_busy,
)
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

GATED = marking("""
    @task(retry=Fixed(0))
    def gated(ctx: Context):
        mark("start", ctx)
        while not os.path.exists("gate"):
            time.sleep(0.005)  # task body
        mark("end", ctx)
    """)

QUICK = {"supervisor": {"dead_after": "2s"}}


def second_config(house: House) -> str:
    """The same database and tasks under another state directory."""
    text = (house.folder / "config.toml").read_text()
    other = text.replace(str(house.state_dir), str(house.folder / "second"))
    path = house.folder / "second.toml"
    path.write_text(other)
    return str(path)


def test_a_second_family_resets_nothing_of_the_living_and_rescues_the_dead(build: Build) -> None:
    house = build(GATED, config=QUICK)
    held = [house.enqueue("gated", retry=Fixed(0)) for _ in range(2)]
    first = house.start()
    wait_begun(house, 2)
    victims = [mark.pid for mark in marks(house)]
    second = house.start("-c", second_config(house), ready=False)
    more = [house.enqueue("gated", retry=Fixed(0)) for _ in range(2)]
    wait_begun(house, 4)
    # Two whole rounds of its rescue: each of them leaves what the first family holds alone.
    house.wait_heartbeats(7)
    assert [house.client.get(job).state for job in held] == ["running"] * 2
    assert len(marks(house)) == 4
    house.kill_family(first)
    eventually(
        lambda: {house.client.get(job).state for job in held} == {"pending"},
        limit=10,
        what="the second family has rescued the jobs of the first",
    )
    house.touch("gate")
    house.wait_finished(held + more)
    assert house.stop(second) == 0
    check_each_succeeded(house, held + more)
    assert crash_pids(house) == sorted(victims)
    assert house.query("SELECT max(losses) FROM jobs") == [(0,)]
    assert house.query("SELECT count(*) FROM families") == [(0,)]
    check_nothing_left(house)


# On PostgreSQL a family that is silent for `dead_after` is dead: its machine may be gone.
@pytest.mark.stores("sqlite")
def test_a_stopped_family_is_not_dead_to_another_one(build: Build) -> None:
    house = build(GATED, config={"supervisor": {"dead_after": "1s"}})
    held = [house.enqueue("gated", retries=0) for _ in range(2)]
    first = house.start()
    wait_begun(house, 2)
    second = house.start("-c", second_config(house), ready=False)
    eventually(lambda: _is_ready(house.folder / "second"), what="the second family is there")
    pids = [first.pid, *house.children(first.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped_at = SYSTEM.monotonic_ns()
    eventually(lambda: SYSTEM.monotonic_ns() - stopped_at > 3e9, what="three rescues have passed")
    assert {house.client.get(job).state for job in held} == {"running"}
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    house.touch("gate")
    house.wait_finished(held)
    assert [house.stop(family) for family in (first, second)] == [0, 0]
    check_each_succeeded(house, held)
    assert len(marks(house)) == 4
    check_nothing_left(house)


def crash_pids(house: House) -> list[int]:
    return [row[0] for row in house.query("SELECT pid FROM attempts ORDER BY pid")]


def test_the_finished_part_of_a_dead_familys_batches_is_taken_from_its_ledgers(
    build: Build,
) -> None:
    house = build(SHORT, config=QUICK)
    ids = calls(house, "short", 800, retry=Fixed(0), retries=20)
    first = house.start()
    wait_busy(house, 75)
    killed = house.workers()
    house.kill_family(first)
    second = house.start("-c", second_config(house), ready=False)
    house.wait_finished(ids)
    assert house.stop(second) == 0
    check_each_succeeded(house, ids)
    assert check_charges(house, killed) <= 1
    assert house.query("SELECT max(losses) FROM jobs") == [(0,)]
    check_nothing_left(house)


def test_a_family_can_start_again_while_another_settles_what_it_left(build: Build) -> None:
    house = build(SHORT, config={"supervisor": {"dead_after": "1s"}})
    second = house.start("-c", second_config(house), ready=False)
    ids = calls(house, "short", 1500, retry=Fixed(0), retries=50)
    killed: list[int] = []
    for _ in range(4):
        first = house.start()
        wait_busy(house, 10)
        killed += house.workers()
        house.kill_family(first)
    house.wait_finished(ids)
    assert house.stop(second) == 0
    check_each_succeeded(house, ids)
    check_charges(house, killed)
    check_nothing_left(house)


def test_a_second_start_on_one_state_directory_is_refused_with_the_pid(build: Build) -> None:
    house = build(GATED)
    job = house.enqueue("gated")
    family = house.start()
    wait_begun(house)
    refused = house.start(ready=False)
    assert refused.wait(10) == 1
    assert house.heard(f"(pid {family.pid})")
    assert house.client.get(job).state == "running"
    house.touch("gate")
    house.wait_state(job, "succeeded")
    assert len(marks(house)) == 2
    assert house.stop(family) == 0


# A server's tables are made by `jobvisor migrate`, and by no family.
@pytest.mark.stores("sqlite")
def test_two_first_starts_at_one_instant_make_one_database(build: Build) -> None:
    house = build(SHORT)
    house.client.close()
    other = second_config(house)
    for turn in range(3):
        for path in house.folder.glob("jobs.db*"):
            path.unlink()
        for state in (house.state_dir, Path(house.folder / "second")):
            shutil.rmtree(state, ignore_errors=True)
        (house.folder / "runs.txt").unlink(missing_ok=True)
        families = [house.start(ready=False), house.start("-c", other, ready=False)]
        eventually(lambda: _is_ready(house.folder / "second"), what=f"the second of turn {turn}")
        house.wait_ready(families[0])
        ids = calls(house, "short", 200)
        house.wait_finished(ids)
        house.client.close()
        assert [house.stop(family) for family in families] == [0, 0]
        check_each_succeeded(house, ids)
        assert len(marks(house)) == 2 * len(ids)
        check_nothing_left(house)


def _is_ready(state: Path) -> bool:
    return (state / "status.json").exists()


def test_a_family_that_was_stopped_for_seconds_goes_on_as_if_nothing_had_been(
    build: Build,
) -> None:
    # dead_after is far below the stop: the beats and leases of all of it are old when it wakes.
    house = build(
        marking("""
        @task
        def busy(ctx: Context):
            mark("start", ctx)
            for _ in range(50):
                time.sleep(0.01)  # task body
            mark("end", ctx)
        """),
        config={"supervisor": {"dead_after": "1s"}},
    )
    ids = [house.enqueue("busy", timeout="2500ms"), house.enqueue("busy")]
    family = house.start()
    wait_begun(house, 2)
    pids = [family.pid, *house.children(family.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped_at = SYSTEM.monotonic_ns()
    eventually(lambda: SYSTEM.monotonic_ns() - stopped_at > 3e9, what="three seconds have passed")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    house.wait_finished(ids)
    assert all(map(alive, pids))
    assert house.heard("no timeout for the next second")
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    never_overlapped(marks(house), lambda _mark: False)
    assert len(marks(house)) == 4
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    check_nothing_left(house)
