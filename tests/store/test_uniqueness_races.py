"""Two who want one key at once, or a call that meets the claim of the job that it is about."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import from_datetime, to_datetime
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.job import Job, State
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.enqueueing import carried_out, enqueueing
from jobvisor.jobs.store.postgres import PostgresStore
from tests.clock import START_MS, MovableClock
from tests.store.database import Database, PostgresDatabase
from tests.store.making import claim, life, new, record
from tests.store.test_interleavings import COMMIT, beside_an_open_transaction
from tests.store.test_uniqueness import DELAY_MS, HOLDS, debounced, due, keyed
from tests.waiting import eventually


@COMMIT
@pytest.mark.parametrize(("one", "other"), list(itertools.product(HOLDS, HOLDS)))
def test_of_two_enqueues_of_one_key_at_once_one_makes_the_job(
    database: Database, store: Store, one: str, other: str, commit: bool
) -> None:
    first, second = beside_an_open_transaction(
        database,
        lambda door: door.enqueue_one(keyed(one, conflict="return")).id,
        lambda door: door.enqueue_one(keyed(other, conflict="return")),
        commit=commit,
    )
    assert isinstance(second, Job)
    assert second.created is not commit
    assert (second.id == first) is commit or not commit
    assert [job.id for job in store.find()] == [second.id]
    assert store.holder("k") == second.id


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("other", HOLDS)
def test_who_waits_for_a_key_sees_that_it_is_kept_though_its_job_has_ended(
    database: Database, store: Store, other: str, many: bool
) -> None:
    """A look in the statement that waits would be older than what it waits for."""
    who = life()

    def whole_life(door: Store) -> int:
        number = door.enqueue_one(keyed("kept")).id
        (job,) = claim(door, who)
        door.apply([record(who, 1, job)], who)
        return number

    def call(door: Store) -> tuple[int, bool]:
        job = keyed(other, conflict="return")
        if many:
            return door.enqueue([job, new(run_in_ms=1)])[0]
        made = door.enqueue_one(job)
        return made.id, made.created

    first, second = beside_an_open_transaction(database, whole_life, call, commit=True)
    assert second == (first, False)
    assert isinstance(first, int)
    assert store.get(first).state is State.SUCCEEDED


@COMMIT
def test_a_debounced_call_that_meets_a_claim_makes_the_next_job_or_moves_this_one(
    database: Database, store: Store, clock: MovableClock, commit: bool
) -> None:
    number = store.enqueue_one(debounced(args="[1]")).id
    clock.move(DELAY_MS)
    claimed, made = beside_an_open_transaction(
        database,
        lambda door: claim(door, life()),
        lambda door: door.enqueue_one(debounced(args="[2]")),
        commit=commit,
    )
    assert [job.id for job in claimed] == [number]  # type: ignore[attr-defined]
    assert isinstance(made, Job)
    assert (made.created, made.replaced) == (commit, not commit)
    assert (made.id == number) is not commit
    assert store.get(made.id).args == [2]
    assert store.holder("k") == made.id
    assert store.get(number).args == [1 if commit else 2]


@COMMIT
def test_a_claim_that_meets_a_debounced_call_does_not_take_what_is_moved(
    database: Database, store: Store, clock: MovableClock, commit: bool
) -> None:
    number = store.enqueue_one(debounced(args="[1]")).id
    clock.move(DELAY_MS)
    _, claimed = beside_an_open_transaction(
        database,
        lambda door: door.enqueue_one(debounced(args="[2]")),
        lambda door: claim(door, life()),
        commit=commit,
    )
    assert isinstance(claimed, list)
    if commit:
        assert (claimed, store.get(number).args) == ([], [2])
    else:  # it may have been passed over, and then is claimed the next time
        claimed += claim(store, life())
        assert [job.args for job in claimed] == ["[1]"]


@COMMIT
def test_a_retry_that_meets_a_call_for_its_key_never_runs_beside_its_successor(
    database: Database, store: Store, clock: MovableClock, commit: bool
) -> None:
    number = store.enqueue_one(debounced(args="[1]")).id
    clock.move(DELAY_MS)
    who = life()
    (job,) = claim(store, who)
    beside_an_open_transaction(
        database,
        lambda door: door.enqueue_one(debounced(args="[2]")),
        lambda door: door.apply([record(who, 1, job, "retry", delay_ms=0)], who),
        commit=commit,
    )
    clock.move(60_000)
    assert [each.args for each in claim(store, life())] == ["[2]" if commit else "[1]"]
    ended = store.get(number)
    assert ended.state is (State.CANCELLED if commit else State.RUNNING)


# -- what only a server with locks of rows can get wrong


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


class Waiter:
    """A caller in a transaction of its own that stays open, in a thread."""

    def __init__(self, server: PostgresDatabase, *, many: bool = False) -> None:
        opened = server.open()
        self._many = many
        assert isinstance(opened, PostgresStore)
        self.store = opened
        self.job: Job | None = None
        self.done, self.may_end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._act)

    def _act(self) -> None:
        with self.store.transaction():
            job = debounced(args="[2]", expires_in_ms=1_000)
            if self._many:
                number, created = self.store.enqueue([job, new()])[0]
                self.job = replace(self.store.get(number), created=created)
            else:
                self.job = self.store.enqueue_one(job)
            self.done.set()
            self.may_end.wait(30)

    def start_and_wait_for_a_lock(self, server: PostgresDatabase) -> None:
        pid = self.store._connected().info.backend_pid
        self._thread.start()
        asked = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = ?"
        eventually(
            lambda: server.sql(asked, pid) == [("Lock",)], what="the call waits for the claim"
        )

    def end(self) -> None:
        self.may_end.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def impatient(server: PostgresDatabase) -> PostgresStore:
    """A worker's store that waits for no lock longer than a moment."""
    store = server.open()
    assert isinstance(store, PostgresStore)
    store._connected().execute("SET lock_timeout = '300ms'")
    return store


def test_a_call_that_waited_for_a_claim_leaves_the_running_row_to_its_worker(
    server: PostgresDatabase,
) -> None:
    worker, caller, who = impatient(server), Waiter(server), life()
    number = worker.enqueue_one(debounced()).id
    server.clock.move(DELAY_MS)
    with worker.transaction():
        (job,) = claim(worker, who)
        caller.start_and_wait_for_a_lock(server)
    try:
        assert caller.done.wait(30)  # and its transaction is still open
        assert worker.apply([record(who, 1, job)], who).changed == 1
    finally:
        caller.end()
    assert caller.job is not None
    assert (caller.job.created, caller.job.id != number) == (True, True)


def test_a_claim_that_dies_under_a_waiting_call_leaves_it_the_job(server: PostgresDatabase) -> None:
    worker, caller = server.open(), Waiter(server)
    assert isinstance(worker, PostgresStore)
    number = worker.enqueue_one(debounced()).id
    server.clock.move(DELAY_MS)
    with suppress(StoreUnavailable), worker.transaction():
        claim(worker, life())
        caller.start_and_wait_for_a_lock(server)
        server.sql("SELECT pg_terminate_backend(?)", worker._connected().info.backend_pid)
        assert caller.done.wait(30)
    caller.end()
    assert caller.job is not None
    assert (caller.job.id, caller.job.replaced) == (number, True)
    assert worker.get(number).args == [2]


def test_a_job_that_has_come_back_without_its_key_is_not_the_one_that_is_replaced(
    server: PostgresDatabase,
) -> None:
    """Between a look at who holds the key and the change of that one."""
    worker, other, caller, who = server.open(), server.open(), server.open(), life()
    assert isinstance(caller, PostgresStore)
    number = worker.enqueue_one(debounced(args="[1]")).id
    following: list[int] = []

    def ask(name: str, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        rows = caller._asked(name, asked)
        if name == "holder" and not following:
            assert rows == [(number, None)]
            server.clock.move(DELAY_MS)
            (job,) = claim(worker, who)
            with worker.transaction():  # neither of the two sees the other
                worker.apply([record(who, 1, job, "retry", delay_ms=60_000)], who)
                following.append(other.enqueue_one(debounced(args="[2]")).id)
        return rows

    with caller.transaction():
        made = carried_out(enqueueing(debounced(args="[3]")), ask)
    assert (made.id, made.replaced) == (following[0], True)
    assert [worker.get(job).args for job in (number, made.id)] == [[1], [3]]


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_the_delay_of_a_call_that_waited_for_its_key_counts_from_then(
    server: PostgresDatabase, many: bool
) -> None:
    """Else all that have waited with it would run at once, one after the other."""
    first, caller = server.open(), Waiter(server, many=many)
    with first.transaction():
        first.enqueue_one(debounced())
        caller.start_and_wait_for_a_lock(server)
        server.clock.move(DELAY_MS)
        assert claim(first, life())
    caller.end()
    assert caller.job is not None
    assert caller.job.created
    made = first.get(caller.job.id)
    assert (from_datetime(made.created_at) - START_MS, due(made)) == (DELAY_MS, 2 * DELAY_MS)
    assert made.expires_at == to_datetime(START_MS + 2 * DELAY_MS + 1_000)


UPSERT = """
INSERT INTO {schema}.jobs (task, unique_key) VALUES ('app:f', 'k')
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL
    AND state IN ('scheduled', 'pending', 'blocked', 'running')
DO UPDATE SET args = excluded.args WHERE jobs.state <> 'running'
"""


@pytest.mark.parametrize("upsert", [True, False], ids=["an upsert", "ours"])
def test_a_call_about_a_running_job_does_not_hold_up_its_worker_as_an_upsert_would(
    server: PostgresDatabase, upsert: bool
) -> None:
    worker, who = impatient(server), life()
    worker.enqueue_one(keyed())
    (job,) = claim(worker, who)
    caller = server.open()
    assert isinstance(caller, PostgresStore)
    with caller.transaction():
        if upsert:
            caller._bare(UPSERT.format(schema=server.schema).encode())
        else:
            assert not caller.enqueue_one(keyed(conflict="replace")).replaced
        if upsert:
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                worker.apply([record(who, 1, job)], who)
        else:
            assert worker.apply([record(who, 1, job)], who).changed == 1
