"""Several keys and several jobs in one transaction, on PostgreSQL: all take them in one order.

New keys come first, by name; then jobs that wait, by id. Who requeues has its jobs, by id, before the
keys that they come back under; nobody who enqueues waits for a job that is finished. Each race is played to
the point where the second transaction waits for the first, which then goes on to what the second would have
by now in any other order: a deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.change import requeued_each
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import JobsError, StoreUnavailable
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import NewJob, State
from jobvisor.jobs.store.postgres import PostgresStore
from tests.store.database import PostgresDatabase
from tests.store.making import job_in, new
from tests.store.test_uniqueness import debounced, keyed
from tests.waiting import eventually

Deed = Callable[[PostgresStore], object]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


def opened(database: PostgresDatabase) -> PostgresStore:
    store = database.open()
    assert isinstance(store, PostgresStore)
    return store


class Other:
    """Somebody else's one call, in a thread."""

    def __init__(self, database: PostgresDatabase, deed: Deed) -> None:
        self.answer: object = None
        self._database, self._deed = database, deed
        self._store = opened(database)
        self._store._connected()
        self._thread = threading.Thread(target=self._act)

    def _act(self) -> None:
        try:
            self.answer = self._deed(self._store)
        except JobsError as error:
            self.answer = error

    def start_and_wait_for_a_lock(self) -> None:
        pid = self._store._connected().info.backend_pid
        self._thread.start()
        asked = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = ?"
        eventually(
            lambda: self._database.sql(asked, pid) == [("Lock",)], what="it waits for the first"
        )

    def ended(self) -> object:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.answer


def crossed(
    database: PostgresDatabase, first: Deed, second: Deed, first_goes_on: Deed, *, dies: bool
) -> object:
    """What the second was told, who came between two steps of the first; that one may die at its end."""
    one, other = opened(database), Other(database, second)

    def act() -> None:
        with one.transaction():
            first(one)
            other.start_and_wait_for_a_lock()
            first_goes_on(one)
            if dies:
                backend = one._connected().info.backend_pid
                database.sql("SELECT pg_terminate_backend(?)", backend)

    if dies:
        with pytest.raises(StoreUnavailable, match=r"connection broke|was interrupted"):
            act()
    else:
        act()
    answer = other.ended()
    assert not isinstance(answer, JobsError), answer
    return answer


def bulk(*jobs: NewJob) -> Deed:
    """A bulk enqueue that is tried once."""
    return lambda store: store._enqueue_many(jobs)


def replacing(key: str) -> NewJob:
    return keyed(key=key, conflict="replace", args="[2]")


DIES = pytest.mark.parametrize("dies", [False, True], ids=["commits", "dies"])
BULK_VERBS: dict[str, Callable[[PostgresStore, int], object]] = {
    "cancel": lambda store, job: store.cancel(job),
    "hold": lambda store, job: store.hold(Filter(ids=[job])),
    "reschedule": lambda store, job: store.reschedule(job, Due(in_ms=60_000)),
    "replace one": lambda store, job: store.enqueue_one(replacing(store.get(job).unique or "")),
}


@DIES
@pytest.mark.parametrize("verb", BULK_VERBS)
def test_jobs_that_are_replaced_are_taken_by_their_ids_as_bulk_verbs_take_them(
    database: PostgresDatabase, verb: str, dies: bool
) -> None:
    store, act = opened(database), BULK_VERBS[verb]
    low, high = (store.enqueue_one(keyed(key=key)).id for key in "za")
    answer = crossed(
        database,
        lambda first: act(first, low),
        bulk(replacing("a"), replacing("z")),
        lambda first: act(first, high),
        dies=dies,
    )
    made = verb == "cancel" and not dies
    assert [created for _, created in answer] == [made] * 2  # type: ignore[attr-defined]
    assert (store.holder("a") == high, store.holder("z") == low) == (not made, not made)
    assert [job.args for job in store.find() if job.state is State.PENDING] == [[2]] * 2


@DIES
@pytest.mark.parametrize("second", [keyed, debounced], ids=["return", "debounce"])
def test_new_keys_are_taken_by_name_whatever_is_done_where_they_are_held(
    database: PostgresDatabase, second: Callable[..., NewJob], dies: bool
) -> None:
    """Those that look first are not left for the end."""
    answer = crossed(
        database,
        bulk(keyed(key="b"), new()),
        bulk(keyed(key="m"), second(key="b", args="[2]")),
        bulk(keyed(key="m"), new()),
        dies=dies,
    )
    assert [created for _, created in answer] == [dies, dies]  # type: ignore[attr-defined]


@DIES
def test_many_jobs_that_are_requeued_come_back_by_their_keys(
    database: PostgresDatabase, dies: bool
) -> None:
    store = opened(database)
    jobs = [job_in(store, State.FAILED, unique_key=key) for key in "za"]
    told = crossed(
        database,
        bulk(keyed(key="a"), new()),
        lambda other: _requeued(other, jobs),
        bulk(keyed(key="z"), new()),
        dies=dies,
    )
    outcome = "pending" if dies else "refused"
    assert told == [(job, outcome) for job in jobs]


def _requeued(store: PostgresStore, jobs: list[int]) -> list[tuple[int, str]]:
    with store.transaction():
        return [(each.id, each.outcome) for each in requeued_each(store, jobs)]


def test_who_takes_keys_in_another_order_costs_a_bulk_enqueue_another_try(
    database: PostgresDatabase,
) -> None:
    """As one does whose key was taken at its turn, and free again later."""

    def second(store: PostgresStore) -> object:
        store._connected().execute(b"SET deadlock_timeout = '1s'")  # long enough for the cross
        return store.enqueue([keyed(key="a"), keyed(key="b"), new()])

    def first(store: PostgresStore) -> None:
        store._connected().execute(b"SET LOCAL deadlock_timeout = '60s'")
        store.enqueue_one(keyed(key="b"))

    def first_goes_on(store: PostgresStore) -> None:
        store.enqueue_one(keyed(key="a"))

    told = crossed(database, first, second, first_goes_on, dies=False)
    assert [created for _, created in told] == [False, False, True]  # type: ignore[attr-defined]
    assert len(opened(database).find()) == 3
