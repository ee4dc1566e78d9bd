"""What is done to all jobs that match: in pages of their own, told as counts, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobvisor.jobs.change import Moves
from jobvisor.jobs.client import Client
from jobvisor.jobs.errors import IllegalMove, InvalidOption, JobNotFound
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.making import enqueue, job_in, new
from tests.store.staged import client_of


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
