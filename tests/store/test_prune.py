"""Finished jobs go when their time has come, a bounded number at a time, and nothing else goes."""

from __future__ import annotations

import pytest

from jobvisor.jobs.errors import JobNotFound
from jobvisor.jobs.job import FINISHED, UNFINISHED, State
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import enqueue, job_in

HOUR = 3_600_000


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_job_goes_when_its_time_has_come(
    store: Store, clock: MovableClock, state: State
) -> None:
    number = job_in(store, state)
    clock.move(HOUR - 1)
    assert store.prune({state: HOUR}, limit=10) == 0
    clock.move(1)
    assert store.prune({state: HOUR}, limit=10) == 1
    with pytest.raises(JobNotFound):
        store.get(number)


def test_each_state_has_a_time_of_its_own(store: Store, clock: MovableClock) -> None:
    kept = [job_in(store, State.FAILED), job_in(store, State.CANCELLED)]
    job_in(store, State.SUCCEEDED)
    clock.move(HOUR)
    assert store.prune({State.SUCCEEDED: HOUR, State.FAILED: 2 * HOUR}, limit=10) == 1
    assert sorted(job.id for job in store.find()) == kept


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_an_unfinished_job_never_goes(store: Store, clock: MovableClock, state: State) -> None:
    job_in(store, state)
    clock.move(1_000 * HOUR)
    assert store.prune({**dict.fromkeys(FINISHED, 0), state: 0}, limit=10) == 0
    assert store.prunable({state: 0}) == {state: 0}
    assert len(store.find()) == 1


def test_a_requeued_job_does_not_go_for_its_earlier_end(store: Store, clock: MovableClock) -> None:
    store.requeue(job_in(store, State.FAILED))
    clock.move(HOUR)
    assert store.prune(dict.fromkeys(FINISHED, 0), limit=10) == 0


def test_a_prune_takes_at_most_its_limit_and_the_oldest_first(
    store: Store, clock: MovableClock
) -> None:
    ids = []
    for _ in range(3):
        ids.append(job_in(store, State.SUCCEEDED))
        clock.move(1_000)
    ids.append(job_in(store, State.FAILED))
    ages = {State.SUCCEEDED: 0, State.FAILED: 0}
    assert store.prune(ages, limit=2) == 2
    assert sorted(job.id for job in store.find()) == ids[2:]
    assert store.prune(ages, limit=2) == 2
    assert store.prune(ages, limit=2) == 0


def test_the_history_goes_with_its_job(
    database: Database, store: Store, clock: MovableClock
) -> None:
    number = job_in(store, State.FAILED)
    kept = job_in(store, State.CANCELLED)
    clock.move(HOUR)
    store.prune({State.FAILED: 0}, limit=10)
    assert store.attempts(number) == []
    assert database.sql("SELECT job FROM attempts") == [(kept,)]


def test_what_would_go_is_counted_without_a_change(store: Store, clock: MovableClock) -> None:
    for state in (State.FAILED, State.FAILED, State.SUCCEEDED):
        job_in(store, state)
    enqueue(store)
    clock.move(HOUR)
    ages = {State.FAILED: HOUR, State.SUCCEEDED: HOUR + 1, State.CANCELLED: 0}
    assert store.prunable(ages) == {State.FAILED: 2, State.SUCCEEDED: 0, State.CANCELLED: 0}
    assert len(store.find()) == 4
