"""A life ends before its jobs do: who pays, what goes back, and what is written on the attempt."""

from __future__ import annotations

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import State
from jobvisor.jobs.retry import Fixed, policy_json
from jobvisor.jobs.store import Rest, Store
from jobvisor.jobs.store.base import Death, Held
from tests.clock import START_MS, MovableClock
from tests.store.making import (
    CRASH,
    GONE,
    STOPPED,
    claim,
    enqueue,
    held,
    life,
    record,
    running,
)

# -- held


def test_a_held_row_tells_what_its_settler_needs(store: Store, clock: MovableClock) -> None:
    policy = policy_json(Fixed("5s"))
    clock.move(5)
    who, job = running(
        store, policy=policy, attempts_max=2, timeout_ms=30_000, memory_bytes=1 << 20
    )
    store.cancel(job.id)
    assert store.held(job.id, who.owner, 1) == Held(1, 2, policy, 1, 30_000, 1 << 20)


def test_a_row_is_held_only_under_its_whole_fence(store: Store) -> None:
    who, job = running(store)
    assert store.held(job.id, who.owner, 2) is None
    assert store.held(job.id, who.owner + 1, 1) is None
    assert store.held(job.id + 1, who.owner, 1) is None
    store.apply([record(who, 1, job)], who)
    assert store.held(job.id, who.owner, 1) is None


# -- rescue: the current job of a dead life is charged


def test_a_rescued_job_runs_again_after_its_delay_and_is_charged(
    store: Store, clock: MovableClock, told: list[Event]
) -> None:
    who, job = running(store)
    clock.move(700)
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, 2_000)
    row = store.get(job.id)
    assert (row.state, row.attempt, row.deferred) == (State.SCHEDULED, 1, "retry")
    assert row.run_at == to_datetime(START_MS + 2_700)
    assert row.error == CRASH.text
    assert [(e.verb, e.job, e.kind) for e in told if e.verb == "rescue"] == [
        ("rescue", job.id, "crash")
    ]
    clock.move(2_000)
    assert claim(store, life())[0].attempt == 2


def test_a_rescue_without_delay_is_pending_at_once(store: Store) -> None:
    who, job = running(store)
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, 0)
    assert store.get(job.id).state is State.PENDING


def test_a_rescue_for_good_fails_the_job(store: Store, clock: MovableClock) -> None:
    who, job = running(store, attempts_max=1)
    clock.move(9)
    store.rescue(job.id, who.owner, held(store, job.id, who), CRASH, None)
    row = store.get(job.id)
    assert (row.state, row.error, row.attempt) == (State.FAILED, CRASH.text, 1)
    assert row.finished_at == to_datetime(START_MS + 9)


def test_a_rescue_writes_the_cause_of_death_on_the_attempt(
    store: Store, clock: MovableClock
) -> None:
    clock.move(100)
    who, job = running(store)
    clock.move(100)
    death = Death("timeout", "killed at its timeout of 5 s", "there", 99, 3, "SIGKILL", "timeout")
    store.rescue(job.id, who.owner, held(store, job.id, who), death, 0)
    (attempt,) = store.attempts(job.id)
    assert (attempt.attempt, attempt.owner, attempt.claim) == (1, who.owner, 1)
    assert (attempt.outcome, attempt.message) == ("timeout", "killed at its timeout of 5 s")
    assert (attempt.error_type, attempt.traceback) == (None, None)
    assert (attempt.host, attempt.pid) == ("there", 99)
    assert (attempt.exit_code, attempt.signal, attempt.verdict) == (3, "SIGKILL", "timeout")
    assert attempt.started_at == to_datetime(START_MS + 100)
    assert attempt.finished_at == to_datetime(START_MS + 200)


def test_a_second_rescue_of_one_run_changes_nothing(store: Store) -> None:
    who, job = running(store)
    row = held(store, job.id, who)
    store.rescue(job.id, who.owner, row, CRASH, 0)
    claim(store, life())
    before = store.get(job.id)
    store.rescue(job.id, who.owner, row, CRASH, 0)
    assert store.get(job.id) == before
    assert len(store.attempts(job.id)) == 1


def test_a_rescue_that_comes_after_the_outcome_changes_nothing(
    store: Store, told: list[Event]
) -> None:
    who, job = running(store)
    row = held(store, job.id, who)
    store.apply([record(who, 1, job)], who)
    store.rescue(job.id, who.owner, row, CRASH, None)
    assert store.get(job.id).state is State.SUCCEEDED
    assert store.attempts(job.id) == []
    assert "rescue" not in [event.verb for event in told]


# -- give back: killed by us, for no fault of its own


def test_a_job_given_back_is_uncharged_with_its_history(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    clock.move(50)
    store.give_back(job.id, who.owner, held(store, job.id, who), STOPPED)
    row = store.get(job.id)
    assert (row.state, row.attempt, row.error) == (State.PENDING, 0, None)
    (attempt,) = store.attempts(job.id)
    assert (attempt.outcome, attempt.attempt, attempt.verdict) == ("stopped", 1, "stop")
    assert attempt.message == STOPPED.text
    assert attempt.started_at == to_datetime(START_MS)
    assert attempt.finished_at == to_datetime(START_MS + 50)


def test_a_job_given_back_often_keeps_each_time_in_its_history(store: Store) -> None:
    number = enqueue(store)
    for _ in range(3):
        who = life()
        claim(store, who)
        store.give_back(number, who.owner, held(store, number, who), STOPPED)
    assert [attempt.attempt for attempt in store.attempts(number)] == [1, 1, 1]


def test_a_give_back_that_comes_after_the_outcome_changes_nothing(store: Store) -> None:
    who, job = running(store)
    row = held(store, job.id, who)
    store.apply([record(who, 1, job, "fail")], who)
    store.give_back(job.id, who.owner, row, STOPPED)
    assert store.get(job.id).state is State.FAILED
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["error"]


def test_many_are_given_back_at_once_each_with_its_own_history(store: Store) -> None:
    ids = [enqueue(store) for _ in range(5)]
    who = life()
    claim(store, who, 1, limit=3)
    claim(store, who, 2, limit=2)
    store.cancel(ids[1])
    told = [STOPPED._replace(text=f"of {number}") for number in ids]
    runs = [(number, 1, death) for number, death in zip(ids[:2], told, strict=False)]
    runs += [(ids[2], 2, told[2]), (ids[3], 2, told[3])]  # of the third it is another claim
    assert store.give_back_all(who.owner + 1, runs) == []
    assert sorted(store.give_back_all(who.owner, runs)) == [ids[0], ids[1], ids[3]]
    found = [store.get(number) for number in ids]
    assert [job.state.value for job in found] == [
        "pending", "cancelled", "running", "pending", "running",
    ]  # fmt: skip
    assert [job.attempt for job in found] == [0, 0, 1, 0, 1]
    history = [[(a.message, a.attempt) for a in store.attempts(number)] for number in ids]
    expected = [[(f"of {number}", 1)] for number in ids]
    assert history == [expected[0], expected[1], [], expected[3], []]
    assert store.give_back_all(who.owner, runs) == []
    assert store.give_back_all(who.owner, []) == []


# -- release_rest: what had not started goes back untouched


def test_the_rest_of_an_owner_goes_back_untouched(store: Store, told: list[Event]) -> None:
    ids = [enqueue(store) for _ in range(4)]
    who, other = life(), life()
    claim(store, who, 1, limit=2)
    claim(store, other, 1, limit=1)
    told.clear()
    assert store.release_rest(who.owner) == 2
    assert [store.get(number).state for number in ids] == [
        "pending", "pending", "running", "pending",
    ]  # fmt: skip
    assert {store.get(number).attempt for number in ids[:2]} == {0}
    assert all(store.attempts(number) == [] for number in ids)
    assert sorted((event.verb, event.job) for event in told) == [
        ("release", ids[0]), ("release", ids[1]),
    ]  # fmt: skip
    assert store.release_rest(who.owner) == 0


def test_the_current_job_is_left_alone(store: Store) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    claim(store, who)
    assert store.release_rest(who.owner, Rest(held=(ids[1],))) == 2
    assert [store.get(n).state for n in ids] == ["pending", "running", "pending"]


def test_a_recall_touches_only_its_claim(store: Store) -> None:
    ids = [enqueue(store) for _ in range(4)]
    who = life()
    claim(store, who, 1, limit=2)
    claim(store, who, 2, limit=2)
    assert store.release_rest(who.owner, Rest((2,), (ids[2],))) == 1
    assert [store.get(n).state for n in ids] == ["running", "running", "running", "pending"]


def test_several_claims_are_released_but_for_all_that_is_held(store: Store) -> None:
    ids = [enqueue(store) for _ in range(6)]
    who = life()
    for number in (1, 2, 3):
        claim(store, who, number, limit=2)
    rest = Rest(claims=(1, 3), held=(ids[1], ids[4]))
    assert store.release_rest(who.owner, rest) == 2
    states = [store.get(number).state.value for number in ids]
    assert states == ["pending", "running", "running", "running", "running", "pending"]
    assert store.release_rest(who.owner, Rest(claims=())) == 0


def test_a_turn_releases_the_rest_of_a_lost_claim_alone(store: Store) -> None:
    ids = [enqueue(store) for _ in range(4)]
    who = life()
    claim(store, who, 1, limit=2)
    claim(store, who, 2, limit=1)  # its answer was lost
    turn = store.turn(who, 3, queues=["default"], limit=1, rest=Rest(claims=(2,)))
    assert [job.id for job in turn.jobs] == [ids[2]]
    states = [store.get(number).state.value for number in ids]
    assert states == ["running", "running", "running", "pending"]


def test_the_order_of_a_queue_survives_a_release(store: Store) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    claim(store, who)
    enqueue(store)
    store.release_rest(who.owner)
    assert [job.id for job in claim(store, life(), limit=3)] == ids


# -- vanish: no evidence of what had been started


def test_the_rows_of_a_vanished_life_go_back_uncharged(
    store: Store, clock: MovableClock, told: list[Event]
) -> None:
    ids = [enqueue(store) for _ in range(2)]
    who = life()
    claim(store, who)
    clock.move(30)
    assert store.vanish(who.owner, GONE) == 2
    for number in ids:
        row = store.get(number)
        assert (row.state, row.attempt, row.losses) == (State.PENDING, 0, 1)
        (attempt,) = store.attempts(number)
        assert (attempt.outcome, attempt.attempt, attempt.message) == ("vanished", 1, GONE.text)
        assert (attempt.owner, attempt.claim, attempt.pid) == (who.owner, 1, GONE.pid)
        assert attempt.started_at == to_datetime(START_MS)
        assert attempt.finished_at == to_datetime(START_MS + 30)
    assert [(e.verb, e.kind) for e in told if e.verb == "rescue"] == [("rescue", "vanished")] * 2
    assert store.vanish(who.owner, GONE) == 0


def test_the_fourth_vanished_worker_fails_the_job(store: Store) -> None:
    number = enqueue(store, attempts_max=100)
    for losses in (1, 2, 3):
        who = life()
        claim(store, who)
        store.vanish(who.owner, GONE)
        assert (store.get(number).state, store.get(number).losses) == (State.PENDING, losses)
    who = life()
    claim(store, who)
    store.vanish(who.owner, GONE)
    row = store.get(number)
    assert (row.state, row.losses) == (State.FAILED, 4)
    assert row.error == "its worker vanished 4 times"
    assert row.finished_at is not None
    assert len(store.attempts(number)) == 4


def test_losses_are_counted_over_other_ends(store: Store) -> None:
    number = enqueue(store)
    for verb in ("release", "snooze"):
        who = life()
        claim(store, who)
        store.vanish(who.owner, GONE)
        who = life()
        (job,) = claim(store, who)
        store.apply([record(who, 1, job, verb, delay_ms=0)], who)
    assert store.get(number).losses == 2


def test_one_row_alone_can_vanish(store: Store) -> None:
    ids = [enqueue(store) for _ in range(2)]
    who = life()
    claim(store, who)
    assert store.vanish(who.owner, GONE, ids[1]) == 1
    assert [store.get(number).state for number in ids] == ["running", "pending"]


def test_a_finished_row_of_a_vanished_life_stays_finished(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job)], who)
    assert store.vanish(who.owner, GONE) == 0
    assert store.get(job.id).state is State.SUCCEEDED


# -- attempts have an end


def test_a_job_that_kills_each_worker_ends_after_its_attempts(store: Store) -> None:
    number = enqueue(store, attempts_max=3)
    starts = 0
    while store.get(number).state is State.PENDING:
        who = life()
        claim(store, who)
        starts += 1
        row = held(store, number, who)
        store.rescue(number, who.owner, row, CRASH, 0 if row.attempt < row.attempts_max else None)
    assert (starts, store.get(number).state) == (3, State.FAILED)


# -- who owns what


def test_an_owner_owns_rows_while_they_run(store: Store) -> None:
    who, job = running(store)
    assert store.look(["default"], who.owner).owned
    assert not store.look(["default"], who.owner + 1).owned
    assert not store.look(["default"]).owned
    store.apply([record(who, 1, job)], who)
    assert not store.look(["default"], who.owner).owned


def test_rows_of_unknown_owners_are_found_once_they_are_old(
    store: Store, clock: MovableClock
) -> None:
    known, unknown = life(), life()
    for who in (known, unknown):
        enqueue(store)
        enqueue(store)
        store.turn(who, 1, queues=["default"], limit=2, register=who is known)
    clock.move(1_000)
    assert store.ownerless(1_000) == []
    clock.move(1)
    assert store.ownerless(1_000) == [unknown.owner]
    store.vanish(unknown.owner, GONE)
    assert store.ownerless(1_000) == []


def test_a_removed_owners_rows_are_ownerless(store: Store, clock: MovableClock) -> None:
    enqueue(store)
    who = life()
    store.turn(who, 1, queues=["default"], limit=1, register=True)
    clock.move(10)
    assert store.ownerless(0) == []
    store.remove_owner(who.owner)
    assert store.ownerless(0) == [who.owner]


@pytest.mark.parametrize("death", [CRASH, STOPPED, GONE], ids=lambda death: death.outcome)
def test_settling_a_life_twice_changes_nothing_the_second_time(store: Store, death: Death) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    first, current, _rest = claim(store, who)

    def settle() -> None:
        with store.transaction():
            store.apply([record(who, 1, first)], who)
            row = store.held(current.id, who.owner, 1)
            if row is not None and death is CRASH:
                store.rescue(current.id, who.owner, row, death, 0)
            elif row is not None and death is STOPPED:
                store.give_back(current.id, who.owner, row, death)
            elif row is not None:
                store.vanish(who.owner, death, current.id)
            store.release_rest(who.owner)
            store.remove_owner(who.owner)

    settle()
    before = [(store.get(number), store.attempts(number)) for number in ids]
    assert [job.state for job, _history in before] == ["succeeded", "pending", "pending"]
    settle()
    assert [(store.get(number), store.attempts(number)) for number in ids] == before
