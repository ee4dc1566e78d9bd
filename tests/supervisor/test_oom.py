"""A death of SIGKILL is the OOM killer's only where its counter moved about then."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobvisor.supervisor.deaths.oom import OomWatch
from tests.clock import MovableClock


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    path = tmp_path / "memory.events"
    path.write_text("low 0\noom 3\noom_kill 3\n")
    return path


def test_a_kill_of_last_week_is_not_held_against_todays_death(counter: Path) -> None:
    clock = MovableClock()
    watch = OomWatch(clock, str(counter))
    counter.write_text("oom_kill 4\n")  # somebody else's, long before
    for _ in range(20):
        clock.move(5_000)
        watch.read()
    clock.move(1_000)
    assert not watch.killed_at(clock.monotonic_ns())


def test_a_kill_just_before_a_death_explains_it_although_it_was_read_since(counter: Path) -> None:
    clock = MovableClock()
    watch = OomWatch(clock, str(counter))
    clock.move(5_000)
    watch.read()
    clock.move(4_900)
    counter.write_text("oom_kill 4\n")
    clock.move(100)
    died = clock.monotonic_ns()
    watch.read()  # the duty came between the kill and the settling
    clock.move(1_000)
    assert watch.killed_at(died)


def test_a_system_that_does_not_tell_labels_nobody(tmp_path: Path) -> None:
    clock = MovableClock()
    watch = OomWatch(clock, str(tmp_path / "missing"))
    clock.move(10_000)
    assert not watch.killed_at(clock.monotonic_ns())
