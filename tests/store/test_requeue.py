"""A finished job starts over; a pending one is set aside and taken up again."""

from __future__ import annotations

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.errors import IllegalMove, JobNotFound, UniqueTaken
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import FINISHED, UNFINISHED, State
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.making import GONE, claim, enqueue, job_in, life, record, running


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_requeued_job_is_as_new(
    store: Store, clock: MovableClock, told: list[Event], state: State
) -> None:
    number = job_in(store, state, expires_in_ms=1_000)
    clock.move(60_000)
    store.requeue(number)
    row = store.get(number)
    assert (row.state, row.attempt, row.losses) == (State.PENDING, 0, 0)
    assert row.run_at == to_datetime(START_MS + 60_000)
    assert (row.result, row.error, row.owner, row.claim, row.deferred) == (None,) * 5
    assert (row.claimed_at, row.started_at, row.finished_at, row.expires_at) == (None,) * 4
    assert [event.job for event in told if event.verb == "requeue"] == [number]
    (again,) = claim(store, life())
    assert (again.id, again.attempt) == (number, 1)


def test_a_requeued_job_keeps_its_history(store: Store) -> None:
    number = job_in(store, State.FAILED)
    store.requeue(number)
    assert len(store.attempts(number)) == 1
    who = life()
    (again,) = claim(store, who)
    store.apply([record(who, 1, again, "fail")], who)
    assert [attempt.attempt for attempt in store.attempts(number)] == [1, 1]


@pytest.mark.parametrize("verb", ["fail", "cancel", "succeed"])
def test_a_requeued_job_keeps_how_far_it_had_come_unless_it_had_come_to_its_end(
    store: Store, verb: str
) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, verb)._replace(progress='{"done": 1}')], who)
    store.requeue(job.id)
    assert store.get(job.id).progress == (None if verb == "succeed" else {"done": 1})


def test_a_requeued_job_may_lose_its_worker_again(store: Store) -> None:
    number = enqueue(store)
    for _ in range(4):
        who = life()
        claim(store, who)
        store.vanish(who.owner, GONE)
    assert store.get(number).state is State.FAILED
    store.requeue(number)
    who = life()
    claim(store, who)
    store.vanish(who.owner, GONE)
    assert (store.get(number).state, store.get(number).losses) == (State.PENDING, 1)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_an_unfinished_job_cannot_be_requeued(store: Store, state: State) -> None:
    number = job_in(store, state)
    before = store.get(number)
    with pytest.raises(IllegalMove, match=f"job {number} is {state}; only a finished job"):
        store.requeue(number)
    assert store.get(number) == before


def test_a_job_that_does_not_exist_cannot_be_requeued(store: Store) -> None:
    with pytest.raises(JobNotFound):
        store.requeue(404)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_a_requeue_is_refused_while_another_job_holds_the_key(store: Store, state: State) -> None:
    number = job_in(store, State.FAILED, unique_key="key")
    holder = job_in(store, state, unique_key="key")
    with pytest.raises(UniqueTaken, match=f"job {holder} holds its unique key 'key'") as caught:
        store.requeue(number)
    assert caught.value.holder == holder
    assert store.get(number).state is State.FAILED


def test_a_requeued_job_holds_its_unique_key_again(store: Store) -> None:
    number = job_in(store, State.SUCCEEDED, unique_key="key")
    store.requeue(number)
    who, _other = running(store, queue="other")
    assert who
    assert enqueue(store, unique_key="key") == number


def test_a_refused_requeue_spoils_nothing_else_of_its_transaction(store: Store) -> None:
    failed = job_in(store, State.FAILED, unique_key="key")
    enqueue(store, unique_key="key")
    with store.transaction():
        before = enqueue(store)
        with pytest.raises(UniqueTaken):
            store.requeue(failed)
        after = enqueue(store)
    assert {store.get(number).state for number in (before, after)} == {State.PENDING}


# -- block and unblock


def test_a_blocked_job_is_not_claimed_until_it_is_unblocked(
    store: Store, told: list[Event]
) -> None:
    number = enqueue(store)
    assert store.block(number) is True
    assert claim(store, life()) == []
    assert store.unblock(number) is True
    assert [event.verb for event in told] == ["enqueue", "block", "unblock"]
    assert [job.id for job in claim(store, life())] == [number]


@pytest.mark.parametrize("state", [one for one in State if one is not State.PENDING])
def test_only_a_pending_job_is_blocked(store: Store, state: State) -> None:
    number = job_in(store, state)
    before = store.get(number)
    assert store.block(number) is False
    assert store.get(number) == before


@pytest.mark.parametrize("state", [one for one in State if one is not State.BLOCKED])
def test_only_a_blocked_job_is_unblocked(store: Store, state: State) -> None:
    number = job_in(store, state)
    before = store.get(number)
    assert store.unblock(number) is False
    assert store.get(number) == before


def test_neither_finds_a_job_that_does_not_exist(store: Store) -> None:
    assert (store.block(404), store.unblock(404)) == (False, False)
