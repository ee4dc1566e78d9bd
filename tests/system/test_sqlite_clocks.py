"""A host whose clock jumps: an hour ahead and back, while families share a file on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import Build, House, wait_heartbeats
from tests.system.history import check_each_succeeded, marking, marks, wait_begun
from tests.system.test_postgres_clocks import start_beside

pytestmark = pytest.mark.system

TASKS = marking("""
    @task
    def quick(ctx: Context):
        mark("start", ctx)
        mark("end", ctx)

    @task
    def gated(ctx: Context):
        mark("start", ctx)
        while not os.path.exists("gate"):
            time.sleep(0.005)  # task body
        mark("end", ctx)
    """)
QUICK = {"supervisor": {"dead_after": "3s"}, "log": {"level": "info"}}

Step = Callable[[str], None]


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Sets the clock of every family that is started after it, the living ones too."""
    clock = tmp_path / "clock"
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")

    def set_to(offset: str) -> None:
        beside = tmp_path / "clock.new"
        beside.write_text(f"{offset}\n")
        os.replace(beside, clock)

    set_to("+0")
    return set_to


@pytest.fixture
def house(build: Build, step: Step) -> Iterator[House]:
    """Two families on one file, with the clock of the host."""
    made = build(TASKS, config=QUICK)
    made.client.counts()
    families: list[subprocess.Popen[bytes]] = [start_beside(made, n, "") for n in ("one", "two")]
    yield made
    assert [made.stop(family) for family in families] == [0, 0]


@pytest.mark.parametrize("offset", ["+3600", "-3600"])
def test_a_clock_that_jumps_declares_nobody_dead_and_disturbs_no_job(
    house: House, step: Step, offset: str
) -> None:
    held = [house.enqueue("gated", retry=Fixed(0), timeout="10m") for _ in range(3)]
    wait_begun(house, 3)
    for where in (offset, "+0"):
        step(where)
        wait_heartbeats(house.query, 7)  # more than twice dead_after
        ((beat,),) = house.query("SELECT max(heartbeat_at) FROM families")
        assert abs(beat - SYSTEM.now_ms() - int(where) * 1000) < 60_000, "the clock did not jump"
        quick = [house.enqueue("quick") for _ in range(5)]
        house.wait_finished(quick)  # by the one worker that is free
        assert [house.client.get(job).state for job in held] == ["running"] * 3
    assert not house.said("declared dead")
    assert house.query("SELECT count(*) FROM families WHERE died_at IS NULL") == [(2,)]
    house.touch("gate")
    house.wait_finished(held)
    check_each_succeeded(house, held)
    assert sum(mark.word == "start" and mark.job in held for mark in marks(house)) == 3
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
