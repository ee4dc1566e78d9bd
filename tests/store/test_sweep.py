"""What is done to all jobs that match: in pages of their own, told as counts, and nothing twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from jobvisor.jobs.change import Moves
from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import IllegalMove, InvalidOption, JobNotFound
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.outcome import Failure
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import claim, enqueue, failed, job_in, life, new, record
from tests.store.processes import in_a_copy
from tests.store.staged import client_of, client_to


@pytest.fixture
def client(store: Store, clock: MovableClock) -> Iterator[Client]:
    with client_of(store, clock) as made:
        yield made


def test_all_that_match_are_cancelled_and_no_others(client: Client, store: Store) -> None:
    mail = [enqueue(store, queue="mail", run_in_ms=later) for later in (0, 9_000)]
    enqueue(store)
    assert client.cancel_where(Filter(queue="mail"), dry_run=True) == (2, {}, [], True, False)
    assert client.cancel_where(Filter(queue="mail")) == (2, {"cancelled": 2}, [], False, False)
    assert [client.get(job).state for job in mail] == [State.CANCELLED] * 2
    assert client.counts()["default"] == {"pending": 1}


def test_those_that_are_refused_are_told_and_stop_no_other(client: Client, store: Store) -> None:
    bad = [job_in(store, State.FAILED, unique_key=key) for key in ("a", "b", "c")]
    holder = enqueue(store, unique_key="b")
    told: list[Moves] = []
    swept = client.requeue_where(Filter(state="failed"), told=told.append)
    assert swept.outcomes == {"pending": 2, "refused": 1}
    assert [refused.id for refused in swept.refusals] == [bad[1]]
    assert f"job {holder} holds" in swept.as_json()["refusals"][0]["error"]
    assert [move.id for page in told for move in page] == bad


def test_a_job_that_goes_from_one_state_to_another_meanwhile_is_met_once(
    client: Client, store: Store, clock: MovableClock
) -> None:
    jobs = [job_in(store, state) for state in (State.FAILED, State.SUCCEEDED) for _ in range(2)]

    def run(_page: Moves) -> None:
        who = life()
        claimed = claim(store, who)
        store.apply([record(who, 1, job) for job in claimed], who)

    swept = client.requeue_where(Filter(state=["failed", "succeeded"]), told=run)
    assert (swept.jobs, swept.outcomes) == (4, {"pending": 4})
    assert {client.get(job).state for job in jobs} == {State.SUCCEEDED}


def test_a_job_that_falls_due_meanwhile_is_cancelled_all_the_same(
    client: Client, store: Store, clock: MovableClock
) -> None:
    enqueue(store)
    later = enqueue(store, run_in_ms=9_000)

    def fall_due(_page: Moves) -> None:
        clock.move(10_000)
        claim(store, life())

    assert client.cancel_where(Filter(queue="default"), told=fall_due).jobs == 2
    assert client.get(later).state is State.CANCELLED


def test_a_sweep_is_noted_in_one_entry_with_what_it_did(client: Client, store: Store) -> None:
    store.enqueue([new()] * 1_200)
    client.cancel_where(Filter(state="pending"), by="ada")
    assert [(each.who, each.verb, each.number) for each in client.actions()] == [
        ("ada", "cancel", 1_200)
    ]
    client.cancel_where(Filter(state="pending"), by="ada")
    assert len(client.actions()) == 1, "what was done to none is not noted"


def test_many_go_in_several_pages_and_what_a_page_has_done_stays(
    client: Client, store: Store
) -> None:
    store.enqueue([new()] * 2_300)
    pages: list[int] = []

    def stop(page: Moves) -> None:
        pages.append(len(page))
        enqueue(store)  # and this one is left alone
        if len(pages) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.cancel_where(Filter(state="pending"), told=stop)
    assert pages == [1_000, 1_000]
    assert client.counts()["default"] == {"pending": 302, "cancelled": 2_000}
    assert client.cancel_where(Filter(state="pending")).jobs == 302


def test_a_sweep_that_is_killed_between_two_pages_has_done_whole_pages_and_goes_on(
    database: Database,
) -> None:
    if database.alone:
        pytest.skip("it ends with its process")
    store = database.open()
    bad = [job_in(store, State.FAILED) for _ in range(3)]
    store.enqueue([new()] * 1_500)

    def killed() -> object:
        def die(_page: Moves) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        return client_to(database).cancel_where(Filter(state="pending"), told=die)

    assert in_a_copy(killed) == ""
    assert store.counts()["default"] == {"pending": 500, "cancelled": 1_000, "failed": 3}
    with client_to(database) as client:
        assert client.cancel_where(Filter(state="pending")).outcomes == {"cancelled": 500}
        assert client.requeue_where(Filter(state="failed")).jobs == len(bad)


def test_what_a_worker_takes_meanwhile_is_asked_to_end_and_what_it_ends_is_left(
    client: Client, store: Store
) -> None:
    store.enqueue([new()] * 1_005)
    who = life()
    first, *others = claim(store, who, limit=3)
    store.apply([record(who, 1, first)], who)
    taken: list[int] = []

    def work(_page: Moves) -> None:
        if not taken:
            taken.extend(job.id for job in claim(store, who, 2, limit=1))

    swept = client.cancel_where(Filter(queue="default"), told=work)
    assert swept.outcomes == {"cancelled": 1_001, "requested": 3}
    assert client.get(first.id).state is State.SUCCEEDED
    running = [*(job.id for job in others), *taken]
    assert {client.get(job).cancel_requested for job in running} == {True}
    assert client.requeue_where(Filter(ids=running)).outcomes == {"refused": 3}


def test_a_dry_run_counts_what_would_be_done(client: Client, store: Store) -> None:
    jobs = [job_in(store, State.FAILED) for _ in range(3)]
    for verb in (client.requeue_where, client.prune_where):
        assert verb(Filter(state="failed"), dry_run=True) == (3, {}, [], True, False)
    assert client.prune_where(Filter(ids=jobs[1:]), dry_run=True).as_json() == {
        "jobs": 2, "outcomes": {}, "refusals": [], "dry_run": True, "at_least": False,
    }  # fmt: skip
    assert {job.state for job in client.list()} == {State.FAILED}


def test_a_job_that_ended_otherwise_since_it_was_found_is_left(
    client: Client, store: Store
) -> None:
    # It is looked at once more in the transaction that moves it.
    for number in range(1_001):
        failed(store, "OldError", str(number))
    last = store.newest_id()

    def again(_page: Moves) -> None:
        if client.get(last).error != "NewError: no":
            store.requeue(last)
            who = life()
            (job,) = [each for each in claim(store, who, limit=2_000) if each.id == last]
            failure = Failure("NewError", "no", "")
            store.apply([record(who, 1, job, "fail", failure=failure)], who)

    which = Filter(state="failed", error_type="OldError")
    assert client.requeue_where(which, told=again).jobs == 1_000
    assert client.get(last).error == "NewError: no"


def test_finished_jobs_are_removed(client: Client, store: Store, clock: MovableClock) -> None:
    old = job_in(store, State.FAILED)
    clock.move(60_000)
    young = job_in(store, State.FAILED)
    assert client.prune_where(Filter(state="failed", until="30s")).outcomes == {"removed": 1}
    with pytest.raises(JobNotFound):
        client.get(old)
    client.delete(young)
    assert client.list() == []
    with pytest.raises(IllegalMove, match="is pending; only a finished"):
        client.delete(enqueue(store))
    with pytest.raises(JobNotFound):
        client.delete(young)


@pytest.mark.parametrize(
    ("verb", "which", "words"),
    [
        ("cancel_where", Filter(), "an empty Filter means every job"),
        ("requeue_where", Filter(), "say which finished jobs to requeue"),
        ("prune_where", Filter(queue="mail"), "say which finished jobs to remove"),
        ("cancel_where", Filter(state="failed"), "state=failed cannot be meant here"),
        ("requeue_where", Filter(state="running"), "state=running cannot be meant here"),
        ("prune_where", {"state": "failed"}, "is no Filter"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(
    client: Client, verb: str, which: Filter, words: str
) -> None:
    with pytest.raises(InvalidOption, match=words):
        getattr(client, verb)(which)


def test_a_copy_has_the_options_of_the_first_and_may_have_other_arguments(
    client: Client, store: Store
) -> None:
    job = client.enqueue(client.call("app:send", "a", n=1, options={"priority": 4, "unique": "k"}))
    assert [(each.args, each.kwargs) for each in (client.copy(job), client.copy(job, args=["b"]))] == [
        (["a"], {"n": 1}), (["b"], {"n": 1}),
    ]  # fmt: skip
    made = client.copy(job.id, kwargs={"n": 2})
    assert (made.args, made.kwargs, made.priority, made.unique) == (["a"], {"n": 2}, 4, None)
    with pytest.raises(JobNotFound):
        client.copy(10**9)
