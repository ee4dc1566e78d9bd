"""A job is asked to end: at once where nothing runs, else by the next statement that ends its run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.errors import IllegalMove, JobNotFound
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import FINISHED, Claimed, State
from jobvisor.jobs.store import Life, Store
from tests.clock import START_MS, MovableClock
from tests.store.making import (
    CRASH,
    GONE,
    STOPPED,
    claim,
    enqueue,
    held,
    job_in,
    life,
    new,
    record,
    running,
)

WAITING = [State.SCHEDULED, State.PENDING, State.BLOCKED]
End = Callable[[Store, Life, Claimed], object]


@pytest.mark.parametrize("state", WAITING)
def test_a_job_that_does_not_run_is_cancelled_at_once(
    store: Store, clock: MovableClock, told: list[Event], state: State
) -> None:
    number = job_in(store, state)
    clock.move(7)
    assert store.cancel(number) == "cancelled"
    row = store.get(number)
    assert (row.state, row.finished_at) == (State.CANCELLED, to_datetime(START_MS + 7))
    assert [(event.verb, event.job) for event in told if event.verb == "cancel"] == [
        ("cancel", number)
    ]


@pytest.mark.parametrize("state", WAITING)
def test_a_cancelled_job_is_never_claimed(store: Store, clock: MovableClock, state: State) -> None:
    number = job_in(store, state)
    store.cancel(number)
    clock.move(3_600_000)
    assert store.unblock(number) is False
    assert claim(store, life()) == []


def test_a_running_job_is_only_asked(store: Store) -> None:
    who, job = running(store)
    assert store.cancelling([who.owner]) == []
    assert store.cancel(job.id) == "requested"
    row = store.get(job.id)
    assert (row.state, row.cancel_requested) == (State.RUNNING, True)
    assert store.cancelling([who.owner]) == [(job.id, who.owner, 1)]
    assert store.cancelling([who.owner + 1]) == []
    assert store.cancel(job.id) == "requested"


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_job_cannot_be_cancelled(store: Store, state: State) -> None:
    number = job_in(store, state)
    before = store.get(number)
    with pytest.raises(IllegalMove, match=f"job {number} is {state} already"):
        store.cancel(number)
    assert store.get(number) == before


def test_a_job_that_does_not_exist_cannot_be_cancelled(store: Store) -> None:
    with pytest.raises(JobNotFound):
        store.cancel(404)


def test_a_cancel_frees_the_unique_key(store: Store) -> None:
    number = enqueue(store, unique_key="key")
    store.cancel(number)
    assert store.enqueue([new(unique_key="key")])[0][1]


# -- what a request decides


def by_record(verb: str) -> End:
    return lambda store, who, job: store.apply([record(who, 1, job, verb)], who)


def by_rescue(delay_ms: int | None) -> End:
    return lambda store, who, job: store.rescue(
        job.id, who.owner, held(store, job.id, who), CRASH, delay_ms
    )


ENDS: dict[str, End] = {
    **{verb: by_record(verb) for verb in ("retry", "snooze", "release", "cancel", "fail")},
    "rescue": by_rescue(1_000),
    "rescue at once": by_rescue(0),
    "rescue for good": by_rescue(None),
    "give back": lambda store, who, job: store.give_back(
        job.id, who.owner, held(store, job.id, who), STOPPED
    ),
    "give back many": lambda store, who, job: store.give_back_all(
        who.owner, [(job.id, 1, STOPPED)]
    ),
    "vanish": lambda store, who, _job: store.vanish(who.owner, GONE),
    "release the rest": lambda store, who, _job: store.release_rest(who.owner),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_request_makes_whatever_ends_the_run_end_the_job(
    store: Store, clock: MovableClock, end: End
) -> None:
    who, job = running(store, unique_key="key")
    store.cancel(job.id)
    clock.move(9)
    end(store, who, job)
    row = store.get(job.id)
    assert row.state is State.CANCELLED
    assert row.finished_at == to_datetime(START_MS + 9)
    assert store.cancelling([who.owner]) == []
    assert store.enqueue([new(unique_key="key")])[0][1]
    clock.move(3_600_000)
    assert [again.id for again in claim(store, life())] != [job.id]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_whatever_ends_a_run_that_was_asked_to_end_a_cancel_is_told(
    store: Store, told: list[Event], end: End
) -> None:
    who, job = running(store)
    store.cancel(job.id)
    told.clear()
    end(store, who, job)
    assert [(event.verb, event.job, event.delay_ms) for event in told] == [("cancel", job.id, 0)]


@pytest.mark.parametrize("forget", [False, True])
def test_a_success_wins_over_a_request(store: Store, forget: bool) -> None:
    who, job = running(store)
    store.cancel(job.id)
    applied = store.apply([record(who, 1, job, result="1")], who, forget_succeeded=forget)
    assert applied.changed == 1
    assert [row.state for row in store.find()] == ([] if forget else [State.SUCCEEDED])


@pytest.mark.parametrize("verb", ["retry", "fail", "cancel"])
def test_the_error_of_a_run_that_was_asked_to_end_is_kept(store: Store, verb: str) -> None:
    who, job = running(store)
    store.cancel(job.id)
    store.apply([record(who, 1, job, verb)], who)
    assert store.get(job.id).error == "ValueError: broken"
    assert len(store.attempts(job.id)) == 1


def test_a_request_under_another_fence_ends_nothing(store: Store) -> None:
    who, job = running(store)
    store.cancel(job.id)
    store.apply([record(who, 2, job, "release")], who)
    assert store.get(job.id).state is State.RUNNING


def test_a_request_is_forgotten_by_a_requeue(store: Store) -> None:
    who, job = running(store)
    store.cancel(job.id)
    store.apply([record(who, 1, job, "release")], who)
    store.requeue(job.id)
    (again,) = claim(store, life())
    assert store.get(again.id).cancel_requested is False
