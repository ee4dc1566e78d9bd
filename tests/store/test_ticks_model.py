"""Ticks under any walk of the clock, by two who look: each has one job at most, none passed is missing."""

from __future__ import annotations

from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import planned
from jobvisor.jobs.store import open_store
from jobvisor.jobs.task import Call, Defaults
from jobvisor.jobs.ticker import Ticker
from jobvisor.jobs.timing import timing_of
from tests.clock import MovableClock

MINUTE = 60_000


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-180, 180), st.booleans()), min_size=1, max_size=12))
def test_a_clock_that_walks_as_it_likes_doubles_no_tick_and_loses_none_that_it_passes(
    steps: list[tuple[int, bool]],
) -> None:
    clock = MovableClock()
    with closing(open_store("memory://", clock=clock)) as store:
        store.note_tasks({"app:f": "{}"})
        timing = timing_of(every="7m")
        store.add_schedule(
            planned("s", Call("app:f"), timing, payload=Payload())._replace(catch_up="all")
        )
        lookers = [Ticker(store, Defaults(), clock) for _ in range(2)]
        for minutes, which in steps:
            before = clock.now_ms()
            clock.move(minutes * MINUTE)
            lookers[which].look()
            for tick in timing.due(before, clock.now_ms(), 1_000) if minutes > 0 else ():
                assert store.has_tick("s", tick)
        made = [job.headers["scheduled_for"] for job in store.find(limit=100_000)]
        assert len(made) == len(set(made))
