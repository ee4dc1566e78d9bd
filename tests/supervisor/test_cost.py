"""What a run cost: read between jobs by its worker, at its death by the parent."""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.supervisor.autopsy.cost import LONG_NS, SHORT_NS, Meter, cost_at_death
from jobvisor.supervisor.board import CPU, CURRENT, Board, Slot
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.memory import forget_peak, peak
from tests.clock import StandingClock

MIB = 1 << 20


def burn(milliseconds: int) -> None:
    until = SYSTEM.process_ns() + milliseconds * 1_000_000
    while SYSTEM.process_ns() < until:
        pass


def meter(clock: Clock = SYSTEM) -> Meter:
    return Meter(clock, slot(1, cpu=0).lane(0))


def test_a_run_is_counted_what_was_used_since_the_reading_before_it() -> None:
    meter_ = meter()
    burn(30)
    meter_.read(SYSTEM.monotonic_ns())
    burn(20)
    assert 20 <= meter_.cost(SHORT_NS)[0] < 30


def test_after_a_run_that_was_not_short_and_after_a_millisecond_the_clock_is_read_again() -> None:
    meter_ = meter()
    meter_.read(1_000)
    assert meter_.due == 1_000 + SHORT_NS
    meter_.cost(SHORT_NS)
    assert meter_.due == 0


def hold(size: int) -> int:
    return len(bytearray(size))


def test_the_memory_of_a_long_run_is_its_own_and_not_that_of_a_run_before() -> None:
    clock = StandingClock()
    meter_ = meter(clock)
    clock.move(101)
    meter_.read(clock.monotonic_ns())
    _, low = meter_.cost(LONG_NS)
    assert low > 0
    hold(200 * MIB)
    assert meter_.cost(LONG_NS)[1] > low + 150 * MIB
    assert meter_.cost(LONG_NS)[1] < low + 150 * MIB
    hold(200 * MIB)
    clock.move(101)
    meter_.read(clock.monotonic_ns())
    assert meter_.cost(LONG_NS)[1] < low + 150 * MIB


def test_the_memory_of_a_shorter_run_is_not_looked_at() -> None:
    meter_ = meter()
    meter_.read(0)
    assert meter_.cost(LONG_NS - 1)[1] == 0


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert peak(1 << 22) is None
    assert forget_peak()


def slot(lanes: int, *, cpu: int) -> Slot:
    found = Board().slots[1]
    found.give_lanes(0, lanes)
    words = found.lane(0)
    words[CURRENT], words[CPU] = 5, cpu
    return found


def test_a_job_that_died_alone_is_counted_what_its_process_used_since_it_began() -> None:
    ended = Exit(1, -9, 3 * SECOND, 77)
    assert cost_at_death(slot(1, cpu=SECOND), ended, 99) == (2_000, 99)
    assert cost_at_death(slot(1, cpu=SECOND), ended, 0) == (2_000, 77)
    assert cost_at_death(slot(1, cpu=0), ended, 0) == (-1, 77)
    assert cost_at_death(slot(1, cpu=SECOND), Exit(1, -9), 0) == (-1, 0)


def test_of_several_jobs_that_died_nobody_knows_what_each_cost() -> None:
    assert cost_at_death(slot(2, cpu=SECOND), Exit(1, -9, 3 * SECOND, 77), 99) == (-1, 0)
    idle = slot(1, cpu=SECOND)
    idle.lane(0)[CURRENT] = 0
    assert cost_at_death(idle, Exit(1, -9, 3 * SECOND, 77), 99) == (-1, 0)
