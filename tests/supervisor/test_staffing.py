"""How many workers a pool should have: decided by what was seen, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.values import Span
from jobvisor.supervisor.staffing import GAP_NS, Look, Staffing, why_text

LATENCY_MS, IDLE_MS = 1_000, 30_000


class Pool:
    """A pool and the time; looks a second apart unless said otherwise."""

    def __init__(self, least: int, most: int) -> None:
        self.staffing = Staffing(Span(least, most), LATENCY_MS, IDLE_MS)
        self.now = SECOND

    def look(self, latency_ms: int, idle: int, *, ready: bool = True, after_ms: int = 1_000) -> int:
        self.now += after_ms * 1_000_000
        self.staffing.note(Look(self.now, latency_ms, idle), ready=ready)
        return self.staffing.wanted

    def rest(self, idle: int, seconds: int) -> int:
        for _ in range(seconds):
            self.look(0, idle)
        return self.staffing.wanted


def test_a_pool_that_keeps_jobs_waiting_is_doubled_up_to_its_most() -> None:
    pool = Pool(1, 6)
    assert [pool.look(LATENCY_MS + 1, 0) for _ in range(5)] == [2, 4, 6, 6, 6]
    assert why_text(pool.staffing.why, pool.staffing.why_ms) == "jobs waited 1.001s"


def test_there_are_no_more_before_those_that_were_added_are_ready() -> None:
    pool = Pool(1, 8)
    assert pool.look(5_000, 0) == 2
    assert [pool.look(9_000, 0, ready=False) for _ in range(5)] == [2] * 5
    assert pool.look(9_000, 0) == 4


@pytest.mark.parametrize(("latency_ms", "idle"), [(LATENCY_MS, 0), (60_000, 1)])
def test_a_pool_is_not_made_larger_where_jobs_wait_no_longer_or_somebody_is_idle(
    latency_ms: int, idle: int
) -> None:
    assert Pool(2, 8).look(latency_ms, idle) == 2


def test_as_many_leave_as_were_idle_at_every_look_of_the_time() -> None:
    pool = Pool(1, 8)
    for _ in range(3):
        pool.look(5_000, 0)
    assert pool.rest(7, 10) == 8
    pool.look(
        0, 5
    )  # at one percent of load each of eight is busy now and then, and three were enough
    assert pool.rest(7, 19) == 8
    assert pool.look(0, 7) == 3
    assert why_text(pool.staffing.why, pool.staffing.why_ms) == "workers were idle 30s"
    assert pool.rest(3, 30) == 3, "the time begins anew"
    assert pool.rest(3, 1) == 1


def test_one_look_at_which_all_worked_begins_the_time_anew() -> None:
    pool = Pool(1, 4)
    pool.look(5_000, 0)
    pool.look(5_000, 0)
    assert pool.rest(3, 29) == 4
    pool.look(0, 0)
    assert pool.rest(3, 30) == 4
    assert pool.rest(3, 1) == 1


def test_a_time_in_which_nothing_could_be_seen_changes_nothing() -> None:
    pool = Pool(1, 4)
    pool.look(5_000, 0)
    pool.look(5_000, 0)
    pool.rest(3, 29)
    pool.now += 10 * GAP_NS  # the database was away
    assert pool.look(0, 3) == 4
    assert pool.rest(3, 29) == 4
    assert pool.rest(3, 1) == 1


def test_a_look_that_was_taken_already_is_none() -> None:
    pool = Pool(1, 8)
    look = Look(SECOND, 5_000, 0)
    assert pool.staffing.note(look, ready=True)
    assert not pool.staffing.note(look, ready=True)
    assert pool.staffing.wanted == 2


def test_a_person_moves_the_least_of_a_range_and_the_number_of_a_pool_without() -> None:
    pool = Pool(1, 8).staffing
    pool.ask(3)
    assert (pool.least, pool.wanted, pool.most) == (3, 3, 8)
    pool.ask(12)
    assert (pool.least, pool.wanted, pool.most) == (12, 12, 12)
    pool.ask(2)
    assert (pool.least, pool.wanted, pool.most) == (2, 8, 8), "those that are there may be needed"
    fixed = Pool(4, 4).staffing
    fixed.ask(2)
    assert (fixed.least, fixed.wanted, fixed.most) == (2, 2, 2)


def test_another_configuration_keeps_what_lies_in_its_range() -> None:
    pool = Pool(1, 8)
    for _ in range(3):
        pool.look(5_000, 0)
    pool.staffing.follow(Span(2, 20), 1_000, 30_000)
    assert pool.staffing.wanted == 8
    pool.staffing.follow(Span(2, 5), 1_000, 30_000)
    assert pool.staffing.wanted == 5
    pool.staffing.follow(Span(7, 7), 1_000, 30_000)
    assert pool.staffing.wanted == 7


class Family(RuleBasedStateMachine):
    """A pool from 2 to 9 with bursts, crashes, idle times, outages and people, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Staffing(Span(2, 9), LATENCY_MS, IDLE_MS)
        self.now = SECOND
        self.ready = True
        self.free: list[tuple[int, int]] = []  # (when, how many were idle) since somebody had none
        self.looked = 0

    def _note(self, latency_ms: int, idle: int) -> None:
        before, self.looked, last = self.pool.wanted, self.now, self.looked
        idle = min(idle, before)
        if self.now - last > GAP_NS or not idle:
            self.free = []
        if idle:
            self.free.append((self.now, idle))
        changed = self.pool.note(Look(self.now, latency_ms, idle), ready=self.ready)
        after = self.pool.wanted
        assert changed == (after != before)
        if after > before:
            assert self.ready
            assert not idle
            assert latency_ms > LATENCY_MS
            assert after <= 2 * before
            self.ready = False  # the new ones are still to come
        elif after < before:
            assert self.now - self.free[0][0] >= IDLE_MS * 1_000_000
            assert before - after <= min(number for _, number in self.free)
        if changed:
            self.free = []

    @rule(latency_ms=st.integers(0, 5_000), after_ms=st.integers(1, 2_000))
    def burst(self, latency_ms: int, after_ms: int) -> None:
        self.now += after_ms * 1_000_000
        self._note(latency_ms, 0)

    @rule(idle=st.integers(1, 9), looks=st.integers(1, 50), after_ms=st.integers(100, 3_000))
    def rest(self, idle: int, looks: int, after_ms: int) -> None:
        for _ in range(looks):
            self.now += after_ms * 1_000_000
            self._note(0, idle)

    @rule(ready=st.booleans())
    def start_or_crash(self, ready: bool) -> None:
        self.ready = ready

    @rule(seconds=st.integers(0, 100))
    def outage(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(latency_ms=st.integers(0, 5_000), idle=st.integers(0, 9))
    def see_again(self, latency_ms: int, idle: int) -> None:
        assert not self.pool.note(Look(self.looked, latency_ms, idle), ready=True)

    @rule(least=st.integers(1, 12))
    def ask(self, least: int) -> None:
        self.pool.ask(least)
        self.free = []

    @rule(least=st.integers(1, 5), more=st.integers(0, 9))
    def reload(self, least: int, more: int) -> None:
        self.pool.follow(Span(least, least + more), LATENCY_MS, IDLE_MS)
        self.free = []

    @invariant()
    def lies_in_its_range(self) -> None:
        assert 1 <= self.pool.least <= self.pool.wanted <= self.pool.most


TestFamily = Family.TestCase
