"""Rows fall due, are seen, and are claimed in their order."""

from __future__ import annotations

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Rest, Store
from tests.clock import START_MS, MovableClock
from tests.store.database import Database
from tests.store.making import claim, enqueue, job_in, life, new, record, running

# -- order


def test_a_queue_is_claimed_by_priority_and_then_by_id(store: Store) -> None:
    ids = {
        (priority, turn): enqueue(store, priority=priority)
        for turn in (0, 1)
        for priority in (0, 5, -5)
    }
    wanted = [ids[priority, turn] for priority in (5, 0, -5) for turn in (0, 1)]
    assert [job.id for job in claim(store, life())] == wanted


def test_queues_are_claimed_in_the_order_listed_whatever_the_priorities(store: Store) -> None:
    low = enqueue(store, queue="second", priority=100)
    first = enqueue(store, queue="first", priority=-100)
    assert [job.id for job in claim(store, life(), queues=["first", "second"])] == [first, low]


def test_a_full_batch_leaves_the_later_queues_alone(store: Store) -> None:
    first = [enqueue(store, queue="first") for _ in range(2)]
    later = enqueue(store, queue="second")
    assert [j.id for j in claim(store, life(), limit=2, queues=["first", "second"])] == first
    assert store.get(later).state is State.PENDING


def test_only_the_listed_queues_are_claimed(store: Store) -> None:
    enqueue(store, queue="other")
    assert claim(store, life(), queues=["default"]) == []
    assert claim(store, life(), queues=[]) == []


def test_a_claim_takes_at_most_its_limit(store: Store) -> None:
    ids = [enqueue(store) for _ in range(5)]
    assert [job.id for job in claim(store, life(), limit=3)] == ids[:3]


def test_a_turn_of_limit_zero_only_settles(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    pending, due = enqueue(store), enqueue(store, run_in_ms=1)
    clock.move(1)
    turn = store.turn(who, 2, queues=["default"], limit=0, journal=[record(who, 1, job)])
    assert (turn.jobs, turn.applied.changed) == ([], 1)
    assert [store.get(number).state for number in (pending, due)] == ["pending", "scheduled"]


@pytest.mark.parametrize("state", [one for one in State if one is not State.PENDING])
def test_only_pending_rows_are_claimed(store: Store, state: State) -> None:
    number = job_in(store, state)
    assert claim(store, life()) == []
    assert store.get(number).state is state


# -- what a claim leaves in the row


def test_a_claim_counts_the_attempt_and_names_its_owner(store: Store, clock: MovableClock) -> None:
    enqueue(store, policy='{"kind":"fixed"}', timeout_ms=5, memory_bytes=6, expires_in_ms=7)
    clock.move(3)
    who = life()
    (job,) = claim(store, who, 12)
    assert (job.attempt, job.attempts_max, job.claims) == (1, 4, 1)
    assert (job.policy, job.timeout_ms, job.memory_bytes) == ('{"kind":"fixed"}', 5, 6)
    assert job.expires_in_ms == 4
    row = store.get(job.id)
    assert (row.state, row.owner, row.claim) == (State.RUNNING, who.owner, 12)
    assert row.claimed_at == to_datetime(START_MS + 3)


def test_claims_count_the_attempts_that_were_given_back_too(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "release")], who)
    (again,) = claim(store, who, 2)
    assert (again.attempt, again.claims) == (1, 2)


def test_a_claim_keeps_the_progress_of_the_run_before_and_forgets_the_reason_of_its_delay(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    store.progress(job.id, who.owner, 1, '{"done":1}')
    store.apply([record(who, 1, job, "retry")], who)
    assert store.get(job.id).deferred == "retry"
    clock.move(60_000)
    claim(store, who, 2)
    row = store.get(job.id)
    assert (row.deferred, row.progress) == (None, {"done": 1})


def test_two_claims_never_share_a_row(database: Database, store: Store) -> None:
    for _ in range(20):
        enqueue(store)
    other = database.open()
    mine, others = life(), life()
    taken = [
        job.id
        for turn in range(1, 6)
        for who, door in ((mine, store), (others, other))
        for job in claim(door, who, turn, limit=3)
    ]
    assert len(taken) == len(set(taken)) == 20


# -- promote and look


def test_promote_moves_what_is_due_and_nothing_else(store: Store, clock: MovableClock) -> None:
    due = [enqueue(store, run_in_ms=ms) for ms in (30, 10, 20)]
    ahead = enqueue(store, run_in_ms=31)
    clock.move(30)
    assert store.promote() == 3
    assert {store.get(number).state for number in due} == {State.PENDING}
    assert store.get(ahead).state is State.SCHEDULED
    assert store.promote() == 0


def test_a_million_due_rows_do_not_make_one_long_turn(store: Store, clock: MovableClock) -> None:
    store.enqueue([new(run_in_ms=1) for _ in range(1_001)])
    clock.move(1)
    assert (store.promote(), store.promote()) == (1_000, 1)


def test_a_clock_set_back_holds_a_scheduled_row_back(store: Store, clock: MovableClock) -> None:
    number = enqueue(store, run_in_ms=1_000)
    clock.move(-3_600_000)
    assert store.promote() == 0
    clock.move(3_601_000)
    assert [job.id for job in claim(store, life())] == [number]


def test_a_look_sees_pending_rows_of_the_queues_asked_for(store: Store) -> None:
    enqueue(store, queue="mail")
    assert store.look(["other", "mail"])[:2] == (True, 0)
    assert store.look(["other"])[:2] == (False, None)


def test_a_look_tells_when_the_next_row_is_due(store: Store, clock: MovableClock) -> None:
    for ms in (900, 500):
        enqueue(store, run_in_ms=ms)
    assert store.look(["default"])[:2] == (False, 500)
    clock.move(499)
    assert store.look(["default"])[:2] == (False, 1)
    clock.move(2)
    assert store.look(["default"])[:2] == (True, 0)


# -- a whole turn


def test_a_turn_settles_what_was_run_before_it_claims(store: Store) -> None:
    who, job = running(store)
    journal = [record(who, 1, job, "release")]
    turn = store.turn(who, 2, queues=["default"], limit=1, journal=journal)
    assert [claimed.id for claimed in turn.jobs] == [job.id]
    assert turn.applied.changed == 1
    assert store.get(job.id).claim == 2


def test_a_turn_that_is_unsure_gives_back_what_it_owns_and_does_not_hold(store: Store) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    first = claim(store, who)[0]
    turn = store.turn(
        who, 2, queues=["default"], limit=1, journal=[record(who, 1, first)], rest=Rest()
    )
    assert [job.id for job in turn.jobs] == [ids[1]]
    assert turn.jobs[0].attempt == 1
    assert [store.get(number).state for number in ids] == ["succeeded", "running", "pending"]
    assert store.get(ids[2]).attempt == 0


def test_a_first_turn_registers_its_life_once(store: Store) -> None:
    who = life(family=3)
    for number in (1, 2):
        store.turn(who, number, queues=["default"], limit=1, register=True)
    assert store.owners(3) == [who]


def test_a_turn_without_register_leaves_no_owner(store: Store) -> None:
    who = life(family=3)
    store.turn(who, 1, queues=["default"], limit=1)
    assert store.owners(3) == []


def test_a_turn_can_forget_what_succeeded(store: Store, told: list[Event]) -> None:
    who, job = running(store)
    store.turn(
        who, 2, queues=["default"], limit=1, journal=[record(who, 1, job)], forget_succeeded=True
    )
    assert store.find() == []


def test_forgetting_successes_keeps_failures(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "fail")], who, forget_succeeded=True)
    assert store.get(job.id).state is State.FAILED


# -- how long they had waited


def test_a_claim_tells_how_long_each_job_had_been_due_to_who_asks(
    store: Store, clock: MovableClock
) -> None:
    enqueue(store)
    clock.move(250)
    enqueue(store, run_in_ms=1_000)
    assert [job.waited_ms for job in claim(store, life(), number=1)] == [None]
    store.tell_waits()
    enqueue(store)
    clock.move(1_000)
    waits = {job.waited_ms for job in claim(store, life(), number=2, limit=60)}
    assert waits == {0, 1_000}
    ids = [enqueue(store) for _ in range(20)]
    told = {job.id: job.waited_ms for job in claim(store, life(), number=3, limit=100)}
    assert {told[each] for each in ids if each % 8 == 0} == {
        0
    }  # of a large claim each eighth, at least
