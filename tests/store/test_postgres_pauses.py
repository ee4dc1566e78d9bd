"""Pauses and ends by the time alone on PostgreSQL, where others have a row, or claim, in the same moment."""

from __future__ import annotations

import threading
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
from tests.waiting import eventually

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


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
    database: PostgresDatabase, stores: tuple[Store, Store]
) -> None:
    one, other = stores
    claims, who = database.open(), life()
    asked = ["a", "b"]
    with one.transaction():
        one.pause(QUEUE, "a")
        second = threading.Thread(target=lambda: other.pause(QUEUE, "b"))
        second.start()
        eventually(lambda: database.sql(WAITING) != [(0,)], what="the other waits for the number")
    second.join(30)
    assert not second.is_alive()
    # Between the two commits whoever claims has read the first number, with the first pause alone.
    for queue in asked:
        enqueue(one, queue=queue)
    assert claim(claims, who, queues=asked) == []


def test_a_number_that_was_read_between_two_pauses_is_not_that_of_the_second(
    database: PostgresDatabase, stores: tuple[Store, Store]
) -> None:
    one, other = stores
    claims, who = database.open(), life()
    job = enqueue(one, queue="b")
    begun, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        with other.transaction():
            other.pause(QUEUE, "b")
            begun.set()
            go_on.wait(30)

    with one.transaction():
        one.pause(QUEUE, "a")
        second = threading.Thread(target=pause)
        second.start()
        eventually(lambda: database.sql(WAITING) != [(0,)], what="the other waits for the number")
    assert begun.wait(30)
    # The first is committed, the second not yet.
    assert [each.id for each in claim(claims, who, queues=["a", "b"])] == [job]
    last = enqueue(one, queue="b")
    go_on.set()
    second.join(30)
    assert not second.is_alive()
    assert claim(claims, who, 2, queues=["a", "b"]) == []
    assert one.get(last).state is State.PENDING


def test_what_is_parked_while_its_task_is_resumed_is_freed_by_the_net(
    stores: tuple[Store, Store],
) -> None:
    one, other = stores
    job, who = enqueue(one), life()
    one.pause(TASK, "app:f")
    with one.transaction():
        assert one.turn(who, 1, queues=["default"], limit=5, register=True).parked == 1
        other.resume(TASK, "app:f")
        assert not other.free_tasks()  # it sees no row yet that is parked
    assert one.get(job).state is State.BLOCKED
    assert not other.free_tasks()  # as the caretaker does each second
    assert one.get(job).state is State.PENDING


def test_what_is_being_claimed_does_not_expire(
    database: PostgresDatabase, stores: tuple[Store, Store]
) -> None:
    one, other = stores
    job = enqueue(one, expires_in_ms=1_000)
    with one.transaction():
        (claimed,) = claim(one, life())
        database.clock.move(1_000)
        other.end_overdue()
    assert claimed.expires_in_ms == 1_000
    other.end_overdue()
    assert one.get(job).state is State.RUNNING  # whoever runs it looks at its time itself


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
