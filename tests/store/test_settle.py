"""A run ends: what its record does to the row, under which fence, and how often."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import State
from jobvisor.jobs.outcome import VERB_CODES, Failure
from jobvisor.jobs.store import Applied, Record, Store
from jobvisor.jobs.store.base import NOTHING
from tests.clock import START_MS, MovableClock
from tests.store.database import Database
from tests.store.making import (
    BROKEN,
    CRASH,
    GONE,
    claim,
    enqueue,
    held,
    life,
    new,
    record,
    running,
)

VERBS = sorted(VERB_CODES)
ENDS = {
    "succeed": State.SUCCEEDED,
    "retry": State.SCHEDULED,
    "snooze": State.SCHEDULED,
    "fail": State.FAILED,
    "release": State.PENDING,
    "cancel": State.CANCELLED,
}

# -- each verb


def test_a_success_keeps_its_result_and_times(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    clock.move(500)
    store.apply([record(who, 1, job, result='{"n":1}', age_ms=100, duration_ms=30)], who)
    row = store.get(job.id)
    assert (row.state, row.result, row.error, row.attempt) == (State.SUCCEEDED, {"n": 1}, None, 1)
    assert row.finished_at == to_datetime(START_MS + 400)
    assert row.started_at == to_datetime(START_MS + 370)
    assert store.attempts(job.id) == []


def test_a_retry_waits_its_delay_and_keeps_the_attempt(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "retry", delay_ms=5_000)], who)
    row = store.get(job.id)
    assert (row.state, row.attempt, row.deferred) == (State.SCHEDULED, 1, "retry")
    assert (row.error, row.finished_at) == ("ValueError: broken", None)
    clock.move(4_999)
    assert claim(store, who, 2) == []
    clock.move(1)
    assert claim(store, who, 2)[0].attempt == 2


def test_the_delay_of_a_retry_counts_from_the_end_of_the_run(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    clock.move(10_000)
    store.apply([record(who, 1, job, "retry", delay_ms=5_000, age_ms=2_000)], who)
    assert store.get(job.id).run_at == to_datetime(START_MS + 13_000)


def test_a_retry_whose_delay_has_passed_is_pending_at_once(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    clock.move(10_000)
    store.apply([record(who, 1, job, "retry", delay_ms=5_000, age_ms=5_000)], who)
    assert store.get(job.id).state is State.PENDING


def test_a_snooze_gives_the_attempt_back(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "snooze", delay_ms=1_000, deferred="unknown")], who)
    row = store.get(job.id)
    assert (row.state, row.attempt, row.deferred) == (State.SCHEDULED, 0, "unknown")
    assert row.run_at == to_datetime(START_MS + 1_000)
    assert store.attempts(job.id) == []
    clock.move(1_000)
    assert claim(store, who, 2)[0].attempt == 1


def test_a_snooze_after_a_failure_gives_only_its_own_attempt_back(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "retry", delay_ms=0)], who)
    (again,) = claim(store, who, 2)
    store.apply([record(who, 2, again, "snooze")], who)
    assert store.get(job.id).attempt == 1


def test_a_release_puts_the_row_back_as_if_it_had_never_begun(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "release")], who)
    row = store.get(job.id)
    assert (row.state, row.attempt, row.error) == (State.PENDING, 0, None)
    assert store.attempts(job.id) == []
    assert claim(store, life())[0].attempt == 1


def test_a_released_row_is_due_at_once_also_where_the_clock_was_set_back(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    clock.move(-3_600_000)
    store.apply([record(who, 1, job, "release")], who)
    assert store.get(job.id).run_at == to_datetime(START_MS - 3_600_000)
    assert [again.id for again in claim(store, life())] == [job.id]


def test_a_failure_tells_its_error_and_its_history(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    clock.move(100)
    store.apply([record(who, 1, job, "fail", age_ms=40, duration_ms=50, kind="expired")], who)
    row = store.get(job.id)
    assert (row.state, row.error, row.attempt) == (State.FAILED, "ValueError: broken", 1)
    assert row.finished_at == to_datetime(START_MS + 60)
    (attempt,) = store.attempts(job.id)
    assert (attempt.job, attempt.attempt, attempt.outcome) == (job.id, 1, "expired")
    assert (attempt.owner, attempt.claim) == (who.owner, 1)
    assert (attempt.error_type, attempt.message) == ("ValueError", "broken")
    assert (attempt.traceback, attempt.host, attempt.pid) == ("Traceback ...", "here", who.pid)
    assert attempt.started_at == to_datetime(START_MS + 10)
    assert attempt.finished_at == to_datetime(START_MS + 60)


def test_a_cancelled_run_is_cancelled_with_its_history(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "cancel")], who)
    assert store.get(job.id).state is State.CANCELLED
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["cancelled"]


def test_the_history_of_a_job_is_told_oldest_first(store: Store) -> None:
    who, job = running(store)
    for number in (1, 2, 3):
        store.apply([record(who, number, job, "retry", delay_ms=0)], who)
        (job,) = claim(store, who, number + 1)
    store.apply([record(who, 4, job, "fail")], who)
    assert [attempt.attempt for attempt in store.attempts(job.id)] == [1, 2, 3, 4]
    assert [attempt.claim for attempt in store.attempts(job.id)] == [1, 2, 3, 4]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "succeed"])
def test_an_outcome_is_told_once_it_is_committed(
    store: Store, told: list[Event], verb: str
) -> None:
    who, job = running(store)
    told.clear()
    with store.transaction():
        store.apply([record(who, 1, job, verb)], who)
        assert told == []
    assert [(event.verb, event.job) for event in told] == [(verb, job.id)]


# -- the fence: id, state, owner, claim


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("wrong", ["id", "owner", "claim"])
def test_a_record_under_another_fence_changes_nothing(store: Store, verb: str, wrong: str) -> None:
    who, job = running(store)
    before = store.get(job.id)
    entry = record(who, 1, job, verb)
    other = {
        "id": entry._replace(job=job.id + 1),
        "owner": entry._replace(owner=who.owner + 1_000_000),
        "claim": entry._replace(claim=2),
    }[wrong]
    assert store.apply([other], who).changed == 0
    assert store.get(job.id) == before
    assert store.attempts(job.id) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_rescued_job_cannot_be_ended_by_its_first_owner(store: Store, verb: str) -> None:
    first, job = running(store)
    store.rescue(job.id, first.owner, held(store, job.id, first), CRASH, 0)
    second = life()
    claim(store, second)
    before = store.get(job.id)
    assert store.apply([record(first, 1, job, verb)], first).changed == 0
    assert store.get(job.id) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_record_of_an_earlier_claim_of_the_same_owner_changes_nothing(
    store: Store, verb: str
) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "release")], who)
    claim(store, who, 2)
    before = store.get(job.id)
    # The attempt's number is the same again: it is the claim that tells the two runs apart.
    assert before.attempt == job.attempt
    assert store.apply([record(who, 1, job, verb)], who) == NOTHING
    assert store.get(job.id) == before


def test_progress_needs_the_fence_too(store: Store) -> None:
    who, job = running(store)
    assert store.progress(job.id, who.owner, 1, '{"done":3}')
    assert store.get(job.id).progress == {"done": 3}
    assert not store.progress(job.id, who.owner, 2, '{"done":4}')
    assert not store.progress(job.id, who.owner + 1, 1, '{"done":4}')
    store.apply([record(who, 1, job)], who)
    assert not store.progress(job.id, who.owner, 1, '{"done":4}')
    assert store.get(job.id).progress == {"done": 3}


# -- a journal, any number of times, at any later time


def journal_of(store: Store) -> tuple[Any, list[Record]]:
    """One claim whose jobs ended in each of the ways."""
    for _ in VERBS:
        enqueue(store)
    who = life()
    jobs = claim(store, who)
    return who, [record(who, 1, job, verb) for job, verb in zip(jobs, VERBS, strict=True)]


def test_a_journal_settles_each_of_its_jobs(store: Store) -> None:
    who, journal = journal_of(store)
    assert store.apply(journal, who) == Applied(len(VERBS), [], [])
    assert [store.get(entry.job).state for entry in journal] == [ENDS[verb] for verb in VERBS]


def test_a_journal_is_settled_in_the_order_of_ids(store: Store, told: list[Event]) -> None:
    ids = [enqueue(store) for _ in range(4)]
    who = life()
    journal = [record(who, 1, job, "retry") for job in claim(store, who)]
    told.clear()
    store.apply(reversed(journal), who)
    assert [event.job for event in told] == ids


def test_an_empty_journal_is_nothing(store: Store) -> None:
    assert store.apply([], life()) == NOTHING


def test_a_journal_applied_twice_is_silent_the_second_time(store: Store, told: list[Event]) -> None:
    who, journal = journal_of(store)
    store.apply(journal, who)
    before, history = store.find(), [store.attempts(entry.job) for entry in journal]
    told.clear()
    assert store.apply(journal, who) == NOTHING
    assert (store.find(), [store.attempts(entry.job) for entry in journal]) == (before, history)
    assert told == []


def test_a_journal_applied_half_is_completed_by_whoever_comes_next(store: Store) -> None:
    who, journal = journal_of(store)
    store.apply(journal[:3], who)
    assert store.apply(journal, life()) == Applied(len(VERBS) - 3, [], [])


def test_a_journal_is_settled_by_somebody_else_in_the_name_of_its_owner(
    store: Store,
) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "fail")], who)
    (attempt,) = store.attempts(job.id)
    assert (attempt.owner, attempt.pid) == (who.owner, who.pid)


def test_a_journal_applied_days_later_tells_the_time_it_happened(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    clock.move(5 * 86_400_000)
    store.apply([record(who, 1, job, age_ms=5 * 86_400_000)], who)
    assert store.get(job.id).finished_at == to_datetime(START_MS)


@pytest.mark.parametrize("verb", ["retry", "snooze", "release"])
def test_an_applied_record_is_silent_after_another_life_took_the_job(
    store: Store, clock: MovableClock, verb: str
) -> None:
    first, job = running(store)
    journal = [record(first, 1, job, verb)]
    store.apply(journal, first)
    assert store.apply(journal, first) == NOTHING
    clock.move(60_000)
    second = life()
    claim(store, second)
    before = store.get(job.id)
    assert store.apply(journal, first) == NOTHING
    assert store.get(job.id) == before


@pytest.mark.parametrize("verb", ["succeed", "fail", "cancel"])
def test_a_record_applied_again_after_a_requeue_does_not_end_the_new_start(
    store: Store, verb: str
) -> None:
    who, job = running(store)
    journal = [record(who, 1, job, verb)]
    store.apply(journal, who)
    store.requeue(job.id)
    assert store.apply(journal, who).changed == 0
    assert store.get(job.id).state is State.PENDING
    second = life()
    claim(store, second)
    assert store.apply(journal, who).changed == 0
    assert store.get(job.id).owner == second.owner


def test_a_record_of_a_pruned_job_is_silent(store: Store, clock: MovableClock) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job)], who)
    clock.move(1_000)
    store.prune({State.SUCCEEDED: 0}, limit=1)
    assert store.apply([record(who, 1, job)], who) == NOTHING


def test_a_forgotten_success_applied_again_is_silent(store: Store) -> None:
    who, job = running(store)
    for _ in range(2):
        applied = store.apply([record(who, 1, job)], who, forget_succeeded=True)
    assert applied == NOTHING
    assert store.find() == []


# -- lost claims


@pytest.mark.parametrize("verb", VERBS)
def test_an_outcome_that_comes_after_another_life_took_the_job_is_a_lost_claim(
    store: Store, verb: str
) -> None:
    first, job = running(store)
    store.release_rest(first.owner)
    second = life()
    claim(store, second)
    late = record(first, 1, job, verb)
    # A snooze and a release have lost nothing: the job went back before they asked for it.
    lost = [] if verb in ("snooze", "release") else [late]
    assert store.apply([late], first) == Applied(0, lost, [])


@pytest.mark.parametrize("taken", [True, False])
def test_a_success_that_comes_after_its_life_was_given_up_is_a_lost_claim(
    store: Store, taken: bool
) -> None:
    first, job = running(store)
    store.vanish(first.owner, GONE)
    if taken:
        claim(store, life())
    late = record(first, 1, job)
    assert store.apply([late], first) == Applied(0, [late], [])


@pytest.mark.parametrize("verb", ["succeed", "fail", "cancel"])
def test_an_end_that_comes_after_its_row_went_back_is_a_lost_claim_before_it_is_taken(
    store: Store, verb: str
) -> None:
    who, job = running(store)
    store.release_rest(who.owner)
    late = record(who, 1, job, verb)
    assert store.apply([late], who) == Applied(0, [late], [])
    assert store.get(job.id).state is State.PENDING


def test_a_success_that_comes_after_its_job_was_failed_is_a_lost_claim(store: Store) -> None:
    first, job = running(store)
    store.rescue(job.id, first.owner, held(store, job.id, first), CRASH, None)
    late = record(first, 1, job)
    assert store.apply([late], first) == Applied(0, [late], [])
    assert store.get(job.id).state is State.FAILED


def test_one_lost_claim_of_a_journal_is_reported_once_and_the_others_settle(store: Store) -> None:
    for _ in range(5):
        enqueue(store)
    who = life()
    jobs = claim(store, who)
    journal = [record(who, 1, job) for job in jobs]
    store.rescue(jobs[2].id, who.owner, held(store, jobs[2].id, who), CRASH, 0)
    claim(store, life())
    assert store.apply(journal, who) == Applied(4, [journal[2]], [])


def test_a_late_record_under_retention_of_nothing_is_not_lost(store: Store) -> None:
    first, job = running(store)
    store.release_rest(first.owner)
    second = life()
    (again,) = claim(store, second)
    store.apply([record(second, 1, again)], second, forget_succeeded=True)
    assert store.apply([record(first, 1, job)], first, forget_succeeded=True) == NOTHING


# -- a record the database refuses


def test_a_refused_record_fails_its_job_with_the_reason_and_its_neighbours_settle(
    database: Database, store: Store, told: list[Event]
) -> None:
    database.refuse("new.result = '\"poison\"'", "no poison here")
    for _ in range(3):
        enqueue(store)
    who = life()
    jobs = claim(store, who)
    journal = [
        record(who, 1, job, result=result)
        for job, result in zip(jobs, ('"a"', '"poison"', '"b"'), strict=True)
    ]
    assert store.apply(journal, who) == Applied(3, [], [])
    assert [store.get(job.id).state for job in jobs] == ["succeeded", "failed", "succeeded"]
    refused = store.get(jobs[1].id)
    assert "refused the outcome" in str(refused.error)
    assert "no poison here" in str(refused.error)
    (attempt,) = store.attempts(refused.id)
    assert (attempt.outcome, attempt.attempt, attempt.message) == ("refused", 1, refused.error)
    assert [event.job for event in told if event.verb == "fail"] == [refused.id]
    assert store.apply(journal, who) == NOTHING


def test_a_record_refused_twice_is_handed_back_and_the_turn_goes_on(
    database: Database, store: Store
) -> None:
    for _ in range(2):
        enqueue(store)
    who = life()
    bad, good = claim(store, who)
    database.refuse(f"new.id = {bad.id} AND old.state = 'running'", "not this row")
    waiting = enqueue(store)
    journal = [record(who, 1, bad), record(who, 1, good)]
    turn = store.turn(who, 2, queues=["default"], limit=1, journal=journal)
    ((rejected, reason),) = turn.applied.rejected
    assert rejected == journal[0]
    assert "not this row" in reason
    assert turn.applied.changed == 1
    assert store.get(good.id).state is State.SUCCEEDED
    assert store.get(bad.id).state is State.RUNNING
    assert [job.id for job in turn.jobs] == [waiting]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("succeed", "fail")])
def test_a_refused_record_of_any_verb_fails_its_job(
    database: Database, store: Store, verb: str
) -> None:
    who, job = running(store)
    database.refuse("old.state = 'running' AND new.state <> 'failed'", "only failures")
    assert store.apply([record(who, 1, job, verb)], who) == Applied(1, [], [])
    assert store.get(job.id).state is State.FAILED


def test_a_result_that_is_no_text_fails_its_job(store: Store) -> None:
    for _ in range(2):
        enqueue(store)
    who = life()
    bad, good = claim(store, who)
    journal = [record(who, 1, bad)._replace(body=b"\xff"), record(who, 1, good)]
    assert store.apply(journal, who) == Applied(2, [], [])
    assert store.get(bad.id).state is State.FAILED
    assert store.get(good.id).state is State.SUCCEEDED


def test_a_refused_record_that_came_too_late_is_a_lost_claim(store: Store) -> None:
    first, job = running(store)
    store.release_rest(first.owner)
    claim(store, life())
    late = record(first, 1, job)._replace(body=b"\xff")
    assert store.apply([late], first) == Applied(0, [late], [])


def test_an_error_of_many_words_and_signs_is_kept(store: Store) -> None:
    who, job = running(store)
    failure = Failure("app.Error", "naïve “quotes”\n' -- ; \U0001f600", "t" * 16_000)
    store.apply([record(who, 1, job, "fail", failure=failure)], who)
    (attempt,) = store.attempts(job.id)
    assert (attempt.message, attempt.traceback) == (failure.message, failure.traceback)
    assert store.get(job.id).error == f"app.Error: {failure.message}"


def test_a_failure_without_words_is_told_by_its_type(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "fail", failure=Failure("KeyError", "", ""))], who)
    assert store.get(job.id).error == "KeyError"
    assert store.attempts(job.id)[0].traceback is None


def test_the_failure_of_a_retry_is_the_jobs_error_until_it_succeeds(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, "retry", failure=BROKEN, delay_ms=0)], who)
    assert store.get(job.id).error == "ValueError: broken"
    (again,) = claim(store, who, 2)
    assert store.get(job.id).error == "ValueError: broken"
    store.apply([record(who, 2, again)], who)
    assert store.get(job.id).error is None


def test_the_last_progress_goes_with_the_outcome_by_a_turn_as_well(store: Store) -> None:
    for _ in range(3):
        enqueue(store)
    who = life()
    jobs = claim(store, who)
    told = [
        record(who, 1, job, verb)._replace(progress='{"done": 20}')
        for job, verb in zip(jobs, ("succeed", "fail"), strict=False)
    ]
    told.append(record(who, 1, jobs[2]))
    store.turn(who, 2, queues=["default"], limit=1, journal=told)
    assert [store.get(job.id).progress for job in jobs] == [{"done": 20}, {"done": 20}, None]
    assert [store.get(job.id).state for job in jobs] == [
        State.SUCCEEDED, State.FAILED, State.SUCCEEDED,
    ]  # fmt: skip


def test_many_successes_settle_as_each_would_alone(store: Store) -> None:
    who = life()
    store.enqueue([new() for _ in range(120)])
    jobs = claim(store, who, limit=200)
    lost = life()
    results = [None, '"x"', "[1]", '{"n":2}']
    told = [
        record(lost if n == 60 else who, 1, job, result=results[n % 4], age_ms=n, duration_ms=n)
        for n, job in enumerate(jobs)
    ]
    applied = store.apply(told, who)
    assert (applied.changed, applied.lost, applied.rejected) == (119, [told[60]], [])
    assert store.get(jobs[60].id).state is State.RUNNING
    for n, job in enumerate(jobs):
        if n != 60:
            found = store.get(job.id)
            result = results[n % 4]
            assert found.result == (None if result is None else json.loads(result))
            assert found.finished_at == to_datetime(START_MS - n)
            assert found.started_at == to_datetime(START_MS - 2 * n)
    assert store.apply(told[:60], who).changed == 0


# -- the end of a life


def test_a_life_that_leaves_settles_what_it_did_and_gives_back_the_rest(
    store: Store, told: list[Event]
) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    jobs = store.turn(who, 1, queues=["default"], limit=3, register=True).jobs
    applied = store.leave(who, [record(who, 1, jobs[0]), record(who, 1, jobs[1], "retry")])
    assert applied == Applied(2, [], [])
    assert [store.get(number).state for number in ids] == ["succeeded", "scheduled", "pending"]
    assert [store.get(number).attempt for number in ids] == [1, 1, 0]
    assert store.owners(who.family) == []
    assert [event.verb for event in told if event.verb != "enqueue"] == ["retry", "release"]


def test_a_life_may_leave_twice(store: Store) -> None:
    who, job = running(store)
    records = [record(who, 1, job)]
    assert store.leave(who, records).changed == 1
    assert store.leave(who, records) == NOTHING._replace(changed=0)
