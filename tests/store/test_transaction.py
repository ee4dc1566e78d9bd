"""All verbs of a transaction commit together or not at all; who listens hears of it afterwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from jobvisor.jobs.errors import JobNotFound, UniqueTaken
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store
from tests.store.database import Database
from tests.store.making import (
    claim,
    enqueue,
    family,
    job_in,
    life,
    new,
    record,
    running,
    undone,
)


class Interrupted(BaseException):
    """Not even an Exception: a KeyboardInterrupt's brother."""


@pytest.mark.parametrize("kind", [ValueError, Interrupted])
def test_an_error_undoes_every_verb_of_its_transaction(
    store: Store, told: list[Event], kind: type[BaseException]
) -> None:
    who, job = running(store)
    waiting, failed = enqueue(store), job_in(store, State.FAILED, queue="other")
    before = store.find()
    told.clear()

    def act() -> None:
        with store.transaction():
            enqueue(store)
            store.apply([record(who, 1, job, "fail")], who)
            store.cancel(waiting)
            store.requeue(failed)
            store.add_family(family())
            store.turn(life(), 1, queues=["default"], limit=9, register=True)
            raise kind

    with pytest.raises(kind):
        act()
    assert store.find() == before
    assert (store.families(), store.strays(), store.attempts(job.id), told) == ([], [], [], [])


def test_an_inner_transaction_is_part_of_the_outer_one(store: Store, told: list[Event]) -> None:
    with undone(store):
        with store.transaction():
            number = enqueue(store)
        assert store.get(number).state is State.PENDING
        assert told == []
    with pytest.raises(JobNotFound):
        store.get(number)
    assert told == []


def test_an_error_that_is_caught_inside_spoils_nothing(store: Store) -> None:
    with store.transaction():
        kept = enqueue(store)
        with pytest.raises(JobNotFound), store.transaction():
            store.get(404)
        also = enqueue(store)
    assert [job.id for job in store.find()] == [also, kept]


def test_a_store_goes_on_after_an_undone_transaction(store: Store) -> None:
    with undone(store):
        pass
    assert store.get(enqueue(store)).state is State.PENDING


def test_what_is_not_committed_is_seen_by_nobody_else(database: Database) -> None:
    if database.alone:
        pytest.skip("one connection is all there is")
    writer, reader = database.open(), database.open()
    with writer.transaction():
        number = enqueue(writer)
        assert reader.find() == []
        assert reader.look(["default"])[:2] == (False, None)
    assert [job.id for job in reader.find()] == [number]


def test_one_enqueue_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(Exception, match="task"):
        store.enqueue([new(), new(task=None)])
    assert store.find() == []


def test_a_refused_requeue_is_told_to_nobody(store: Store, told: list[Event]) -> None:
    failed = job_in(store, State.FAILED, unique_key="key")
    enqueue(store, unique_key="key")
    told.clear()
    with pytest.raises(UniqueTaken):
        store.requeue(failed)
    assert told == []


def test_events_come_in_the_order_of_their_verbs(store: Store, told: list[Event]) -> None:
    with store.transaction():
        first, second = enqueue(store), enqueue(store)
        store.block(first)
        store.cancel(second)
    assert [(event.verb, event.job) for event in told] == [
        ("enqueue", first), ("enqueue", second), ("block", first), ("cancel", second),
    ]  # fmt: skip


def test_a_listener_may_use_the_store(database: Database, store: Store) -> None:
    seen: list[State] = []
    database.events.subscribe(lambda event: seen.append(store.get(event.job).state))
    enqueue(store)
    assert seen == [State.PENDING]


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads change places as often as they can, so that a race that can happen does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_threads_that_share_a_store_take_turns(store: Store, told: list[Event]) -> None:
    def work() -> None:
        for _ in range(50):
            with store.transaction():
                number = enqueue(store)
                assert store.get(number).state is State.PENDING

    def fail() -> None:
        for _ in range(50):
            with undone(store):
                enqueue(store)

    threads = [threading.Thread(target=target) for target in (work, fail, work, fail)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    stored = {job.id for job in store.find(limit=1_000)}
    assert len(stored) == 100
    # Whoever was undone took nobody else's events along, and left none of its own.
    assert len(told) == 100
    assert {event.job for event in told} == stored


def test_a_thread_that_closes_a_store_waits_for_the_transaction_of_another(
    store: Store, database: Database
) -> None:
    if database.alone:
        pytest.skip("closing its only connection ends the database")
    inside, closed = threading.Event(), threading.Event()

    def close() -> None:
        inside.wait(30)
        store.close()
        closed.set()

    thread = threading.Thread(target=close)
    thread.start()
    with store.transaction():
        number = enqueue(store)
        inside.set()
        assert not closed.wait(0.05)
        store.get(number)
    thread.join(30)
    assert closed.is_set()
    assert store.get(number).state is State.PENDING
    assert [job.id for job in claim(store, life())] == [number]
