"""Why a job does not run: the reasons of one, the sums of all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.found import Count
from jobvisor.jobs.job import State, Terms
from jobvisor.jobs.store import Store
from jobvisor.jobs.why import Known, Reason, sums_of
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import (
    STOPPED,
    claim,
    enqueue,
    family,
    held,
    job_in,
    life,
    new,
    record,
    running,
)
from tests.store.staged import client_of

SERVED = ("default",)


@pytest.fixture
def client(store: Store, clock: MovableClock) -> Iterator[Client]:
    store.add_family(family())
    with client_of(store, clock) as made:
        yield made


def told(client: Client, job: int) -> list[Reason]:
    return client.why(job, served=SERVED)


def test_a_job_that_is_due_later_says_when(client: Client, store: Store) -> None:
    assert told(client, job_in(store, State.SCHEDULED)) == [
        ("later", "It is due in 1m, at 2033-05-18T03:34:20.000Z.")
    ]


@pytest.mark.parametrize("verb", ["retry", "snooze"])
def test_a_job_that_was_put_off_says_by_what(client: Client, store: Store, verb: str) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job, verb)], who)
    (reason,) = told(client, job.id)
    assert reason.code == verb
    assert "again in 5s, at " in reason.text


def test_a_job_whose_time_has_come_waits_for_the_next_claim(
    client: Client, store: Store, clock: MovableClock
) -> None:
    number = enqueue(store, run_in_ms=9_000)
    clock.move(9_000)
    assert [reason.code for reason in told(client, number)] == ["due"]


def test_a_pending_job_says_how_many_a_claim_takes_before_it(client: Client, store: Store) -> None:
    first, second = enqueue(store), enqueue(store)
    enqueue(store, queue="other", priority=9)
    urgent = enqueue(store, priority=1)
    assert told(client, urgent) == [
        ("next", "It is the next of queue 'default': it waits for a worker.")
    ]
    assert told(client, first) == [("behind", "1 job comes before it in queue 'default'.")]
    assert told(client, second) == [("behind", "2 jobs come before it in queue 'default'.")]
    store.enqueue([new(priority=2)] * 1_001)
    assert told(client, urgent)[0].text.startswith("1,000 or more jobs come before it")


def test_a_job_of_a_queue_that_nobody_serves_says_so(client: Client, store: Store) -> None:
    number = enqueue(store, queue="mail")
    assert [reason.code for reason in told(client, number)] == ["unserved", "next"]
    assert told(client, number)[0].text.startswith("No pool serves its queue 'mail'")
    store.add_family(family(2))
    assert "No pool of the family here serves" in told(client, number)[0].text
    assert [reason.code for reason in client.why(number)] == ["next"], (
        "who does not know says nothing"
    )


def test_a_job_without_a_living_family_says_so(
    client: Client, store: Store, clock: MovableClock
) -> None:
    number = enqueue(store)
    clock.move(30_001)
    assert [reason.code for reason in told(client, number)] == ["no_family", "next"]


def test_a_job_that_may_have_ended_its_process_says_among_how_many_it_runs(
    client: Client, store: Store
) -> None:
    who, job = running(store)
    store.give_back(job.id, who.owner, held(store, job.id, who), STOPPED._replace(company=3))
    assert [reason.code for reason in told(client, job.id)] == ["company", "next"]
    assert "it runs among at most 3" in told(client, job.id)[0].text
    limited = enqueue(store, memory_bytes=1 << 30)
    assert "memory limit" in told(client, limited)[0].text


def test_a_job_that_expires_says_when(client: Client, store: Store, clock: MovableClock) -> None:
    number = enqueue(store, expires_in_ms=5_000)
    assert [reason.code for reason in told(client, number)] == ["next", "expiry"]
    clock.move(5_000)
    assert [reason.code for reason in told(client, number)] == ["next", "expired"]


def test_a_blocked_job_says_so(client: Client, store: Store) -> None:
    assert [reason.code for reason in told(client, job_in(store, State.BLOCKED))] == ["blocked"]


@pytest.mark.parametrize("state", [State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_job_that_does_not_wait_has_no_reason(client: Client, store: Store, state: State) -> None:
    assert told(client, job_in(store, state)) == []


def test_a_job_that_is_asked_to_end_says_so(client: Client, store: Store) -> None:
    _who, job = running(store)
    store.cancel(job.id)
    assert [reason.code for reason in told(client, job.id)] == ["cancelling"]


def test_the_sums_count_each_waiting_job_once(
    client: Client, store: Store, database: Database
) -> None:
    assert client.waits() == []
    job_in(store, State.SCHEDULED)
    job_in(store, State.BLOCKED)
    who, job = running(store)
    store.apply([record(who, 1, job, "retry")], who)
    who, job = running(store)
    store.apply([record(who, 1, job, "snooze", deferred="unknown")], who)
    enqueue(store, memory_bytes=1 << 30)
    assert [(held.code, held.jobs.number) for held in client.waits()] == [
        ("later", 1), ("retry", 1), ("unknown_task", 1), ("blocked", 1), ("company", 1),
    ]  # fmt: skip
    assert client.waits()[0].text == "1 job is due later"


def test_the_sums_end_at_their_limit(store: Store) -> None:
    store.enqueue([new(run_in_ms=60_000)] * 12)
    assert store.held_back(most=10)["later"] == Count(10, at_least=True)
    (held,) = sums_of(store, Known(0))
    assert held.as_json() == {
        "code": "later", "jobs": 12, "at_least": False, "text": "12 jobs are due later",
    }  # fmt: skip
    assert claim(store, life()) == []


def test_a_job_of_a_paused_queue_or_task_says_since_when_and_until_when(
    client: Client, store: Store
) -> None:
    number = enqueue(store)
    client.pause("default", until="1h")
    (reason,) = told(client, number)
    assert reason.code == "paused"
    assert reason.text == (
        "Its queue 'default' is paused since 2033-05-18T03:33:20.000Z until "
        "2033-05-18T04:33:20.000Z: `jobvisor resume` ends that."
    )
    client.resume("default")
    client.pause(task="app:f")
    claim(store, life())
    (reason,) = told(client, number)
    assert reason.text.startswith("Its task 'app:f' is paused since ")
    assert store.resume("task", "app:f")
    assert [reason.code for reason in told(client, number)] == ["blocked"]
    assert "set free in a moment" in told(client, number)[0].text


def test_a_job_with_a_deadline_says_when_it_is(client: Client, store: Store) -> None:
    number = enqueue(store, terms=Terms(deadline_in_ms=1_000))
    assert [reason.code for reason in told(client, number)] == ["next", "deadline"]


def test_what_waits_in_paused_queues_is_counted(client: Client, store: Store) -> None:
    store.enqueue([new(queue="mail")] * 3)
    enqueue(store)
    assert "paused" not in [each.code for each in client.waits()]
    client.pause("mail")
    [paused] = [each for each in client.waits() if each.code == "paused"]
    assert (paused.jobs, paused.text) == (
        Count(3, at_least=False),
        "3 jobs wait in queues that are paused",
    )


def test_a_job_that_waits_for_its_limit_says_how_that_stands(client: Client, store: Store) -> None:
    jobs = [enqueue(store, terms=Terms(limit_key="stripe")) for _ in range(2)]
    claim(store, life())
    assert [reason.code for reason in told(client, jobs[0])] == ["unknown_limit"]
    assert "nobody has said what stripe is" in told(client, jobs[0])[0].text
    client.limits.set("stripe", concurrency=1)
    claim(store, life())
    claim(store, life(), limit=1)
    (waits,) = [reason for job in jobs for reason in told(client, job)]
    assert (waits.code, "limit stripe: 1 of 1" in waits.text) == ("limit", True)
