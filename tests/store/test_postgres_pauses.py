"""Pauses and ends by the time alone on PostgreSQL, where others have a row, or claim, in the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobvisor.jobs.annals import QUEUE, TASK
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.job import State, Terms
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.base import Rest
from tests.proxy import Proxy
from tests.store.database import PostgresDatabase
from tests.store.making import claim, enqueue, life, undone


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stores(database: PostgresDatabase) -> tuple[Store, Store]:
    return database.open(), database.open()


def test_what_somebody_holds_is_passed_over_and_ended_later(
    database: PostgresDatabase, stores: tuple[Store, Store]
) -> None:
    one, other = stores
    late = enqueue(one, expires_in_ms=1)
    dated = enqueue(one, terms=Terms(deadline_in_ms=1))
    free = enqueue(one, expires_in_ms=1)
    database.clock.move(1)
    with undone(one):
        one.cancel(late)
        one.cancel(dated)
        other.end_overdue()
        assert other.get(free).state is State.CANCELLED
        assert [other.get(job).state for job in (late, dated)] == ["pending", "pending"]
    other.end_overdue()
    assert [other.get(job).state for job in (late, dated)] == ["cancelled", "failed"]


def test_what_somebody_holds_is_passed_over_when_a_task_is_resumed(
    stores: tuple[Store, Store],
) -> None:
    one, other = stores
    one.pause(TASK, "app:f")
    jobs = [enqueue(one) for _ in range(2)]
    claim(one, life())
    one.resume(TASK, "app:f")
    with undone(one):
        one.cancel(jobs[0])
        other.free_tasks()
        assert [other.get(job).state for job in jobs] == ["blocked", "pending"]
    other.free_tasks()
    assert other.get(jobs[0]).state is State.PENDING


def test_a_pause_that_is_rolled_back_pauses_nothing_and_holds_up_no_claim(
    stores: tuple[Store, Store],
) -> None:
    one, other = stores
    first, who = enqueue(one), life()
    with undone(one):
        one.pause(QUEUE, "default")
        assert [job.id for job in claim(other, who)] == [first]
    second = enqueue(one)
    assert [job.id for job in claim(other, who, 2)] == [second]


def test_two_pauses_at_once_wait_for_each_other_and_both_are_obeyed(
    stores: tuple[Store, Store],
) -> None:
    one, other = stores
    for queue in ("a", "b"):
        enqueue(one, queue=queue)
    who = life()
    one.pause(QUEUE, "a")
    other.pause(QUEUE, "b")
    for number, store in enumerate(stores, 1):
        assert claim(store, who, number, queues=["a", "b"]) == []


def test_a_claim_whose_connection_is_cut_before_it_has_asked_for_deadlines_loses_none(
    database: PostgresDatabase,
) -> None:
    one = database.open()
    job = enqueue(one, terms=Terms(deadline_in_ms=60_000))
    place = urlsplit(database.url)
    with Proxy(str(place.hostname), place.port or 0) as proxy:
        other = open_store(proxy.url(database.url), schema=database.schema, clock=database.clock)
        other.open()
        proxy.drop_before(b"AND deadline_at IS NOT NULL")  # the claim is committed by then
        (claimed,) = claim(other, life())
        other.close()
        assert proxy.met == 1
    assert (claimed.id, claimed.timeout_ms) == (job, 60_000)
    assert one.get(job).state is State.RUNNING


def test_a_claim_that_cannot_ask_for_deadlines_is_given_back_by_the_next_turn(
    database: PostgresDatabase,
) -> None:
    one, who = database.open(), life()
    job = enqueue(one, terms=Terms(deadline_in_ms=60_000))
    place = urlsplit(database.url)
    with Proxy(str(place.hostname), place.port or 0) as proxy:
        other = open_store(
            proxy.url(database.url), schema=database.schema, clock=database.clock, patience=0.2
        )
        other.turn(who, 1, queues=[], limit=1, register=True)
        proxy.drop_before(b"AND deadline_at IS NOT NULL")
        quiet, other.on_wait = other.on_wait, proxy.cut
        with pytest.raises(StoreUnavailable):
            claim(other, who, 2)
        other.on_wait = quiet
        proxy.restore()
        assert one.get(job).state is State.RUNNING
        turn = other.turn(who, 3, queues=["default"], limit=1, rest=Rest((2,), ()))
        other.close()
    assert [(each.id, each.attempt, each.timeout_ms) for each in turn.jobs] == [(job, 1, 60_000)]
