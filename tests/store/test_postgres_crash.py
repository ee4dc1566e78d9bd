"""A server that crashes gives out again the numbers that never reached its disk."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.postgres import PostgresStore
from tests.postgres import Server
from tests.store.making import enqueue, life, new, record
from tests.waiting import eventually

#: Nothing is written to the disk but by a commit, so that a crash loses what was not committed.
UNWRITTEN = {"wal_writer_delay": "10s", "bgwriter_delay": "10s", "autovacuum": "off"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(settings=UNWRITTEN) as made:
        yield made.start()


@pytest.fixture
def store(server: Server) -> Iterator[PostgresStore]:
    made = open_store(server.url(), schema=f"t_{uuid.uuid4().hex}")
    assert isinstance(made, PostgresStore)
    made.migrate()
    yield made
    made.close()


def kill_a_backend(server: Server) -> None:
    """Which sends the whole server into recovery, the postmaster alive."""
    before = server.recoveries()
    with psycopg.connect(server.url(), autocommit=True) as other:
        server.kill_backend(other.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT pg_sleep(30)")
    # A connection ends before the postmaster hears of the death: until then the server answers as ever.
    eventually(lambda: server.recoveries() > before, what="the server has seen it")
    assert server.sql("SELECT 1") == [(1,)]  # which waits for the recovery


CRASHES: dict[str, Callable[[Server], None]] = {
    "stopped at once": lambda server: server.restart("immediate"),
    "a backend killed": kill_a_backend,
}


def transaction_number(store: PostgresStore) -> str:
    row = store._connected().execute(b"SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return str(row[0])


def crash_and_give_the_number_out_again(
    server: Server, store: PostgresStore, crash: Callable[[Server], None]
) -> None:
    """The server loses this store's open transaction, and others enqueue at once."""
    number = transaction_number(store)
    crash(server)
    other = open_store(server.url(), schema=store.schema)
    fate = (
        f"SELECT pg_snapshot_xmax(pg_current_snapshot()) > '{number}'::xid8"
        f" AND pg_xact_status('{number}'::xid8) = 'committed'"
    )

    def enqueue_until_committed() -> bool:
        enqueue(other)
        return server.sql(fate) == [(True,)]

    eventually(enqueue_until_committed, what="the number is another transaction's")
    other.close()


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES.keys())
def test_an_enqueue_lost_in_a_crash_is_never_told_as_stored(
    server: Server, store: PostgresStore, crash: Callable[[Server], None]
) -> None:
    def enqueue_in_vain() -> None:
        with store.transaction():
            enqueue(store)
            crash_and_give_the_number_out_again(server, store, crash)

    with pytest.raises(StoreUnavailable, match="crashed"):
        enqueue_in_vain()


def test_a_turn_lost_in_a_crash_is_never_told_as_committed(
    server: Server, store: PostgresStore
) -> None:
    who = life()
    store.enqueue([new()] * 2)
    jobs = store.turn(who, 1, queues=["default"], limit=1, register=True).jobs

    def settle_in_vain() -> None:
        with store.transaction():
            store.turn(who, 2, queues=["default"], limit=1, journal=[record(who, 1, jobs[0])])
            crash_and_give_the_number_out_again(server, store, CRASHES["stopped at once"])

    with pytest.raises(StoreUnavailable, match="crashed"):
        settle_in_vain()
    rows = store.find()
    assert [(job.id, job.claim) for job in rows if job.state == "running"] == [(jobs[0].id, 1)]
