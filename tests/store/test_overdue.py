"""What waits for longer than it may is ended by the time alone, by any store, and never begins."""

from __future__ import annotations

import pytest

from jobvisor.jobs.events import Event
from jobvisor.jobs.job import Claimed, Special, State, Terms
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.database import Database
from tests.store.making import claim, enqueue, held, job_in, life, record, running

WAITING = (State.SCHEDULED, State.PENDING, State.BLOCKED)


def overdue(store: Store, clock: MovableClock, ms: int = 1) -> bool:
    clock.move(ms)
    return store.end_overdue()


@pytest.mark.parametrize("state", WAITING)
def test_what_waits_is_cancelled_when_no_run_may_begin_any_more(
    store: Store, clock: MovableClock, told: list[Event], state: State
) -> None:
    number = job_in(store, state, expires_in_ms=10_000)
    if state is State.SCHEDULED:  # it counts from the moment it is due
        clock.move(60_000)
    told.clear()
    assert not overdue(store, clock, 9_999)
    assert store.get(number).state is state
    overdue(store, clock)
    job = store.get(number)
    assert job.state is State.CANCELLED
    assert job.error == "expired: it expired before a run could begin"
    assert job.finished_at is not None
    assert [(each.verb, each.kind) for each in told] == [("cancel", "expired")]


@pytest.mark.parametrize("state", WAITING)
def test_what_waits_past_its_deadline_has_failed(
    store: Store, clock: MovableClock, told: list[Event], state: State
) -> None:
    number = job_in(store, state, terms=Terms(deadline_in_ms=10_000))
    if state is State.SCHEDULED:
        clock.move(60_000)
    told.clear()
    assert not overdue(store, clock, 9_999)
    assert store.get(number).state is state
    overdue(store, clock)
    job = store.get(number)
    assert (job.state, job.error) == (State.FAILED, "deadline: it was not done by its deadline")
    assert [(each.verb, each.kind) for each in told] == [("fail", "deadline")]


@pytest.mark.parametrize("state", [one for one in State if one not in WAITING])
def test_what_runs_or_is_finished_is_left_as_it_is(
    store: Store, clock: MovableClock, state: State
) -> None:
    terms = Terms(deadline_in_ms=1, expires_at_ms=START_MS + 1)
    number = job_in(store, state, terms=terms)
    overdue(store, clock, 60_000)
    assert store.get(number).state is state


def test_a_job_that_waits_for_its_next_attempt_fails_at_its_deadline_and_says_what_it_had_met(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store, terms=Terms(deadline_in_ms=10_000))
    store.apply([record(who, 1, job, "retry", delay_ms=60_000)], who)
    overdue(store, clock, 10_000)
    found = store.get(job.id)
    assert found.state is State.FAILED
    assert found.error is not None
    assert found.error.startswith("deadline: it was not done by its deadline; its last error: ")
    assert found.error.endswith("ValueError: broken")
    assert found.attempt == 1


def test_an_expiry_at_a_moment_counts_in_the_place_of_one_after_so_long(
    store: Store, clock: MovableClock
) -> None:
    number = enqueue(store, run_in_ms=60_000, terms=Terms(expires_at_ms=START_MS + 5_000))
    overdue(store, clock, 5_000)
    assert store.get(number).state is State.CANCELLED


def test_the_ends_of_many_go_page_by_page(store: Store, clock: MovableClock) -> None:
    for _ in range(502):
        enqueue(store, expires_in_ms=1)
    assert overdue(store, clock)
    assert store.unfinished()["default"] == {"pending": 2}
    assert not store.end_overdue()
    assert store.unfinished() == {}


def test_a_row_that_the_database_refuses_to_end_stops_no_other(
    database: Database, clock: MovableClock
) -> None:
    store = database.open()
    bad, good = (enqueue(store, task=task, expires_in_ms=1) for task in ("app:bad", "app:f"))
    database.refuse("new.task = 'app:bad' AND new.state = 'cancelled'", "not this one")
    overdue(store, clock)
    assert store.get(good).state is State.CANCELLED
    assert store.get(bad).state is State.FAILED


def test_a_job_requeued_after_its_time_may_begin(store: Store, clock: MovableClock) -> None:
    number = enqueue(store, expires_in_ms=1, terms=Terms(deadline_in_ms=1))
    overdue(store, clock, 5)
    store.requeue(number)
    assert not overdue(store, clock, 5)
    assert [job.id for job in claim(store, life())] == [number]


# -- the run itself


def of(store: Store, clock: MovableClock, timeout_ms: int, passed_ms: int) -> Claimed:
    enqueue(store, timeout_ms=timeout_ms, terms=Terms(deadline_in_ms=10_000))
    clock.move(passed_ms)
    (job,) = claim(store, life())
    return job


@pytest.mark.parametrize(
    ("timeout_ms", "limit_ms", "last"),
    [(0, 6_000, True), (5_000, 5_000, False), (8_000, 6_000, True)],
)
def test_a_run_has_what_is_left_until_the_deadline_and_no_more_than_its_timeout(
    store: Store, clock: MovableClock, timeout_ms: int, limit_ms: int, last: bool
) -> None:
    job = of(store, clock, timeout_ms, 4_000)
    assert job.timeout_ms == limit_ms
    assert bool(job.special & Special.LAST) is last
    assert store.get(job.id).timeout == (timeout_ms / 1000 or None)


def test_a_job_claimed_past_its_deadline_has_no_time_left(
    store: Store, clock: MovableClock
) -> None:
    job = of(store, clock, 5_000, 11_000)
    assert (job.timeout_ms, bool(job.special & Special.LAST)) == (0, True)


def test_a_job_without_a_deadline_asks_for_none(store: Store) -> None:
    _who, job = running(store, timeout_ms=7)
    assert (job.timeout_ms, job.special) == (7, 0)


def test_the_settler_of_a_dead_owner_is_told_how_long_the_deadline_is_away(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store, terms=Terms(deadline_in_ms=10_000))
    clock.move(4_000)
    assert held(store, job.id, who).deadline_ms == 6_000
    assert not held(store, job.id, who).is_overdue
    clock.move(6_000)
    assert held(store, job.id, who).is_overdue
    store.apply([record(who, 1, job, Outcome("succeed"))], who)
    assert store.get(job.id).state is State.SUCCEEDED  # it was done when it was settled
