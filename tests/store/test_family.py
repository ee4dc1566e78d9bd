"""Families and their lives, as the database knows them, and whether they have work left."""

from __future__ import annotations

import pytest

from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.making import claim, enqueue, family, job_in, life, record, running


def test_a_family_enters_at_the_databases_own_time(store: Store, clock: MovableClock) -> None:
    clock.move(5)
    store.add_family(family(7, state_dir="/var/lib/x"))
    now = START_MS + 5
    assert store.families() == [family(7, state_dir="/var/lib/x", started_at=now, heartbeat_at=now)]


def test_a_heartbeat_moves_its_family_alone(store: Store, clock: MovableClock) -> None:
    store.add_family(family(1))
    store.add_family(family(2))
    clock.move(10_000)
    assert store.heartbeat(1) is True
    assert [row.heartbeat_at for row in store.families()] == [START_MS + 10_000, START_MS]
    assert [row.started_at for row in store.families()] == [START_MS, START_MS]


def test_a_family_declared_dead_learns_it_by_its_heartbeat(store: Store) -> None:
    store.add_family(family(1))
    store.remove_family(1)
    assert store.heartbeat(1) is False
    assert store.families() == []


def test_a_family_that_enters_again_only_beats(store: Store, clock: MovableClock) -> None:
    store.add_family(family(1))
    clock.move(10)
    store.add_family(family(1, name="other"))
    (row,) = store.families()
    assert (row.name, row.started_at, row.heartbeat_at) == ("main", START_MS, START_MS + 10)


def test_the_lives_of_a_family_are_its_own(store: Store) -> None:
    mine, others = life(family=1), life(family=2)
    for who in (mine, others):
        store.turn(who, 1, queues=[], limit=0, register=True)
    assert (store.owners(1), store.owners(2), store.owners(3)) == ([mine], [others], [])
    store.remove_owner(mine.owner)
    assert (store.owners(1), store.owners(2)) == ([], [others])


def test_a_life_whose_family_has_no_row_is_a_stray(store: Store) -> None:
    mine, stray = life(family=1), life(family=2)
    for who in (mine, stray):
        store.turn(who, 1, queues=[], limit=0, register=True)
    store.add_family(family(1))
    assert store.strays() == [stray]
    store.remove_family(1)
    assert store.strays() == [mine, stray]


# -- whether a draining family has work left


@pytest.mark.parametrize("state", list(State))
def test_only_pending_rows_and_retries_keep_a_family(store: Store, state: State) -> None:
    job_in(store, state)
    assert store.has_work(["default"], 1) is (state is State.PENDING)


def test_a_retry_that_waits_keeps_a_family(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "retry")], who)
    assert store.has_work(["default"], 1)


@pytest.mark.parametrize(("deferred", "kept"), [("snooze", True), ("unknown", False)])
def test_a_job_that_snoozes_keeps_a_family_and_one_without_a_task_does_not(
    store: Store, deferred: str, kept: bool
) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "snooze", deferred=deferred)], who)
    assert store.has_work(["default"], 1) is kept


def test_other_queues_do_not_keep_a_family(store: Store) -> None:
    enqueue(store, queue="other")
    assert not store.has_work(["default", "mail"], 1)
    assert store.has_work(["default", "other"], 1)


def test_a_job_that_runs_here_keeps_a_family_and_one_that_runs_elsewhere_does_not(
    store: Store,
) -> None:
    enqueue(store)
    who = life(family=1)
    store.turn(who, 1, queues=["default"], limit=1, register=True)
    assert store.has_work(["default"], 1)
    assert not store.has_work(["default"], 2)


def test_a_job_that_runs_here_keeps_a_family_whatever_its_queue(store: Store) -> None:
    enqueue(store, queue="other")
    who = life(family=1)
    store.turn(who, 1, queues=["other"], limit=1, register=True)
    assert store.has_work([], 1)
    assert claim(store, life(), queues=["other"]) == []


def test_a_heartbeat_carries_how_long_others_are_to_wait(store: Store) -> None:
    store.add_family(family(dead_after_ms=5_000))
    assert store.heartbeat(1, 60_000)
    assert store.families()[0].dead_after_ms == 60_000
    assert store.heartbeat(1)
    assert store.families()[0].dead_after_ms == 60_000


def test_a_family_declared_dead_neither_beats_nor_enters_again(store: Store) -> None:
    assert store.add_family(family())
    (row,) = store.families()
    assert store.bury_family(row)
    assert not store.heartbeat(1)
    assert not store.add_family(family())
    assert store.families()[0].died


def test_a_family_that_has_beaten_meanwhile_is_not_buried(
    store: Store, clock: MovableClock
) -> None:
    store.add_family(family())
    (row,) = store.families()
    clock.move(10)
    store.heartbeat(1)
    assert not store.bury_family(row)
    assert store.heartbeat(1)
