"""What is PostgreSQL's own: migrations, limits, waking, and connections that break at any moment."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import JobsError, RowRefused, SchemaError, StoreRefused, StoreUnavailable
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.store import Rest, Store, fate, open_store
from jobvisor.jobs.store.base import Life
from jobvisor.jobs.store.inserts import ROWS_AT_ONCE
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.tables import SCHEMA
from tests.clock import MovableClock
from tests.postgres import Server, Stranger, debian, shared, wheel
from tests.proxy import Proxy
from tests.store.database import PostgresDatabase
from tests.store.making import (
    CRASH,
    GONE,
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
    undone,
)
from tests.store.processes import in_a_copy
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PATIENT = 30.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    """A schema whose clock is the test's."""
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(database: PostgresDatabase) -> PostgresStore:
    return opened(database)


def opened(database: PostgresDatabase) -> PostgresStore:
    made = database.open()
    assert isinstance(made, PostgresStore)
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its own, not the shared one: these tests reconfigure it and stop its processes."""
    with Server() as made:
        yield made.start()


class Place(NamedTuple):
    """A migrated schema of the server, seen from the network and from beside it."""

    server: Server
    proxy: Proxy
    stranger: Stranger
    schema: str
    stores: list[Store]

    def open(self, *, through: bool = True, **options: Any) -> PostgresStore:
        """One more store, through the network or beside it."""
        url = self.server.url()
        made = open_store(self.proxy.url(url) if through else url, schema=self.schema, **options)
        assert isinstance(made, PostgresStore)
        self.stores.append(made)
        made.open()
        return made

    def states(self) -> list[str]:
        """The states of all jobs, in the order of their ids."""
        return [row[0] for row in self.stranger.sql("SELECT state FROM jobs ORDER BY id")]


@pytest.fixture
def place(server: Server) -> Iterator[Place]:
    schema = f"t_{uuid.uuid4().hex}"
    stranger = Stranger(server.url(), schema)
    first = open_store(server.url(), schema=schema)
    first.migrate()
    stores: list[Store] = [first]
    with Proxy(server.host, server.port) as proxy:
        yield Place(server, proxy, stranger, schema, stores)
        for made in stores:
            made.close()
    stranger.sql(f"DROP SCHEMA {schema} CASCADE")
    stranger.close()


def shown(store: PostgresStore, name: str) -> object:
    row = store._connected().execute(f"SHOW {name}".encode()).fetchone()
    assert row is not None
    return row[0]


def backend(store: PostgresStore) -> int:
    return store._connected().info.backend_pid


def end_connection(stranger: Stranger | PostgresDatabase, store: PostgresStore) -> None:
    """The server ends the connection of a store, who does not look."""
    pid = backend(store)
    stranger.sql("SELECT pg_terminate_backend(?)", pid)
    eventually(
        lambda: stranger.sql("SELECT count(*) FROM pg_stat_activity WHERE pid = ?", pid) == [(0,)],
        what="the backend is gone",
    )


def at_ease() -> None:
    """Nothing to do while the store waits."""


def seconds_since(began: int) -> float:
    return (SYSTEM.monotonic_ns() - began) / 1e9


# -- statements


# -- a fork, an interrupt


VERBS: dict[str, Callable[[PostgresStore], object]] = {
    "open": PostgresStore.open,
    "get": lambda store: store.get(1),
    "enqueue": lambda store: store.enqueue([new()]),
    "enqueue many": lambda store: store.enqueue([new()] * 10),
    "turn": lambda store: store.turn(life(), 1, queues=["default"], limit=1),
    "transaction": lambda store: store.transaction().__enter__(),
    "listen": lambda store: store.waker().drain(),
    "migrate": PostgresStore.migrate,
}


TOUCHING = [name for name in VERBS if name not in ("migrate", "transaction")]  # the tables at once


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_a_store_refuses_to_be_used_in_a_forked_copy(
    store: PostgresStore, verb: Callable[[PostgresStore], object]
) -> None:
    enqueue(store)
    assert in_a_copy(lambda: verb(store)).startswith("ForkedStore: the connection to ")
    assert len(store.find()) == 1


def test_a_copy_that_closes_its_parents_store_may_open_it_anew(store: PostgresStore) -> None:
    enqueue(store)
    connected = backend(store)

    def close_and_use() -> int:
        store.close()
        return enqueue(store)

    number = int(in_a_copy(close_and_use))
    assert store.get(number).state is State.PENDING
    assert backend(store) == connected, "the copy has ended its parent's connection"


def test_an_enqueue_whose_key_is_held_by_a_job_that_is_done_and_gone_meanwhile_is_stored(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    worker, who, done = database.open(), life(), threading.Event()

    def work() -> None:
        ended: list[Claimed] = []
        for number in itertools.count(1):
            leaving = done.is_set()
            journal = [record(who, number - 1, job) for job in ended]
            ended = worker.turn(
                who, number, queues=["default"], limit=5, journal=journal,
                register=number == 1, forget_succeeded=True,
            ).jobs  # fmt: skip
            if leaving and not ended:
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        made = [store.enqueue_one(new(unique_key="k")).created for _ in range(300)]
    finally:
        done.set()
        thread.join(30)
    assert any(made)
    assert store.find() == []


def test_a_refusal_names_the_rule_and_not_what_is_in_the_row(store: PostgresStore) -> None:
    late = new(args='["secret"]', run_at_ms=253_402_300_799_000, expires_in_ms=10_000)
    for act in (store.enqueue_one, lambda job: store.enqueue([job, job])):
        with pytest.raises(RowRefused, match="jobs_expires_at_check") as refused:
            act(late)
        assert "secret" not in str(refused.value)


def test_a_copy_made_while_a_thread_connects_may_close_the_store(store: PostgresStore) -> None:
    store.close()
    connecting, go_on = threading.Event(), threading.Event()

    def beat() -> None:
        connecting.set()
        go_on.wait(30)

    store.on_wait = beat
    thread = threading.Thread(target=store.find)
    thread.start()
    connecting.wait(30)
    answer = in_a_copy(store.close)
    go_on.set()
    thread.join(30)
    assert answer == "None"


HANGING: dict[str, Callable[[PostgresStore], object]] = {
    "get": lambda store: store.find(),
    "enqueue": enqueue,
    "turn": lambda store: claim(store, life()),
}


def _interrupt_from_outside() -> None:
    """A moment later, while the wait goes on."""
    threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGINT)).start()


INTERRUPTS = {
    "between two looks": lambda: signal.raise_signal(signal.SIGINT),
    "while it looks": _interrupt_from_outside,
}


class AlarmError(Exception):
    """What an application raises out of a signal handler of its own."""


@pytest.mark.parametrize("interrupt", INTERRUPTS.values(), ids=INTERRUPTS.keys())
@pytest.mark.parametrize("verb", ["turn", "enqueue"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, AlarmError])
def test_an_interrupt_in_the_middle_of_a_wait_is_heard_and_leaves_a_usable_store(
    database: PostgresDatabase,
    store: PostgresStore,
    verb: str,
    interrupt: Callable[[], None],
    raised: type[BaseException],
) -> None:
    def handler(*_: object) -> None:
        raise raised

    number, left = enqueue(store), backend(store)
    before = signal.signal(signal.SIGINT, handler)
    beats: list[None] = []

    def once() -> None:
        beats.append(None)
        if len(beats) == 1:
            interrupt()

    holder = Stranger(database.url, database.schema)
    try:
        holder.sql("BEGIN; LOCK TABLE jobs IN EXCLUSIVE MODE")
        store.on_wait = once
        with pytest.raises(raised):
            HANGING[verb](store)
    finally:
        holder.close()
        signal.signal(signal.SIGINT, before)
    # What had been sent may be done, as with any answer that was not waited for.
    eventually(
        lambda: (
            database.sql("SELECT 1 FROM pg_stat_activity WHERE pid = ? AND state = 'active'", left)
            == []
        ),
        what="the backend that was left is through",
    )
    for (owner,) in database.sql("SELECT owner FROM jobs WHERE state = 'running'"):
        store.release_rest(owner)
    store.on_wait = at_ease
    (job,) = claim(store, life())
    assert (job.id, job.attempt) == (number, 1)


# -- the schema


@pytest.fixture
def empty() -> Iterator[str]:
    """The URL of a database without any table."""
    url = shared().new_database()
    yield url
    shared().drop_database(url)


def test_a_first_migration_tells_its_numbers_and_a_second_changes_nothing(empty: str) -> None:
    store = open_store(empty)
    assert store.migrate() == (0, SCHEMA)
    name = store.database_id()
    number = enqueue(store)
    assert store.migrate() == (SCHEMA, SCHEMA)
    assert (store.database_id(), store.get(number).state) == (name, State.PENDING)
    store.close()


@pytest.mark.parametrize(
    "verb",
    [*(VERBS[name] for name in TOUCHING), PostgresStore.check_schema],
    ids=[*TOUCHING, "check"],
)
def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(
    empty: str, verb: Callable[[PostgresStore], object]
) -> None:
    store = open_store(empty)
    assert isinstance(store, PostgresStore)
    for _ in range(2):
        with pytest.raises(SchemaError, match="run `jobvisor migrate`"):
            verb(store)
    store.close()
    with psycopg.connect(empty) as stranger:
        made = stranger.execute("SELECT to_regnamespace('jobvisor')").fetchone()
    assert made == (None,)


_MIGRATE_TOGETHER = """
import sys, time
from jobvisor.jobs.store import fate, open_store
begin, url, *schemas = sys.argv[1:]
for number, schema in enumerate(schemas):
    store = open_store(url, schema=schema)
    while time.time() < float(begin) + number * 0.1:
        pass
    print(store.migrate()[1], store.database_id(), store.counts(), flush=True)
    store.close()
"""


def test_two_first_migrations_at_the_same_instant_are_one(empty: str) -> None:
    schemas = [f"s{number}" for number in range(10)]
    begin = str(SYSTEM.now_ms() / 1_000 + 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATE_TOGETHER, begin, empty, *schemas],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    (first, said), (second, also_said) = (process.communicate(timeout=40) for process in processes)
    assert first == second
    assert len(set(first.splitlines())) == len(schemas), said + also_said


def test_a_migration_waits_for_another_of_its_schema(empty: str) -> None:
    other = Stranger(empty, "public")
    other.sql("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('jobvisor', 0))")
    store = open_store(empty)
    seen: list[object] = []

    def look() -> None:
        seen.append(other.sql("SELECT to_regclass('jobvisor.jobs')")[0][0])
        if len(seen) == 4:
            other.sql("COMMIT")

    store.on_wait = look
    assert store.migrate() == (0, SCHEMA)
    assert len(seen) >= 4
    assert set(seen[:4]) == {None}
    other.close()
    store.close()


def test_a_migration_that_fails_leaves_nothing(empty: str) -> None:
    with psycopg.connect(empty) as stranger:
        stranger.execute("CREATE SCHEMA jobvisor")
        stranger.execute("CREATE VIEW jobvisor.attempts_readable AS SELECT 1")  # in its last line
    store = open_store(empty)
    with pytest.raises((JobsError, psycopg.Error)):
        store.migrate()
    store.close()
    with psycopg.connect(empty) as stranger:
        assert stranger.execute("SELECT to_regclass('jobvisor.jobs')").fetchone() == (None,)


def newer(database: PostgresDatabase, *, oldest: int) -> None:
    database.sql("UPDATE meta SET value = '99' WHERE key = 'schema'")
    database.sql("UPDATE meta SET value = ? WHERE key = 'oldest_schema'", str(oldest))


def test_a_schema_newer_than_this_release_is_refused(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    newer(database, oldest=99)
    store.close()
    for _ in range(2):
        with pytest.raises(SchemaError, match=f"has schema 99, and this release knows {SCHEMA}"):
            enqueue(store)
        with pytest.raises(SchemaError, match="install a newer jobvisor"):
            store.migrate()
    assert database.sql("SELECT count(*) FROM jobs") == [(0,)]


def test_a_newer_schema_that_allows_this_release_is_used(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    database.sql("ALTER TABLE jobs ADD COLUMN flavour text")
    newer(database, oldest=SCHEMA)
    store.close()
    who, job = running(store)
    assert store.apply([record(who, 1, job)], who).changed == 1
    assert store.migrate() == (99, 99)


@pytest.mark.parametrize("key", ["schema", "oldest_schema"])
@pytest.mark.parametrize("value", ["", "two", "-1", "²"])
def test_a_version_that_is_no_number_is_told_in_one_sentence(
    database: PostgresDatabase, store: PostgresStore, key: str, value: str
) -> None:
    store.close()
    database.sql("UPDATE meta SET value = ? WHERE key = ?", value, key)
    for use in (store.open, store.migrate):
        with pytest.raises(SchemaError, match=f"says {key} = '{value}', which is no number"):
            use()


def test_a_store_in_use_notices_that_the_schema_has_moved_on(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    store.check_schema()
    newer(database, oldest=99)
    with pytest.raises(SchemaError, match="install a newer jobvisor"):
        store.check_schema()


def test_a_column_that_is_added_under_prepared_statements_disturbs_nobody(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    for _ in range(8):
        who, job = running(store)
        store.apply([record(who, 1, job)], who)
        store.find()
    database.sql("ALTER TABLE jobs ADD COLUMN flavour text")
    who, job = running(store)
    assert store.apply([record(who, 1, job)], who).changed == 1
    assert len(store.find()) == 9


def test_tables_that_vanish_under_a_store_are_named_a_schema_error(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    enqueue(store)
    database.sql("ALTER TABLE jobs RENAME TO others")
    with pytest.raises(SchemaError, match="run `jobvisor migrate`"):
        store.find()


def test_schemas_side_by_side_neither_see_nor_wake_each_other(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    other = PostgresDatabase(tmp_path)
    mine, theirs = opened(database), opened(other)
    assert mine.database_id() != theirs.database_id()
    waker = theirs.waker()
    while waker.drain() is not None:
        pass
    enqueue(mine)
    assert theirs.find() == []
    assert claim(theirs, life()) == []
    waker = theirs.waker()
    assert waker.drain() == 0.0  # it listens again after its turn
    enqueue(mine, queue="another")
    # What a session is told is told in order: its own schema's word comes after the other's.
    while waker.drain() is not None:
        pass
    assert theirs.look(["default", "another"])[:2] == (False, None)
    enqueue(theirs)
    eventually(lambda: waker.drain() == 0.0, what="it is woken by its own schema")
    other.close()


def test_a_schema_with_a_name_that_must_be_quoted_works(empty: str) -> None:
    store = open_store(empty, schema="order")  # a word of SQL
    store.migrate()
    waker = store.waker()
    assert waker.drain() == 0.0
    numbers = [number for number, _ in store.enqueue([new()] * 6)]
    eventually(lambda: waker.drain() == 0.0, what="it is woken")
    assert [job.id for job in claim(store, life())] == numbers
    store.close()


# -- a stranger's rows


def test_a_strangers_row_is_an_ordinary_job_due_at_once(empty: str) -> None:
    store = open_store(empty)
    store.migrate()
    stranger = Stranger(empty)
    stranger.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert stranger.sql("SELECT created_at = run_at FROM jobs") == [(True,)]
    (job,) = claim(store, life())
    assert (job.task, job.attempt, job.attempts_max) == ("app:f", 1, 4)
    stranger.close()
    store.close()


@pytest.mark.parametrize(
    "values",
    [
        "(task) VALUES ('')",
        "(task, args) VALUES ('app:f', 'no json')",
        "(task, queue) VALUES ('app:f', '*')",
        "(task, state) VALUES ('app:f', 'waiting')",
        "(task, attempts_max) VALUES ('app:f', 0)",
        "(task, priority) VALUES ('app:f', 'high')",
    ],
)
def test_a_strangers_row_that_could_not_run_is_refused(
    database: PostgresDatabase, store: PostgresStore, values: str
) -> None:
    with pytest.raises(psycopg.Error):
        database.sql(f"INSERT INTO jobs {values}")
    assert store.find() == []


# -- limits of every connection


def test_a_connection_has_limits_for_whatever_may_take_too_long(database: PostgresDatabase) -> None:
    store = open_store(database.url, schema=database.schema, patience=8)
    assert isinstance(store, PostgresStore)
    store.open()
    assert shown(store, "statement_timeout") == "8s"
    assert shown(store, "lock_timeout") == "4s"
    assert shown(store, "idle_in_transaction_session_timeout") == "30s"
    # The server's end asks the client's for life.
    assert shown(store, "tcp_keepalives_idle") == "10"
    assert shown(store, "tcp_keepalives_interval") == "5"
    assert shown(store, "tcp_keepalives_count") == "3"
    store.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_USER_TIMEOUT is Linux's")
def test_a_socket_asks_for_life_and_does_not_wait_for_ever_for_an_answer(
    database: PostgresDatabase,
) -> None:
    store = open_store(database.url, schema=database.schema, patience=8)
    store.open()
    with socket.socket(fileno=os.dup(store.descriptors()[0])) as copy:
        assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8_000
    store.close()


def test_the_words_of_the_url_win_over_our_own(database: PostgresDatabase) -> None:
    url = f"{database.url}?application_name=mine&tcp_user_timeout=1234"
    store = open_store(url, schema=database.schema, application="ours")
    assert isinstance(store, PostgresStore)
    store.open()
    assert shown(store, "application_name") == "mine"
    store.close()


def test_a_connection_says_whose_it_is(database: PostgresDatabase) -> None:
    store = open_store(database.url, schema=database.schema, application="jobvisor main worker 3")
    assert isinstance(store, PostgresStore)
    store.open()
    told = database.sql(
        "SELECT application_name FROM pg_stat_activity WHERE pid = ?", backend(store)
    )
    assert told == [("jobvisor main worker 3",)]
    store.close()


def test_a_lock_that_another_holds_for_too_long_is_unavailable_and_names_it(place: Place) -> None:
    store = place.open(through=False, patience=1)
    before = enqueue(store)
    holder = Stranger(place.server.url(), place.schema)
    holder.sql("BEGIN; LOCK TABLE jobs IN EXCLUSIVE MODE")
    beats: list[None] = []
    store.on_wait = lambda: beats.append(None)
    began = SYSTEM.monotonic_ns()
    with pytest.raises(StoreUnavailable, match="somebody else holds it"):
        claim(store, life())
    assert seconds_since(began) < 15  # of 30
    assert beats
    holder.close()
    assert [job.id for job in claim(store, life())] == [before]


def test_a_statement_that_takes_too_long_is_ended_by_the_server(place: Place) -> None:
    store = place.open(through=False, patience=1)
    place.stranger.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;"
        "CREATE TRIGGER linger BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION linger()"
    )
    began = SYSTEM.monotonic_ns()
    with pytest.raises(StoreUnavailable, match="it was interrupted"):
        enqueue(store)
    assert seconds_since(began) < 15  # of 30
    assert place.states() == []


# -- a place that refuses


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks all but its owner for a password."""
    with Server() as made:
        made.start()
        rules = "host all postgres all trust\nhost all all all scram-sha-256\n"
        (made.folder / "data" / "pg_hba.conf").write_text(rules)
        made.sql("SELECT pg_reload_conf()")
        made.sql("CREATE ROLE alice LOGIN PASSWORD 'right'")
        yield made


REFUSED = {
    "a wrong password": ("alice:wr0ng-s3cret", "postgres"),
    "an unknown user": ("bob:wr0ng-s3cret", "postgres"),
    "no such database": ("postgres:wr0ng-s3cret", "nowhere"),
}


@pytest.mark.parametrize(("user", "name"), REFUSED.values(), ids=REFUSED.keys())
def test_what_will_not_be_better_later_is_refused_without_a_word_of_the_password(
    guarded: Server, user: str, name: str
) -> None:
    store = open_store(f"postgresql://{user}@{guarded.host}:{guarded.port}/{name}")
    for _ in range(2):
        with pytest.raises(StoreRefused) as caught:
            store.open()
        assert "wr0ng" not in str(caught.value)
        assert "***" in str(caught.value)


def test_a_user_without_privileges_is_refused(guarded: Server) -> None:
    url = guarded.new_database()
    owner = open_store(url)
    owner.migrate()
    owner.close()
    store = open_store(url.replace("postgres@", "alice:right@"))
    with pytest.raises(StoreRefused, match="this user lacks a privilege"):
        enqueue(store)
    store.close()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = open_store(f"postgresql://a:s3cret@127.0.0.1:{free.getsockname()[1]}/x")
        with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
            store.open()
    assert "s3cret" not in str(caught.value)


def test_a_server_that_has_no_connection_left_is_unavailable_until_it_has(place: Place) -> None:
    role = f"few_{uuid.uuid4().hex[:8]}"
    place.stranger.sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    url = place.server.url(user=role)
    place.stranger.sql(
        f"GRANT USAGE ON SCHEMA {place.schema} TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {place.schema} TO {role}"
    )
    store = open_store(url, schema=place.schema)
    place.stores.append(store)
    with psycopg.connect(url), pytest.raises(StoreUnavailable, match="too many connections"):
        store.find()

    def is_found() -> bool:
        try:
            return store.find() == []
        except StoreUnavailable:
            return False

    # The server shows the other no more before it counts it no more.
    eventually(is_found, what="the other has left")


def test_a_read_only_server_is_unavailable_and_recovers(place: Place) -> None:
    store, late = place.open(through=False), open_store(place.server.url(), schema=place.schema)
    place.stores.append(late)
    enqueue(store)
    place.stranger.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        place.stranger.sql("SELECT pg_reload_conf()")
        eventually(
            lambda: shown(store, "default_transaction_read_only") == "on", what="it is read-only"
        )
        for one in (store, late, store):
            with pytest.raises(StoreUnavailable, match="read-only"):
                enqueue(one)
    finally:
        place.stranger.sql("SET default_transaction_read_only = off")
        place.stranger.sql("ALTER SYSTEM RESET default_transaction_read_only")
        place.stranger.sql("SELECT pg_reload_conf()")
    eventually(
        lambda: place.server.sql("SHOW default_transaction_read_only") == [("off",)],
        what="it is writable again",
    )
    assert (enqueue(store), enqueue(late)) == (2, 3)


# -- a connection that breaks


@contextmanager
def commits_meanwhile(place: Place) -> Iterator[list[int]]:
    """The ids of all rows that were committed, at the end of the block."""
    found: list[int] = []
    yield found
    found += [row[0] for row in place.stranger.sql("SELECT id FROM jobs ORDER BY id")]


FIRST_USES: dict[str, Callable[[PostgresStore], object]] = {
    "one job": lambda store: store.enqueue([new()]),
    "many jobs": lambda store: store.enqueue([new()] * 10),
    "a question": lambda store: store.find(),
    "a heartbeat": lambda store: store.heartbeat(1),
    "the waker": lambda store: store.waker().drain(),
}


@pytest.mark.parametrize("use", FIRST_USES.values(), ids=FIRST_USES.keys())
def test_a_connection_found_dead_at_its_first_use_is_replaced_in_silence(
    place: Place, use: Callable[[PostgresStore], object]
) -> None:
    store = place.open()
    end_connection(place.stranger, store)
    use(store)
    end_connection(place.stranger, store)
    use(store)


def test_a_worker_whose_connection_died_between_two_turns_loses_nothing(place: Place) -> None:
    store = place.open()
    who = life()
    numbers = [number for number, _ in store.enqueue([new()] * 3)]
    jobs = store.turn(who, 1, queues=["default"], limit=2, register=True).jobs
    journal = [record(who, 1, job) for job in jobs]
    end_connection(place.stranger, store)
    try:
        turn = store.turn(who, 2, queues=["default"], limit=2, journal=journal)
    except StoreUnavailable:
        turn = store.turn(who, 3, queues=["default"], limit=2, journal=journal, rest=Rest())
    assert [job.id for job in turn.jobs] == numbers[2:]
    assert place.states() == ["succeeded", "succeeded", "running"]


def test_a_connection_that_dies_within_a_transaction_undoes_all_of_it(place: Place) -> None:
    store = place.open()

    def enqueue_two() -> None:
        with store.transaction():
            enqueue(store)
            end_connection(place.stranger, store)
            enqueue(store)

    with pytest.raises(StoreUnavailable):
        enqueue_two()
    assert place.states() == []
    assert enqueue(store)


def test_a_connection_that_dies_before_the_commit_undoes_all_of_it(place: Place) -> None:
    store = place.open()

    def enqueue_in_vain() -> None:
        with store.transaction():
            enqueue(store)
            end_connection(place.stranger, store)

    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        enqueue_in_vain()
    assert place.states() == []
    assert enqueue(store)


@pytest.mark.parametrize("many", [1, 10], ids=["one", "many"])
def test_a_commit_whose_answer_was_lost_is_looked_up_and_found(place: Place, many: int) -> None:
    store = place.open()
    for _ in range(3):
        place.proxy.drop_after(b"COMMIT")
        with commits_meanwhile(place) as committed:
            numbers = [number for number, _ in store.enqueue([new()] * many)]
        assert committed[-many:] == numbers
    assert place.proxy.met == 3
    assert len(place.states()) == 3 * many


@pytest.mark.parametrize("many", [1, 10], ids=["one", "many"])
def test_a_commit_that_never_arrived_is_looked_up_and_told_as_nothing(
    place: Place, many: int
) -> None:
    store = place.open()
    for _ in range(3):
        place.proxy.drop_before(b"COMMIT")
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            store.enqueue([new()] * many)
    assert place.proxy.met == 3
    assert place.states() == []
    assert enqueue(store)


def test_a_lost_commit_that_nobody_can_be_asked_about_is_told_as_unknown(place: Place) -> None:
    clock = MovableClock()
    store = place.open(clock=clock)
    place.proxy.drop_after(b"COMMIT")

    def cut_for_long() -> None:
        place.proxy.cut()
        clock.move(4_000)

    def enqueue_and_wonder() -> None:
        with store.transaction():
            enqueue(store)
            store.on_wait = cut_for_long

    with pytest.raises(StoreUnavailable, match="whether it was done is not known"):
        enqueue_and_wonder()
    place.proxy.restore()
    store.on_wait = at_ease
    assert place.states() == ["pending"]
    assert len(store.find()) == 1


def test_after_a_crash_was_found_the_next_lost_commit_can_be_looked_up_again(place: Place) -> None:
    store = place.open()

    def enqueue_over_a_crash() -> None:
        with store.transaction():
            enqueue(store)
            place.stranger.sql("DELETE FROM incarnation")  # a crash leaves nothing of it
            place.proxy.drop_after(b"COMMIT")

    with pytest.raises(StoreUnavailable, match="the server has crashed"):
        enqueue_over_a_crash()
    place.proxy.drop_after(b"COMMIT")
    assert enqueue(store) == 2


INSERTING = b".jobs (task, args, kwargs, queue, priority,"


@pytest.mark.parametrize("key", [None, "held"], ids=["ordinary", "with a key"])
def test_a_job_enqueued_by_one_statement_whose_answer_was_lost_is_found(
    place: Place, key: str | None
) -> None:
    events = Events()
    seen: list[Event] = []
    events.subscribe(seen.append)
    store = place.open(events=events)
    place.proxy.drop_after(INSERTING)
    job = store.enqueue_one(new(args='["x"]', unique_key=key))
    assert place.proxy.met == 1
    assert (job.id, job.created, job.args) == (1, True, ["x"])
    assert place.states() == ["pending"]
    assert [(event.verb, event.job) for event in seen] == [("enqueue", 1)]


@pytest.mark.parametrize("key", [None, "held"], ids=["ordinary", "with a key"])
def test_a_job_enqueued_by_one_statement_that_never_arrived_is_told_as_not_there(
    place: Place, key: str | None
) -> None:
    store = place.open()
    place.proxy.drop_before(INSERTING)
    with pytest.raises(StoreUnavailable, match="the job is not there"):
        store.enqueue_one(new(unique_key=key))
    assert place.proxy.met == 1
    assert place.states() == []
    assert store.enqueue_one(new()).id


def test_a_lost_enqueue_that_is_still_under_way_is_waited_for(place: Place) -> None:
    store = place.open()
    place.stranger.sql("BEGIN")
    place.stranger.sql("LOCK TABLE jobs IN SHARE MODE")
    place.proxy.drop_after(INSERTING)
    waits: list[None] = []

    def let_it_go_on() -> None:
        waits.append(None)
        if len(waits) == 3:
            place.stranger.sql("COMMIT")

    cut = threading.Thread(target=lambda: cut_when_it_waits(place, store))
    cut.start()
    store.on_wait = let_it_go_on
    told = ""
    try:
        store.enqueue_one(new())
    except StoreUnavailable as error:
        # The lock is waited for while the statement is parsed: the cut may have come before the rest.
        told = str(error)
    cut.join(30)
    assert told or len(waits) >= 3
    assert place.states() == ([] if told else ["pending"])
    assert not told or fate.NOT_THERE in told


def cut_when_it_waits(place: Place, store: PostgresStore) -> None:
    blocked = (
        "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"
        f" AND relation = '{place.schema}.jobs'::regclass"
    )
    eventually(lambda: place.server.sql(blocked) == [(True,)], what="the insert waits")
    place.proxy.cut()
    place.proxy.restore()


def test_a_job_enqueued_after_a_long_rest_goes_by_a_transaction(place: Place) -> None:
    """A connection that died in silence has then done nothing, and the job is enqueued over another."""
    clock = MovableClock()
    store = place.open(clock=clock)
    store.enqueue_one(new())
    clock.move(2_000)
    place.proxy.drop_before(b"BEGIN")
    assert [store.enqueue_one(new()).created for _ in range(2)] == [True, True]
    assert place.states() == ["pending"] * 3


def test_a_connection_whose_end_was_told_is_not_trusted_with_a_job_alone(place: Place) -> None:
    store = place.open()
    connection = store._connected()
    end_connection(place.stranger, store)
    eventually(lambda: select.select([connection], [], [], 0)[0], what="the farewell is here")
    assert store.enqueue_one(new()).created
    assert place.states() == ["pending"]


def test_a_job_enqueued_alone_is_told_as_it_stands(store: PostgresStore) -> None:
    store.enqueue_one(new())
    told = store.enqueue_one(
        new(
            args='[1, "\u00fc"]', kwargs='{"a": null}', queue="q", priority=-3, run_in_ms=60_000,
            attempts_max=7, timeout_ms=2_500, memory_bytes=9, unique_key="k", expires_in_ms=70_000,
        )
    )  # fmt: skip
    assert told == store.get(told.id)
    held = store.enqueue_one(new(unique_key="k"))
    assert (held.id, held.created) == (told.id, False)


def test_events_of_a_commit_that_was_found_are_told_and_of_a_lost_one_not(place: Place) -> None:
    events = Events()
    seen: list[Event] = []
    events.subscribe(seen.append)
    store = place.open(events=events)
    place.proxy.drop_before(b"COMMIT")
    with pytest.raises(StoreUnavailable):
        enqueue(store)
    assert seen == []
    place.proxy.drop_after(b"COMMIT")
    number = enqueue(store)
    assert [(event.verb, event.job) for event in seen] == [("enqueue", number)]


def test_a_commit_that_waits_for_a_standby_when_it_is_cut_off_is_found(place: Place) -> None:
    """The row is committed here, and no standby has it yet: the answer is what a crash would keep."""
    store = place.open()
    place.stranger.sql("SET synchronous_commit = local")
    place.stranger.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    place.stranger.sql("SELECT pg_reload_conf()")
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(enqueue(store)))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    try:
        eventually(
            lambda: place.server.sql("SHOW synchronous_standby_names") == [("nobody",)],
            what="a standby is asked for",
        )
        thread.start()
        ((pid,),) = eventually(lambda: place.stranger.sql(waiting), what="it waits")
        place.stranger.sql("SELECT pg_terminate_backend(?)", pid)
        thread.join(30)
    finally:
        place.stranger.sql("ALTER SYSTEM RESET synchronous_standby_names")
        place.stranger.sql("SELECT pg_reload_conf()")
    assert [job.id for job in store.find()] == ids


LOST: dict[str, Callable[[Proxy, bytes], None]] = {
    "its answer is lost": Proxy.drop_after,
    "it never arrives": Proxy.drop_before,
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("unsure", [False, True], ids=["sure", "unsure"])
@pytest.mark.parametrize("verb", ["succeed", "retry", "fail"])
def test_a_turn_whose_commit_breaks_is_either_raised_or_true(
    place: Place, verb: str, unsure: bool, lose: Callable[[Proxy, bytes], None]
) -> None:
    """Whatever it says: what it returns as claimed is claimed, and the journal is not applied twice."""
    store, who = place.open(), life()
    store.add_family(family())  # an older transaction of this store, and a committed one
    numbers = [number for number, _ in store.enqueue([new()] * 4)]
    jobs = store.turn(who, 1, queues=["default"], limit=2, register=True).jobs
    journal = [record(who, 1, job, verb) for job in jobs]
    lose(place.proxy, b"COMMIT")
    applied = False
    try:
        turn = store.turn(
            who, 2, queues=["default"], limit=2, journal=journal, rest=Rest() if unsure else None
        )
    except StoreUnavailable:
        turn = store.turn(who, 3, queues=["default"], limit=2, journal=journal, rest=Rest())
        applied = not turn.applied.lost
    else:
        applied = turn.applied.changed == 2
    assert place.proxy.met == 1
    assert applied
    assert [job.id for job in turn.jobs] == numbers[2:]
    rows = place.stranger.sql("SELECT id, state, owner, claims - attempt FROM jobs ORDER BY id")
    ended = {"succeed": "succeeded", "retry": "scheduled", "fail": "failed"}[verb]
    assert [row[1] for row in rows] == [ended] * 2 + ["running"] * 2
    assert {row[2] for row in rows} == {who.owner}
    history = place.stranger.sql("SELECT job, count(*) FROM attempts GROUP BY job ORDER BY job")
    assert history == ([] if verb == "succeed" else [(number, 1) for number in numbers[:2]])


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("commit", [1, 2], ids=["its first commit", "its second commit"])
def test_a_first_turn_whose_commit_breaks_is_no_fault_of_the_worker(
    place: Place, commit: int, lose: Callable[[Proxy, bytes], None]
) -> None:
    enqueue(place.open(through=False))
    store, who = place.open(), life()
    if commit == 2:
        store.add_family(family())
    lose(place.proxy, b"COMMIT")
    for number in (1, 2):
        try:
            turn = store.turn(who, number, queues=["default"], limit=2, register=True, rest=Rest())
        except StoreUnavailable:
            continue
        break
    assert [(job.id, job.attempt) for job in turn.jobs] == [(1, 1)]
    assert place.stranger.sql("SELECT owner FROM owners") == [(who.owner,)]


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST.keys())
def test_a_settling_whose_commit_breaks_can_be_told_again(
    place: Place, lose: Callable[[Proxy, bytes], None]
) -> None:
    store = place.open()
    who, job = running(store)
    records = [record(who, 1, job, "fail")]
    lose(place.proxy, b"COMMIT")
    try:
        store.apply(records, who)
    except StoreUnavailable:
        assert store.apply(records, who).lost == []
    assert store.apply(records, who).lost == []
    assert place.states() == ["failed"]
    assert len(store.attempts(job.id)) == 1


# -- a server that hangs


def test_a_backend_that_hangs_is_left_and_another_asked(place: Place) -> None:
    store = place.open(through=False, patience=1)
    number = enqueue(store)
    hanging = backend(store)
    beats: list[None] = []
    store.on_wait = lambda: beats.append(None)
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert store.get(number).state is State.PENDING
        assert backend(store) != hanging
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert len(beats) >= 10, "the beat stood still while it waited"


@pytest.mark.parametrize("verb", HANGING.values(), ids=HANGING.keys())
def test_a_network_that_swallows_everything_is_unavailable_in_time(
    place: Place, verb: Callable[[PostgresStore], object]
) -> None:
    store = place.open(patience=1)
    store.find()
    beats: list[int] = []
    store.on_wait = lambda: beats.append(SYSTEM.monotonic_ns())
    place.proxy.freeze()
    began = SYSTEM.monotonic_ns()
    with pytest.raises(StoreUnavailable):
        verb(store)
    # The patience, a grace for the server's own answer, and two seconds for a new connection.
    assert seconds_since(began) < 20
    assert len(beats) >= 10
    place.proxy.restore()
    verb(store)


def test_a_connection_that_cannot_be_made_is_given_up_before_anybody_is_taken_for_stuck(
    place: Place,
) -> None:
    # Nobody can move a beat meanwhile; a name with two addresses takes twice as long.
    store = place.open()
    store.close()
    place.proxy.freeze()
    began = SYSTEM.monotonic_ns()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.open()
    assert 2 < seconds_since(began) < 4.9


def test_a_commit_into_a_network_that_swallows_everything_is_looked_up_afterwards(
    place: Place,
) -> None:
    store = place.open(patience=1)
    beats: list[None] = []

    def later() -> None:
        beats.append(None)
        if len(beats) == 8:
            place.proxy.restore()

    def enqueue_into_the_void() -> None:
        with store.transaction():
            enqueue(store)
            store.on_wait = later
            place.proxy.freeze()

    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        enqueue_into_the_void()
    assert place.states() == []


# -- others in the way


def test_a_turn_that_a_deadlock_has_ended_is_tried_again(place: Place) -> None:
    store, who = place.open(through=False), life()
    place.stranger.sql("SET deadlock_timeout = '60s'")  # the worker is the one to be ended
    store._connected().execute(b"SET deadlock_timeout = '1s'")  # long enough for the cross
    store.enqueue([new()] * 2)
    first, second = claim(store, who)
    place.stranger.sql("BEGIN")
    place.stranger.sql("SELECT 1 FROM jobs WHERE id = ? FOR UPDATE", second.id)
    blocked = f"SELECT count(*) FROM pg_locks WHERE pid = {backend(store)} AND NOT granted"

    def cross() -> None:
        eventually(lambda: place.server.sql(blocked) == [(1,)], what="the turn waits")
        place.stranger.sql("SELECT 1 FROM jobs WHERE id = ? FOR UPDATE", first.id)
        place.stranger.sql("COMMIT")

    thread = threading.Thread(target=cross)
    thread.start()
    turn = store.turn(
        who,
        2,
        queues=["default"],
        limit=1,
        journal=[record(who, 1, job) for job in (first, second)],
    )
    thread.join(30)
    assert turn.applied.changed == 2
    assert place.states() == ["succeeded"] * 2
    assert "deadlock detected" in place.server.log.read_text()


# -- many at once


def test_many_jobs_get_their_ids_in_the_order_they_were_given(store: PostgresStore) -> None:
    count = 2 * ROWS_AT_ONCE + 500
    jobs = [new(args=json.dumps([number])) for number in range(count)]
    told = store.enqueue(jobs)
    assert all(created for _, created in told)
    numbers = [number for number, _ in told]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == count
    for place in (0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE, count - 1):
        assert store.get(numbers[place]).args == [place]


def test_a_unique_key_within_one_batch_is_held_by_its_first(store: PostgresStore) -> None:
    jobs = [new(unique_key=f"k{number % 7}") for number in range(20)]
    told = store.enqueue(jobs)
    assert [created for _, created in told] == [True] * 7 + [False] * 13
    assert [number for number, _ in told[7:14]] == [number for number, _ in told[:7]]
    assert len(store.find()) == 7


def test_a_unique_key_across_the_pieces_of_a_batch_is_held_by_its_first(
    store: PostgresStore,
) -> None:
    count = 2 * ROWS_AT_ONCE + 500
    jobs = [
        new(unique_key="one") if number in (0, ROWS_AT_ONCE, count - 1) else new()
        for number in range(count)
    ]
    told = store.enqueue(jobs)
    holder = told[0][0]
    assert [told[number] for number in (0, ROWS_AT_ONCE, count - 1)] == [
        (holder, True), (holder, False), (holder, False),
    ]  # fmt: skip
    assert len({number for number, _ in told}) == count - 2


def test_jobs_of_every_kind_in_one_batch_keep_their_places(store: PostgresStore) -> None:
    holder = enqueue(store, unique_key="k")
    kinds = [
        new(),
        new(unique_key="k"),
        new(run_in_ms=60_000),
        new(queue="b", priority=3, policy='{"kind": "fixed"}', timeout_ms=5, memory_bytes=6),
        new(expires_in_ms=1_000),
        new(args='["a\\t\\\\ü"]', kwargs='{"\\\\N":\t1,\n"b": 2}'),
    ]
    made = store.enqueue(kinds)
    assert [created for _, created in made] == [True, False, True, True, True, True]
    assert made[1] == (holder, False)
    found = [store.get(number) for number, _ in made]
    assert [job.queue for job in found] == ["default"] * 3 + ["b"] + ["default"] * 2
    assert [job.state for job in found] == ["pending"] * 2 + ["scheduled"] + ["pending"] * 3
    assert (found[3].priority, found[3].timeout, found[3].memory) == (3, 0.005, 6)
    assert found[4].expires_at is not None
    claimed = {job.id: job for job in claim(store, life(), queues=["default", "b"])}
    assert claimed[found[3].id].policy == '{"kind": "fixed"}'
    last = claimed[found[5].id]
    assert (last.args, last.kwargs) == (kinds[5].args, kinds[5].kwargs)


def test_a_trigger_that_leaves_rows_of_a_batch_out_is_named(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    database.sql(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER skip BEFORE INSERT ON jobs FOR EACH ROW WHEN (new.priority = 9)"
        " EXECUTE FUNCTION skip()"
    )
    with pytest.raises(RowRefused, match="stored 2 of 3 jobs"):
        store.enqueue([new(), new(priority=9), new()])
    with pytest.raises(RowRefused, match="left the job out"):
        store.enqueue_one(new(priority=9))
    assert store.find() == []


def test_a_unique_key_held_by_an_earlier_job_names_it(store: PostgresStore) -> None:
    holder = enqueue(store, unique_key="mine")
    told = store.enqueue([new(unique_key="mine"), *[new()] * 8])
    assert told[0] == (holder, False)
    assert all(created for _, created in told[1:])


def test_two_batches_with_the_same_keys_at_once_neither_hang_nor_double(place: Place) -> None:
    keys = [f"k{number}" for number in range(300)]
    answers: dict[bool, list[tuple[int, bool]]] = {}

    def add(turned: bool) -> None:
        store = place.open(through=False)
        order = keys[::-1] if turned else keys
        answers[turned] = store.enqueue([new(unique_key=key) for key in order])

    threads = [threading.Thread(target=add, args=(turned,)) for turned in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [number for number, _ in answers[True]][::-1] == [number for number, _ in answers[False]]
    assert len(place.states()) == 300


NULS = {
    "task": {"task": "app:\0"},
    "queue": {"queue": "a\0b"},
    "unique": {"unique_key": "a\0b"},
    "arguments": {"args": '["\0"]'},
}


@pytest.mark.parametrize("values", NULS.values(), ids=NULS.keys())
@pytest.mark.parametrize("many", [1, 10, ROWS_AT_ONCE + 10], ids=["one", "many", "pieces"])
def test_a_nul_is_refused_with_all_that_came_with_it(
    store: PostgresStore, values: dict[str, Any], many: int
) -> None:
    with pytest.raises((JobsError, psycopg.DataError, ValueError)):
        store.enqueue([*[new()] * (many - 1), new(**values)])
    assert store.find() == []
    assert enqueue(store)


def test_arguments_are_kept_as_they_were_written(store: PostgresStore) -> None:
    text = '[1.0, 1e400, "\\u0000", {"b": 1, "a": 2, "b": 3}, 9007199254740993, "\\ud800"]'
    one = enqueue(store, args=text)
    many = store.enqueue([new(args=text)] * 6)[3][0]
    jobs = {job.id: job for job in claim(store, life())}
    assert jobs[one].args == jobs[many].args == text


# -- waking


def quiet(database: PostgresDatabase) -> None:
    """Nobody has notified within the last milliseconds."""
    database.sql(f"SELECT setval('{database.schema}.woken', 1)")


@pytest.fixture
def sleeper(database: PostgresDatabase) -> Any:
    """The waker of another store, as another process would have it: it listens."""
    made = opened(database).waker()
    assert made.drain() == 0.0  # what came before is not told
    assert made.drain() is None
    return made


def test_an_enqueue_wakes_a_sleeper_who_then_sees_the_row(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any
) -> None:
    enqueue(store)
    eventually(lambda: sleeper.drain() == 0.0, what="it is woken")
    assert opened(database).look(["default"])[:2] == (True, 0)
    # Others may have enqueued in the milliseconds in which nobody notifies again: one more look.
    again = sleeper.drain()
    assert again is not None
    assert 0 <= again < 0.1
    assert sleeper.drain() is None


def test_nobody_is_woken_before_the_commit(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any
) -> None:
    with store.transaction():
        enqueue(store)
        assert sleeper.drain() is None
    eventually(lambda: sleeper.drain() == 0.0, what="it is woken")


def test_nobody_is_woken_by_what_was_undone(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any
) -> None:
    with undone(store):
        enqueue(store)
    quiet(database)
    store.add_family(family())  # nor by the next commit, which makes nothing claimable
    database.sql("SELECT 1")
    assert sleeper.drain() is None


def test_a_strangers_plain_insert_wakes_at_his_commit(
    database: PostgresDatabase, sleeper: Any
) -> None:
    stranger = Stranger(database.url, database.schema)
    stranger.sql("BEGIN")
    stranger.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert sleeper.drain() is None
    stranger.sql("COMMIT")
    eventually(lambda: sleeper.drain() == 0.0, what="it is woken")
    stranger.close()


Deed = Callable[[PostgresStore, Any, Any], object]


def _settled_as(verb: str) -> Deed:
    return lambda store, who, job: store.apply([record(who, 1, job, verb)], who)


def _turned_with(verb: str) -> Deed:
    return lambda store, who, job: store.turn(
        who, 2, queues=["default"], limit=0, journal=[record(who, 1, job, verb)]
    )


WAKING: dict[str, Deed] = {
    **{verb: _settled_as(verb) for verb in ("retry", "snooze", "release")},
    **{f"a turn with {verb}": _turned_with(verb) for verb in ("retry", "snooze", "release")},
    "rescue": lambda store, who, job: store.rescue(
        job.id, who.owner, held(store, job.id, who), CRASH, 1_000
    ),
    "give back": lambda store, who, job: store.give_back(
        job.id, who.owner, held(store, job.id, who), STOPPED
    ),
    "give back many": lambda store, who, job: store.give_back_all(
        who.owner, [(job.id, 1, STOPPED)]
    ),
    "vanish": lambda store, who, _job: store.vanish(who.owner, GONE),
    "release the rest": lambda store, who, _job: store.release_rest(who.owner),
    "a turn that releases the rest": lambda store, who, _job: store.turn(
        who, 2, queues=["default"], limit=0, rest=Rest()
    ),
}


@pytest.mark.parametrize("deed", WAKING.values(), ids=WAKING.keys())
def test_whatever_makes_a_row_claimable_sooner_or_later_wakes_the_sleepers(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any, deed: Deed
) -> None:
    who, job = running(store)
    eventually(lambda: sleeper.drain() == 0.0)
    quiet(database)
    while sleeper.drain() is not None:
        pass
    deed(store, who, job)
    eventually(lambda: sleeper.drain() == 0.0, limit=5, what="it is woken")


def test_a_requeue_an_unblock_and_a_promote_wake_the_sleepers(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any
) -> None:
    failed, blocked = job_in(store, State.FAILED), job_in(store, State.BLOCKED)
    job_in(store, State.SCHEDULED)
    database.clock.move(60_000)
    eventually(lambda: sleeper.drain() == 0.0)
    for act in (lambda: store.requeue(failed), lambda: store.unblock(blocked), store.promote):
        quiet(database)
        while sleeper.drain() is not None:
            pass
        act()
        eventually(lambda: sleeper.drain() == 0.0, limit=5, what="it is woken")


def test_a_claim_or_a_success_wakes_nobody(
    database: PostgresDatabase, store: PostgresStore, sleeper: Any
) -> None:
    who, job = running(store)
    eventually(lambda: sleeper.drain() == 0.0)
    quiet(database)
    while sleeper.drain() is not None:
        pass
    enqueue_without_a_word(database)
    (more,) = claim(store, who, 2)
    store.turn(who, 3, queues=["default"], limit=1, journal=[record(who, 1, job)])
    store.apply([record(who, 2, more)], who)
    database.sql("SELECT 1")
    assert sleeper.drain() is None


def enqueue_without_a_word(database: PostgresDatabase) -> None:
    """One more row, of somebody who has switched waking off."""
    stranger = Stranger(database.url, database.schema)
    stranger.sql("SET jobvisor.notify = 'off'")
    stranger.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    stranger.close()


def test_a_store_that_is_not_to_notify_neither_wakes_nor_listens(
    database: PostgresDatabase, sleeper: Any
) -> None:
    silent = open_store(database.url, schema=database.schema, notify=False)
    silent.enqueue([new()])
    silent.enqueue([new()] * 10)
    waker = silent.waker()
    assert (waker.fileno(), waker.drain(), waker.fileno()) == (None, None, None)
    database.sql("SELECT 1")
    assert sleeper.drain() is None
    silent.close()


def test_a_burst_is_a_few_notifications(database: PostgresDatabase, store: PostgresStore) -> None:
    with psycopg.connect(database.url, autocommit=True) as listener:
        listener.execute(f"LISTEN {database.schema}".encode())
        began = SYSTEM.monotonic_ns()
        for _ in range(500):
            enqueue(store)
        windows = (SYSTEM.monotonic_ns() - began) // 5_000_000
        told = list(listener.notifies(timeout=0.2))
    # At most one in each 5 ms that it took, and no word of the jobs themselves.
    assert 1 <= len(told) <= min(windows + 2, 499)
    assert {one.payload for one in told} == {""}


def test_a_look_is_one_round_trip_whatever_is_asked(store: PostgresStore) -> None:
    store.look(["default"])  # the first one of a store reads the settings too
    with tempfile.TemporaryFile("r+") as told:
        store._connected().pgconn.trace(told.fileno())
        store.look(["default", "mail"], life().owner)
        store._connected().pgconn.untrace()
        told.seek(0)
        answers = [line for line in told if "ReadyForQuery" in line]
    assert len(answers) == 1


def test_a_sleeper_whose_connection_was_ended_listens_again(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    mine = opened(database)
    waker = mine.waker()
    waker.drain()
    end_connection(database, mine)
    eventually(lambda: waker.drain() == 0.0, what="the end is noticed, and the table looked at")
    # As a worker does between two looks: the look connects, and the next drain listens.
    assert mine.look(["default"])[:2] == (False, None)
    assert waker.drain() == 0.0
    quiet(database)
    enqueue(store)
    eventually(lambda: waker.drain() == 0.0, what="it is woken")


def test_a_worker_that_has_claimed_does_not_listen(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    waker = store.waker()
    waker.drain()
    assert waker.fileno() is not None
    enqueue(opened(database))
    (job,) = claim(store, life())
    assert job
    assert waker.fileno() is None
    channels = store._connected().execute(b"SELECT pg_listening_channels()").fetchall()
    assert channels == []


def test_a_turn_that_went_row_by_row_does_not_listen_either(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who, job = running(store)
    enqueue(store)
    database.refuse("new.state = 'succeeded'", "not this one")
    waker = store.waker()
    waker.drain()
    turn = store.turn(who, 2, queues=["default"], limit=1, journal=[record(who, 1, job)])
    assert len(turn.jobs) == 1
    assert waker.fileno() is None
    channels = store._connected().execute(b"SELECT pg_listening_channels()").fetchall()
    assert channels == []


def woken(store: PostgresStore, who: Life, number: int = 2) -> list[Claimed]:
    """What a worker claims that was woken."""
    return store.turn(who, number, queues=["default"], limit=1, woken=True).jobs


def hold_woken(store: PostgresStore, who: Life) -> psycopg.Cursor[tuple[Any, ...]]:
    """What a woken turn begins with."""
    known = {"queues": ["default"], "settings": store._pauses.version}
    return store._ask("hold_owner_woken", {"owner": who.owner, **known})


def writes_when_woken(store: PostgresStore, who: Life) -> bool:
    """Whether a woken turn would lock its owner's row, and so write."""
    connection = store._connected()
    with connection.pipeline():
        connection.execute(b"BEGIN")
        held = hold_woken(store, who)
        number = connection.execute(b"SELECT pg_current_xact_id_if_assigned()")
        connection.execute(b"ROLLBACK")
    writes = number.fetchall() != [(None,)]
    assert writes == bool(held.fetchall())
    return writes


def entered(store: PostgresStore) -> Life:
    """A life that has registered and holds nothing."""
    who = life()
    assert not store.turn(who, 1, queues=["default"], limit=1, register=True).jobs
    return who


def test_a_woken_worker_claims_the_first_row_and_listens_until_it_runs(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who, waker = entered(store), store.waker()
    waker.drain()
    first, second = (enqueue(database.open(), priority=priority) for priority in (1, 0))
    assert [job.id for job in woken(store, who)] == [first]
    assert waker.fileno() is not None
    store.step_aside()
    assert waker.fileno() is None
    channels = store._connected().execute(b"SELECT pg_listening_channels()").fetchall()
    assert channels == []
    assert [job.id for job in claim(store, who, 3)] == [second]


def test_a_woken_worker_that_finds_nothing_writes_nothing_and_listens_on(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who, waker = entered(store), store.waker()
    waker.drain()
    woken(store, who)
    enqueue(database.open(), queue="of others")
    assert woken(store, who, 3) == []
    assert not writes_when_woken(store, who)
    assert waker.fileno() is not None


def test_a_woken_worker_leaves_a_row_that_another_takes_and_writes_nothing(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who, other = entered(store), opened(database)
    woken(store, who)
    job = enqueue(other)
    with other.transaction():
        assert [each.id for each in claim(other, life())] == [job]
        assert woken(store, who, 3) == []
        assert not writes_when_woken(store, who)


def test_a_woken_worker_whose_life_was_settled_claims_nothing(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who = entered(store)
    enqueue(store)
    opened(database).remove_owner(who.owner)
    assert woken(store, who) == []
    assert store.counts() == {"default": {"pending": 1}}


def test_a_settling_waits_for_a_woken_workers_claim(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    # Else it would look for the rows of its owner before the claim is seen, and nobody after it.
    who = entered(store)
    enqueue(store)
    with store._connected().pipeline():
        store._connected().execute(b"BEGIN")
        cursor = hold_woken(store, who)
    assert cursor.fetchall() == [(store._pauses.version,)]
    with pytest.raises(psycopg.errors.LockNotAvailable):
        # As the deletion would lock it.
        database.sql("SELECT 1 FROM owners WHERE owner = ? FOR UPDATE NOWAIT", who.owner)


def test_a_woken_worker_of_several_queues_fills_its_claim_in_their_order(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who = entered(store)
    for queue in ("second", "first", "second"):
        enqueue(store, queue=queue)
    queues = ["none", "first", "second"]
    jobs = store.turn(who, 2, queues=queues, limit=2, woken=True).jobs
    assert [job.queue for job in jobs] == ["first", "second"]


def test_a_connection_that_died_while_a_job_ran_is_replaced_after_it(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who = entered(store)
    store.waker().drain()
    enqueue(store)
    (job,) = woken(store, who)
    store.step_aside()  # whose answer is not read before the end
    end_connection(database, store)
    journal = [record(who, 2, job)]
    try:
        turn = store.turn(who, 3, queues=["default"], limit=1, journal=journal)
    except StoreUnavailable:
        turn = store.turn(who, 4, queues=["default"], limit=1, journal=journal, rest=Rest())
    assert turn.applied.changed == 1


def test_a_worker_steps_aside_from_a_dead_connection_in_silence(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    store.waker().drain()
    end_connection(database, store)
    store.step_aside()
    store.step_aside()
    assert store.waker().fileno() is None


# -- other versions


def test_the_suite_runs_on_more_than_one_version_where_there_is_one() -> None:
    system, ours = debian(), wheel()
    if system is None or ours is None:
        pytest.skip("there is only one PostgreSQL here")
    with Server(system) as server:
        server.start()
        store = open_store(server.url())
        assert store.migrate() == (0, SCHEMA)
        who, job = running(store)
        assert store.apply([record(who, 1, job)], who).changed == 1
        store.enqueue([new(unique_key=str(number % 5)) for number in range(10)])
        assert len(claim(store, life(), limit=10)) == 5
        store.close()


# -- the history


def test_the_history_of_a_job_goes_with_it_whoever_removes_it(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    who = life()
    store.enqueue([new()] * 3)
    first = claim(store, who, limit=2)
    store.apply([record(who, 1, first[0], "fail"), record(who, 1, first[1], "retry")], who)
    database.sql("UPDATE jobs SET run_at = clock(), state = 'pending' WHERE state = 'scheduled'")
    again = claim(store, who, 2)
    assert [job.claims for job in again] == [2, 1]
    assert database.sql("SELECT job FROM attempts ORDER BY job") == [(1,), (2,)]
    store.apply([record(who, 2, job) for job in again], who, forget_succeeded=True)
    assert database.sql("SELECT job FROM attempts") == [(1,)]
    database.sql("DELETE FROM jobs")
    assert database.sql("SELECT job FROM attempts") == []


def test_texts_of_many_rows_arrive_as_they_are(store: PostgresStore) -> None:
    who = life()
    results = ['"a,b"', '"{\\"c\\"}"', '"\\\\"', '"NULL"', "null", '""', '" ü\\n"', "[1, {}]"]
    store.enqueue([new()] * len(results))
    jobs = claim(store, who)
    done = [
        record(who, 1, job, Outcome("succeed", result=text))
        for job, text in zip(jobs, results, strict=True)
    ]
    assert store.apply(done, who).changed == len(results)
    assert [store.get(job.id).result for job in jobs] == [json.loads(text) for text in results]


def test_an_import_never_sets_the_ids_back_beside_those_drawn_in_that_instant(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    enqueue(store)
    (row,) = store.export(0, 1, finished=False)
    sequence = f'"{store.schema}".jobs_id_seq'
    blocked = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted"
        f" AND relation = '{sequence}'::regclass AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with psycopg.connect(database.url) as other, ThreadPoolExecutor(1) as threads:
        # Who looks at the sequence can, and nobody else draws from it or sets it.
        other.execute(f"ALTER SEQUENCE {sequence} CACHE 1".encode())
        done = threads.submit(store.import_, [row._replace(id=50)])
        eventually(lambda: database.sql(blocked)[0][0], what="the import waits")
        draw = f"SELECT max(nextval('{sequence}')) FROM generate_series(1, 5000)"
        ((greatest,),) = other.execute(draw.encode()).fetchall()
        other.commit()
        assert done.result().added == 1
    assert enqueue(store) > greatest


def test_an_ordinary_job_that_is_enqueued_in_a_transaction_is_told_whole(
    store: PostgresStore,
) -> None:
    with store.transaction():  # where it is enqueued by that statement
        made = store.enqueue_one(new(priority=3))
    assert made == store.get(made.id)
