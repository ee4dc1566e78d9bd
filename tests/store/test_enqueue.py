"""A job comes into being, and is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.errors import JobNotFound
from jobvisor.jobs.events import Event
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, UNFINISHED, State
from jobvisor.jobs.outcome import Failure, Outcome
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.database import Database
from tests.store.making import claim, enqueue, job_in, life, new, record, running


def test_an_enqueued_job_is_read_back_as_it_was_given(store: Store) -> None:
    number = enqueue(
        store,
        task="app:send",
        args='["a",{"$date":"2026-11-22"}]',
        kwargs='{"n":1}',
        queue="mail",
        priority=-7,
        attempts_max=9,
        timeout_ms=1_500,
        memory_bytes=1 << 20,
        unique_key="key",
        expires_in_ms=60_000,
    )
    job = store.get(number)
    assert (job.id, job.task, job.queue, job.priority) == (number, "app:send", "mail", -7)
    assert (job.args[0], job.args[1].isoformat(), job.kwargs) == ("a", "2026-11-22", {"n": 1})
    assert (job.state, job.attempt, job.attempts_max) == (State.PENDING, 0, 9)
    assert (job.timeout, job.memory, job.unique) == (1.5, 1 << 20, "key")
    assert job.created_at == job.run_at == to_datetime(START_MS)
    assert job.expires_at == to_datetime(START_MS + 60_000)
    assert (job.result, job.error, job.owner, job.claim, job.finished_at) == (None,) * 5


def test_ids_come_in_the_order_of_the_jobs_and_grow(store: Store) -> None:
    stored = store.enqueue([new(task=f"app:f{n}") for n in range(5)])
    ids = [number for number, _created in stored]
    assert ids == sorted(ids)
    assert [store.get(number).task for number in ids] == [f"app:f{n}" for n in range(5)]
    assert enqueue(store) > ids[-1]


def test_many_jobs_are_stored_together_as_each_would_be_alone(store: Store) -> None:
    kinds = [
        new(),
        new(args="[1]", kwargs='{"a":2}', queue="mail", priority=3, attempts_max=7),
        new(run_in_ms=5_000, expires_in_ms=60_000),
        new(run_at_ms=START_MS - 5, expires_in_ms=1_000),
        new(policy='{"fixed":1}', timeout_ms=5, memory_bytes=6),
    ]
    jobs = [kinds[number % len(kinds)] for number in range(230)]
    together = store.enqueue(jobs)
    assert [created for _number, created in together] == [True] * len(jobs)
    for (number, _created), alone in zip(together, kinds, strict=False):
        assert replace(store.get(number), id=0) == replace(store.enqueue_one(alone), id=0)
    ids = [number for number, _created in together]
    assert ids == sorted(set(ids))
    assert enqueue(store) > ids[-1]


def test_keys_that_are_held_or_come_twice_among_many_jobs_name_their_holders(store: Store) -> None:
    holder = enqueue(store, unique_key="key 7")
    keys = [f"key {number % 150}" for number in range(200)]
    stored = store.enqueue([new(unique_key=key) for key in keys])
    by_key = {"key 7": holder}
    for key, (number, created) in zip(keys, stored, strict=True):
        assert created == (key not in by_key)
        assert by_key.setdefault(key, number) == number
        assert store.get(number).unique == key
    assert store.counts() == {"default": {"pending": 150}}


def test_the_id_of_a_pruned_job_is_never_given_again(store: Store, clock: MovableClock) -> None:
    number = job_in(store, State.SUCCEEDED)
    clock.move(1_000)
    assert store.prune({State.SUCCEEDED: 0}, limit=10) == 1
    assert enqueue(store) > number


def test_enqueueing_nothing_stores_nothing(store: Store) -> None:
    assert store.enqueue([]) == []
    assert store.counts() == {}


def test_there_is_no_job_of_an_unknown_id(store: Store) -> None:
    with pytest.raises(JobNotFound, match="there is no job 404"):
        store.get(404)


# -- time


def test_a_job_for_later_is_scheduled_and_not_claimed_before_its_time(
    store: Store, clock: MovableClock
) -> None:
    number = enqueue(store, run_in_ms=1_000)
    assert store.get(number).state is State.SCHEDULED
    clock.move(999)
    assert claim(store, life()) == []
    clock.move(1)
    assert [job.id for job in claim(store, life())] == [number]


def test_a_moment_that_has_passed_means_now(store: Store) -> None:
    number = enqueue(store, run_at_ms=START_MS - 1)
    assert store.get(number).state is State.PENDING
    assert store.get(number).run_at == to_datetime(START_MS - 1)


def test_an_expiry_counts_from_the_moment_the_job_is_due(store: Store) -> None:
    number = enqueue(store, run_in_ms=60_000, expires_in_ms=5_000)
    assert store.get(number).expires_at == to_datetime(START_MS + 65_000)


# -- unique keys


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_a_unique_key_is_taken_while_its_holder_is_unfinished(store: Store, state: State) -> None:
    holder = job_in(store, state, unique_key="key")
    assert store.enqueue([new(unique_key="key")]) == [(holder, False)]
    assert store.get(holder).state is state


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_unique_key_is_free_once_its_holder_is_finished(store: Store, state: State) -> None:
    before = job_in(store, state, unique_key="key")
    ((number, created),) = store.enqueue([new(unique_key="key")])
    assert created
    assert number != before


def test_two_jobs_of_one_key_in_one_call_are_one_job(store: Store) -> None:
    stored = store.enqueue([new(unique_key="key"), new(), new(unique_key="key")])
    assert [created for _number, created in stored] == [True, True, False]
    assert stored[0][0] == stored[2][0]
    assert len(store.find()) == 2


def test_a_unique_key_is_taken_across_queues_and_tasks(store: Store) -> None:
    holder = enqueue(store, unique_key="key", queue="mail")
    assert store.enqueue([new(unique_key="key", task="app:g")]) == [(holder, False)]


def test_jobs_without_a_key_are_never_the_same(store: Store) -> None:
    assert all(created for _number, created in store.enqueue([new(), new()]))


def test_a_retried_job_keeps_its_unique_key(store: Store) -> None:
    who, job = running(store, unique_key="key")
    store.apply([record(who, 1, job, "retry")], who)
    assert store.enqueue([new(unique_key="key")]) == [(job.id, False)]


# -- finding


def test_jobs_are_found_newest_first_and_paged_by_id(store: Store) -> None:
    ids = [enqueue(store) for _ in range(5)]
    assert [job.id for job in store.find(limit=2)] == [ids[4], ids[3]]
    assert store.find(limit=2**63) == store.find(limit=9)
    assert [job.id for job in store.find(limit=2, before=ids[3])] == [ids[2], ids[1]]


@pytest.mark.parametrize("state", list(State))
def test_jobs_are_found_by_their_state(store: Store, state: State) -> None:
    # Finished ones first, pending last: what brings a job there claims whatever is pending.
    order: list[State] = [*sorted(FINISHED), State.RUNNING, State.SCHEDULED, State.BLOCKED]
    made = {one: job_in(store, one) for one in [*order, State.PENDING]}
    assert [job.id for job in store.find(Filter(state=state))] == [made[state]]


@pytest.mark.parametrize("state", [None, State.PENDING, State.SUCCEEDED])
def test_jobs_are_found_by_queue_and_task(store: Store, state: State | None) -> None:
    wanted = job_in(store, state or State.PENDING, queue="mail", task="app:send")
    for queue, task in (("mail", "app:f"), ("other", "app:send")):
        job_in(store, state or State.PENDING, queue=queue, task=task)
        assert len(store.find(Filter(state=state, queue=queue))) >= 1
    assert [j.id for j in store.find(Filter(state=state, queue="mail", task="app:send"))] == [
        wanted
    ]


def test_find_is_narrowed_by_error_and_by_the_moment_of_a_job(
    store: Store, clock: MovableClock
) -> None:
    past = sorted(set(State) - {State.SCHEDULED})  # which is not due yet
    made = {state: job_in(store, state, queue=state.value) for state in past}
    clock.move(60_000)
    late = enqueue(store, run_in_ms=1)
    assert [job.id for job in store.find(Filter(since="59s"))] == [late]
    assert [job.id for job in store.find(Filter(since="61s"))] == [
        late,
        *sorted(made.values())[::-1],
    ]
    error = (store.get(made[State.FAILED]).error or "")[2:9]
    having = [job.id for job in store.find() if error in (job.error or "")]
    assert [job.id for job in store.find(Filter(error=error.upper()))] == having
    for nothing in (Filter(error="%"), Filter(error="\0"), Filter(task="\udcff")):
        assert store.find(nothing) == []


@pytest.mark.parametrize("state", State)
def test_ids_are_found_oldest_first_and_in_pages(store: Store, state: State) -> None:
    made = [job_in(store, state, queue=f"q{n}") for n in range(3)]
    others = [job_in(store, other, queue=other.value) for other in State if other is not state]
    assert len(others) == len(State) - 1
    assert store.ids_page(Filter(state=state), limit=2).found == made[:2]
    assert store.ids_page(Filter(state=state), limit=2, after=made[1]).found == made[2:]
    assert store.ids_page(Filter(state=state, task="app:g"), limit=9).found == []


def test_tasks_that_no_worker_knew_are_told_with_how_many_wait(store: Store) -> None:
    who = life()
    failure = Failure("unknown", "no module has it", "")
    outcome = Outcome("snooze", delay_ms=60_000, failure=failure, deferred="unknown")
    for task in ("app:b", "app:a", "app:b"):
        enqueue(store, task=task)
    jobs = claim(store, who)
    records = [
        record(who, 1, job, "snooze")._replace(body=outcome.body(), delay_ms=outcome.delay_ms)
        for job in jobs
    ]
    store.apply(records, who)
    found = store.unknown_tasks(9)
    assert [(each.task, each.jobs) for each in found] == [("app:a", 1), ("app:b", 2)]
    assert "no module has it" in (found[0].error or "")
    assert len(store.unknown_tasks(1)) == 1
    store.cancel(jobs[0].id)
    assert [each.jobs for each in store.unknown_tasks(9)] == [1, 1]


def test_the_tasks_of_all_jobs_are_named(store: Store) -> None:
    for task in ("app:b", "app:a", "app:b"):
        enqueue(store, task=task)
    assert store.task_names(9) == ["app:a", "app:b"]
    assert store.task_names(1) == ["app:a"]


def test_jobs_are_counted_by_queue_and_state(store: Store) -> None:
    for _ in range(2):
        job_in(store, State.FAILED)
    enqueue(store)
    enqueue(store, queue="mail", run_in_ms=1)
    assert store.counts() == {"default": {"failed": 2, "pending": 1}, "mail": {"scheduled": 1}}


def test_the_oldest_pending_row_of_each_queue_is_known(store: Store, clock: MovableClock) -> None:
    enqueue(store, queue="mail")
    clock.move(500)
    enqueue(store, queue="mail")
    enqueue(store, queue="other")
    enqueue(store, queue="later", run_in_ms=1)
    clock.move(70)
    assert store.oldest_pending() == {"mail": 570, "other": 70}


def test_a_row_whose_arguments_need_a_missing_class_is_still_shown(store: Store) -> None:
    enqueue(store, args='[{"$dataclass":["no.such.module:Thing",{}]}]')
    (job,) = store.find()
    assert job.args[0].tag == "$dataclass"


# -- strangers


def test_a_strangers_row_with_only_a_task_is_an_ordinary_job(
    database: Database, store: Store
) -> None:
    database.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    who = life()
    (job,) = claim(store, who)
    assert (job.task, job.args, job.kwargs, job.attempt) == ("app:f", "[]", "{}", 1)
    assert (job.queue, job.priority, job.attempts_max, job.policy) == ("default", 0, 4, None)
    assert store.apply([record(who, 1, job)], who).changed == 1
    assert store.get(job.id).state is State.SUCCEEDED


def test_an_enqueue_is_told_once_it_is_committed(store: Store, told: list[Event]) -> None:
    with store.transaction():
        number = enqueue(store, unique_key="key")
        enqueue(store, unique_key="key")
        assert told == []
    assert [(event.verb, event.job) for event in told] == [("enqueue", number)]


def test_each_database_has_a_name_of_its_own(database: Database, store: Store) -> None:
    assert len(store.database_id()) == 32
    assert store.database_id() == database.open().database_id()
