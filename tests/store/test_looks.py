"""What is asked of many rows at once: counts, histories, the names of queues and tasks."""

from __future__ import annotations

import pytest

from jobvisor.jobs.events import Event
from jobvisor.jobs.job import MOVES, State
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.finding import LATENCY_OF
from jobvisor.jobs.store.relational import JOBS_AT_ONCE
from jobvisor.jobs.store.settlement import HISTORY_MAX, TRIMMED_EVERY
from tests.clock import MovableClock
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


def test_the_unfinished_are_counted_without_the_finished(store: Store) -> None:
    # The pending last: a claim would take it.
    for state in sorted(State, key=lambda state: state is State.PENDING):
        job_in(store, state, queue="mail")
    enqueue(store, queue="other")
    assert store.unfinished() == {
        "mail": {"scheduled": 1, "pending": 1, "blocked": 1, "running": 1},
        "other": {"pending": 1},
    }


def test_the_queues_with_pending_jobs_are_found_however_many_jobs_they_have(store: Store) -> None:
    assert store.pending_queues() == []
    for queue in ("b", "a", "b", "c"):
        enqueue(store, queue=queue)
    enqueue(store, queue="later", run_in_ms=60_000)
    assert store.pending_queues() == ["a", "b", "c"]
    assert store.pending_queues(2) == ["a", "b"]


def test_the_latency_of_queues_is_that_of_the_longest_waiting_of_what_is_claimed_first(
    store: Store, clock: MovableClock
) -> None:
    assert store.latency(["default", "mail"]) == 0
    enqueue(store, queue="other")
    enqueue(store, queue="mail", run_in_ms=600_000)
    clock.move(300)
    enqueue(store, queue="mail")
    clock.move(70)
    enqueue(store)
    assert [store.latency(queues) for queues in ([], ["default"], ["default", "mail"])] == [
        0,
        0,
        70,
    ]
    store.enqueue([new(queue="mail", priority=1)] * LATENCY_OF)
    clock.move(5)
    assert store.latency(["mail"]) == 5  # claims come to the one that waits for longer after those


def test_the_histories_of_many_jobs_come_in_one_call(store: Store) -> None:
    ids = []
    for _ in range(3):
        who, job = running(store)
        store.apply([record(who, 1, job, "retry")], who)
        ids.append(job.id)
    ids.append(enqueue(store))
    found = store.attempts_of([*ids, ids[0]])
    assert list(found) == ids
    assert store.attempts_of([2**63, 0, -1]) == {2**63: [], 0: [], -1: []}
    assert found == {job: store.attempts(job) for job in ids}
    assert [len(runs) for runs in found.values()] == [1, 1, 1, 0]


def test_many_jobs_are_had_at_once_in_the_order_asked_without_those_that_are_not_there(
    store: Store,
) -> None:
    ids = [number for number, _ in store.enqueue([new()] * (JOBS_AT_ONCE + 3))]
    asked = [ids[-1], 10**9, ids[0], -1, 0, 2**63, *ids[1:-1], ids[0]]
    found = store.get_many(asked)
    assert list(found) == [ids[-1], ids[0], *ids[1:-1]]
    assert found[ids[7]] == store.get(ids[7])
    assert store.get_many([]) == {}


@pytest.mark.parametrize("deferred", ["retry", "snooze"])
def test_a_drain_waits_for_what_a_run_put_off(store: Store, deferred: str) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, deferred)], who)
    assert store.has_work(["default"], 1)
    store.cancel(job.id)
    assert not store.has_work(["default"], 1)


def test_the_history_of_one_job_is_bounded(store: Store) -> None:
    job = enqueue(store, attempts_max=10_000)
    runs = HISTORY_MAX + 3 * TRIMMED_EVERY
    for _ in range(runs):
        who = life()
        (claimed,) = claim(store, who)
        store.apply([record(who, 1, claimed, "retry", delay_ms=0)], who)
    kept = store.attempts(job)
    assert HISTORY_MAX <= len(kept) < HISTORY_MAX + TRIMMED_EVERY
    assert kept[-1].attempt == runs


def test_a_history_of_runs_given_back_is_bounded_too(store: Store) -> None:
    job = enqueue(store)
    for _ in range(HISTORY_MAX + 2):
        who = life()
        claim(store, who)
        store.give_back(job, who.owner, held(store, job, who), STOPPED)
    assert len(store.attempts(job)) == HISTORY_MAX
    for _ in range(2):
        who = life()
        claim(store, who)
        store.give_back_all(who.owner, [(job, 1, STOPPED)])
    assert len(store.attempts(job)) == HISTORY_MAX


def test_a_history_of_a_job_that_is_requeued_for_ever_is_bounded_too(store: Store) -> None:
    job = enqueue(store, attempts_max=1)
    for _ in range(HISTORY_MAX + 2):
        who = life()
        (claimed,) = claim(store, who)
        store.apply([record(who, 1, claimed, "fail")], who)
        store.requeue(job)
    assert len(store.attempts(job)) == HISTORY_MAX


def test_a_job_that_a_death_ends_is_told_as_failed(store: Store, told: list[Event]) -> None:
    who, job = running(store)
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, None)
    other, lost = running(store)
    told.clear()
    for _ in range(3):
        store.vanish(other.owner, GONE)
        other = life()
        claim(store, other)
    store.vanish(other.owner, GONE)
    assert [event.verb for event in told if event.job == lost.id] == ["rescue"] * 3 + ["fail"]
    assert store.get(job.id).state == store.get(lost.id).state == "failed"


def test_a_crash_without_a_further_attempt_is_told_as_failed(
    store: Store, told: list[Event]
) -> None:
    who, job = running(store)
    told.clear()
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, None)
    assert [(event.verb, event.kind, event.error) for event in told] == [
        ("fail", "crash", CRASH.text)
    ]


def test_a_running_job_has_its_start_and_one_given_back_has_none(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    began = store.get(job.id).started_at
    assert began is not None
    assert began == store.get(job.id).claimed_at
    clock.move(1_000)
    store.release_rest(who.owner)
    assert store.get(job.id).started_at is None
    for verb in ("release", "snooze"):
        again = life()
        (claimed,) = claim(store, again)
        store.apply([record(again, 1, claimed, verb, delay_ms=0)], again)
        assert store.get(job.id).started_at is None
    last = life()
    (claimed,) = claim(store, last)
    clock.move(5_000)
    store.apply([record(last, 1, claimed, duration_ms=200)], last)
    done = store.get(job.id)
    assert done.started_at is not None
    assert done.finished_at is not None
    assert (done.finished_at - done.started_at).total_seconds() == 0.2


@pytest.mark.parametrize("verb", ["snooze", "release"])
def test_an_end_that_was_settled_by_a_recall_is_no_lost_claim(store: Store, verb: str) -> None:
    who, job = running(store)
    ended = record(who, 1, job, verb, delay_ms=0)
    assert store.apply([ended], who).changed == 1
    claim(store, life())  # another has it by the time that the worker settles its own journal
    assert store.apply([ended], who).lost == []


def test_what_unblock_does_stands_in_the_table_of_moves(store: Store) -> None:
    job = job_in(store, State.BLOCKED)
    assert store.unblock(job)
    moves = {to for _from, to in MOVES["unblock"]}
    assert store.get(job).state in moves
    assert State.SCHEDULED in moves
