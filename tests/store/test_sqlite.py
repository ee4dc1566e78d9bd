"""What is SQLite's own: the file, its locks and errors, its schema, forks, and the plans of its SQL."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import RowRefused, SchemaError, StoreRefused, StoreUnavailable
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import NewJob, State
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.checkpoint import WORTH_BYTES
from jobvisor.jobs.store.filesystem import file_system
from jobvisor.jobs.store.schema import SCHEMA
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.store.statements import statements
from tests.store.database import MemoryDatabase, SqliteDatabase
from tests.store.making import claim, enqueue, life, new, record, running
from tests.store.processes import held_by_another, in_a_copy


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(file: SqliteDatabase) -> SqliteStore:
    return file.open()


def pragma(store: SqliteStore, name: str) -> object:
    return store._connected().execute(f"PRAGMA {name}").fetchone()[0]


# -- a fork


VERBS: dict[str, Callable[[SqliteStore], object]] = {
    "open": SqliteStore.open,
    "get": lambda store: store.get(1),
    "enqueue": lambda store: store.enqueue([new()]),
    "turn": lambda store: store.turn(life(), 1, queues=["default"], limit=1),
    "transaction": lambda store: store.transaction().__enter__(),
    "migrate": SqliteStore.migrate,
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_a_store_refuses_to_be_used_in_a_forked_copy(
    store: SqliteStore, verb: Callable[[SqliteStore], object]
) -> None:
    enqueue(store)
    assert in_a_copy(lambda: verb(store)).startswith("ForkedStore: the connection to ")
    assert len(store.find()) == 1


def test_a_store_in_memory_refuses_a_forked_copy_too(tmp_path: Path) -> None:
    store = MemoryDatabase(tmp_path).open()
    assert in_a_copy(store.find).startswith("ForkedStore: ")
    store.close()


def test_a_copy_that_closes_its_parents_store_may_open_it_anew(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    def close_and_use() -> int:
        store.close()
        return enqueue(store)

    number = int(in_a_copy(close_and_use))
    assert store.get(number).state is State.PENDING
    enqueue(store)
    assert file.sql("PRAGMA integrity_check") == [("ok",)]


def test_a_copy_made_while_a_thread_was_in_a_transaction_is_refused_and_does_not_hang(
    store: SqliteStore,
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction():
            enqueue(store)
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(30)
    answer = in_a_copy(store.find)
    leave.set()
    thread.join(30)
    assert answer.startswith("ForkedStore: ")
    assert len(store.find()) == 1


# -- somebody else holds the database


def test_a_write_waits_for_another_process_and_lets_the_beat_move(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    beats: list[int] = []
    with held_by_another(file.path) as holder:

        def beat() -> None:
            beats.append(len(beats))
            if len(beats) == 2:
                holder.let_go()

        store.on_wait = beat
        number = enqueue(store)
    assert len(beats) >= 2
    assert store.get(number).state is State.PENDING


@pytest.mark.parametrize("within", [True, False], ids=["a transaction", "a statement"])
def test_the_patience_of_a_write_has_an_end(
    file: SqliteDatabase, store: SqliteStore, within: bool
) -> None:
    before = enqueue(store)

    def write() -> None:
        if within:
            claim(store, life())
        else:
            store._change("heartbeat", {"family": 1, "dead_after_ms": None})

    with held_by_another(file.path):
        store.on_wait = lambda: file.clock.move(31_000)
        with pytest.raises(StoreUnavailable, match=r"jobs\.db: somebody else holds it"):
            write()
    assert [job.id for job in claim(store, life())] == [before]


def test_reading_does_not_wait_for_a_writer(file: SqliteDatabase, store: SqliteStore) -> None:
    number = enqueue(store)

    def waited() -> None:
        raise AssertionError("a reader waited")

    with held_by_another(file.path):
        store.on_wait = waited
        assert store.get(number).state is State.PENDING
        assert store.look(["default"])[:2] == (True, 0)


def test_a_first_use_waits_for_whoever_holds_the_new_file(file: SqliteDatabase) -> None:
    store = open_store(f"sqlite:///{file.path}", durable=False, clock=file.clock)
    with held_by_another(file.path, "BEGIN EXCLUSIVE") as holder:
        store.on_wait = holder.let_go
        store.open()
    assert store.find() == []
    store.close()


def test_a_holder_that_is_killed_holds_nothing(file: SqliteDatabase, store: SqliteStore) -> None:
    with held_by_another(file.path) as holder:
        store.on_wait = holder.kill
        assert enqueue(store) == 1


# -- the disk


def test_a_full_disk_is_unavailable_loses_nothing_and_recovers(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    who, job = running(store)
    pages = pragma(store, "page_count")
    store._connected().execute(f"PRAGMA max_page_count = {pages}")
    large = '"' + "x" * 100_000 + '"'
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        store.enqueue([new(args=f"[{large}]")])
    store._connected().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        store.apply([record(who, 1, job, result=large)], who)
    assert [row.state for row in store.find()] == [State.RUNNING]
    # The journal is applied once more when there is room again.
    assert store.apply([record(who, 1, job, result=large)], who).changed == 1
    assert file.sql("PRAGMA integrity_check") == [("ok",)]


def test_a_full_memory_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = MemoryDatabase(tmp_path).open()
    assert isinstance(store, SqliteStore)
    store._connected().execute(f"PRAGMA max_page_count = {pragma(store, 'page_count')}")
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        store.enqueue([new(args=f'["{"x" * 100_000}"]')])
    store._connected().execute("PRAGMA max_page_count = 100000")
    assert enqueue(store) == 1
    store.close()


def test_a_commit_is_durable_where_that_was_asked(tmp_path: Path) -> None:
    for durable, level in ((True, 2), (False, 1)):
        store = open_store(f"sqlite:///{tmp_path}/jobs.db", durable=durable)
        assert isinstance(store, SqliteStore)
        assert (pragma(store, "synchronous"), pragma(store, "journal_mode")) == (level, "wal")
        store.close()


def test_a_checkpoint_carries_a_long_log_into_the_database(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    before = file.path.stat().st_size
    store.checkpoint()
    assert file.path.stat().st_size == before
    text = '["' + "x" * 100_000 + '"]'
    store.enqueue([new(args=text) for _ in range(WORTH_BYTES // 100_000 + 5)])
    store.checkpoint()
    assert file.path.stat().st_size > WORTH_BYTES


def test_a_checkpoint_without_a_log_is_nothing(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    store.checkpoint()
    assert not (tmp_path / "jobs.db").exists()


# -- a place or file that cannot be used


def test_a_missing_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/missing/jobs.db")
    with pytest.raises(StoreRefused, match=r"the folder .*missing of .* does not exist"):
        store.open()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"a letter to a friend\n" * 500)
    store = open_store(f"sqlite:///{path}")
    for _ in range(2):
        with pytest.raises(StoreRefused, match="it is not an SQLite database"):
            store.open()
    assert path.read_bytes() == b"a letter to a friend\n" * 500


def test_a_damaged_database_is_refused(file: SqliteDatabase, store: SqliteStore) -> None:
    store.enqueue([new(args='["' + "x" * 1_000 + '"]') for _ in range(50)])
    store.close()
    data = bytearray(file.path.read_bytes())
    data[4_096:] = b"\xff" * (len(data) - 4_096)
    file.path.write_bytes(bytes(data))
    with pytest.raises(StoreRefused, match="it is damaged"):
        claim(store, life())


def test_a_folder_in_the_files_place_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}/jobs.db").open()


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE jobs (title TEXT); PRAGMA user_version = 0",
        "CREATE TABLE jobs (title TEXT); PRAGMA user_version = 1",
        "CREATE TABLE books (title TEXT); PRAGMA user_version = 2",
        "CREATE TABLE books (title TEXT); PRAGMA user_version = 9",
    ],
)
def test_another_programs_database_is_refused(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "theirs.db"
    connection = sqlite3.connect(path)
    connection.executescript(schema)
    connection.close()
    store = open_store(f"sqlite:///{path}")
    for _ in range(2):
        with pytest.raises(SchemaError, match=r"theirs\.db: its tables are another program's"):
            store.enqueue([new()])
    store.close()


def test_the_kind_of_a_file_system_is_known() -> None:
    if sys.platform.startswith("linux"):
        assert file_system("/proc/self") == "proc"


def test_a_link_to_the_database_is_the_database(
    tmp_path: Path, file: SqliteDatabase, store: SqliteStore
) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(file.path)
    beside = open_store(f"sqlite:///{link}", durable=False)
    waker = beside.waker()
    waker.drain()
    enqueue(store)
    if waker.fileno() is not None:
        assert waker.drain() == 0.0
    assert len(beside.find()) == 1
    assert os.listdir(tmp_path / "elsewhere") == ["link.db"]
    waker.close()
    beside.close()


# -- who may read and write it


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user may enter; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def as_a_stranger(act: Callable[[], object]) -> str:
    def become_and_act() -> object:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return act()

    return in_a_copy(become_and_act)


def mode(path: Path | str) -> int:
    return os.stat(path).st_mode & 0o777


def test_a_new_database_and_its_files_are_its_users_alone(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    enqueue(store)
    modes = {name: mode(tmp_path / name) for name in os.listdir(tmp_path)}
    assert modes == dict.fromkeys(["jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-wake"], 0o600)
    store.close()


def test_the_files_of_a_shared_database_are_shared_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch()
    path.chmod(0o660)
    store = open_store(f"sqlite:///{path}")
    enqueue(store)
    assert {mode(tmp_path / name) for name in os.listdir(tmp_path)} == {0o660}
    os.unlink(f"{path}-wake")
    enqueue(store)
    assert mode(f"{path}-wake") == 0o660
    store.close()


@as_root
@pytest.mark.parametrize("in_use", [True, False])
def test_who_may_only_read_the_database_sees_its_jobs_and_leaves_nothing_behind(
    public: Path, in_use: bool
) -> None:
    path = public / "jobs.db"
    path.touch()
    path.chmod(0o644)
    owner = open_store(f"sqlite:///{path}")
    enqueue(owner)
    if not in_use:
        owner.close()
    before = sorted(os.listdir(public))

    def look() -> object:
        store = open_store(f"sqlite:///{path}")
        return len(store.find()), store.get(1).task, store.counts(), store.attempts(1)

    assert as_a_stranger(look) == "(1, 'app:f', {'default': {'pending': 1}}, [])"
    assert as_a_stranger(lambda: enqueue(open_store(f"sqlite:///{path}"))).startswith(
        f"StoreUnavailable: {path}: it is read-only"
    )
    assert sorted(os.listdir(public)) == before
    assert enqueue(owner) == 2
    owner.close()


@as_root
def test_each_look_of_a_reader_alone_sees_what_was_written_since(public: Path) -> None:
    path = public / "jobs.db"
    path.touch()
    path.chmod(0o644)
    owner = open_store(f"sqlite:///{path}")
    enqueue(owner)
    owner.close()

    def look_twice() -> object:
        store = open_store(f"sqlite:///{path}")
        before = len(store.find())
        os.write(ready[1], b".")
        os.read(done[0], 1)
        return before, len(store.find())

    ready, done = os.pipe(), os.pipe()

    def write() -> None:
        os.read(ready[0], 1)
        enqueue(owner)
        owner.close()
        os.write(done[1], b".")

    writer = threading.Thread(target=write)
    writer.start()
    assert as_a_stranger(look_twice) == "(1, 2)"
    writer.join(30)
    for descriptor in (*ready, *done):
        os.close(descriptor)


@as_root
def test_who_may_only_read_an_old_database_does_not_migrate_it(public: Path) -> None:
    path = public / "jobs.db"
    path.touch()
    path.chmod(0o644)
    assert as_a_stranger(lambda: open_store(f"sqlite:///{path}").find()).startswith(
        f"SchemaError: {path} has schema 0, this release needs {SCHEMA}, and you may only read it"
    )
    told = as_a_stranger(lambda: open_store(f"sqlite:///{path}", prefix="our_").find())
    assert told.startswith(f"SchemaError: {path} has schema 0 with the prefix our_, this release")


# -- the schema


def test_a_first_use_creates_the_schema(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    assert store.find() == []
    assert store.migrate() == (SCHEMA, SCHEMA)
    store.close()


def test_a_first_migration_tells_its_numbers(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    assert store.migrate() == (0, SCHEMA)
    assert store.migrate() == (SCHEMA, SCHEMA)
    store.close()


def test_a_schema_newer_than_this_release_is_refused(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    store.close()
    file.sql("UPDATE meta SET value = '99' WHERE key = 'oldest_schema'")
    file.sql("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(SchemaError, match=f"has schema 99, and this release knows {SCHEMA}"):
            store.enqueue([new()])
        with pytest.raises(SchemaError):
            store.migrate()
    assert file.sql("SELECT count(*) FROM jobs") == [(0,)]


def test_a_newer_schema_that_allows_this_release_is_used(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    store.close()
    file.sql("ALTER TABLE jobs ADD COLUMN flavour TEXT")
    file.sql("PRAGMA user_version = 99")
    who, job = running(store)
    assert store.apply([record(who, 1, job)], who).changed == 1
    assert store.migrate() == (99, 99)


@pytest.mark.parametrize("stored", ["DELETE FROM meta", "UPDATE meta SET value = 'soon'"])
def test_a_newer_schema_that_does_not_say_who_may_work_on_it_is_refused_in_a_sentence(
    file: SqliteDatabase, store: SqliteStore, stored: str
) -> None:
    store.close()
    file.sql(f"{stored} WHERE key = 'oldest_schema'")
    file.sql("PRAGMA user_version = 99")
    with pytest.raises(SchemaError, match=r"schema 99, and its table meta names no oldest_schema"):
        store.find()


@pytest.mark.parametrize(
    "use", [lambda store: claim(store, life()), SqliteStore.check_schema], ids=["turn", "heartbeat"]
)
def test_a_connection_that_stays_open_sees_that_the_schema_has_moved_on(
    file: SqliteDatabase, store: SqliteStore, use: Callable[[SqliteStore], object]
) -> None:
    number = enqueue(store)
    file.sql("UPDATE meta SET value = '99' WHERE key = 'oldest_schema'")
    file.sql("PRAGMA user_version = 99")
    with pytest.raises(SchemaError, match="has schema 99"):
        use(store)
    assert file.sql("SELECT state FROM jobs WHERE id = ?", number) == [("pending",)]


_MIGRATE_TOGETHER = """
import sys, time
from jobvisor.jobs.store import open_store
begin, *paths = sys.argv[1:]
for number, path in enumerate(paths):
    while time.time() < float(begin) + number * 0.05:
        pass
    store = open_store(f"sqlite:///{path}", durable=False)
    print(store.database_id(), store.counts(), flush=True)
    store.close()
"""


def test_two_first_migrations_at_the_same_instant_are_one(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.db") for number in range(10)]
    begin = str(SYSTEM.now_ms() / 1_000 + 0.5)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATE_TOGETHER, begin, *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=30)[0] for process in processes)
    assert first == second
    assert len(set(first.splitlines())) == len(paths)
    for path in paths:
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (SCHEMA,)
        connection.close()


def test_a_migration_that_could_not_begin_is_tried_again_by_the_next_verb(
    tmp_path: Path, file: SqliteDatabase
) -> None:
    wake = os.open(tmp_path / "jobs.db-wake", os.O_RDWR | os.O_CREAT)
    fcntl.flock(wake, fcntl.LOCK_EX)
    store = open_store(f"sqlite:///{file.path}", durable=False, clock=file.clock)
    store.on_wait = lambda: file.clock.move(60_000)
    with pytest.raises(StoreUnavailable, match="is being migrated by another process"):
        store.open()
    os.close(wake)
    assert enqueue(store) == 1
    store.close()


# -- plans: no statement of a loop reads the whole table


INDEX = {
    "claim_unsuspected": "jobs_pending",
    "claim_suspects": "jobs_suspects",
    "has_pending_unsuspected": "jobs_pending",
    "has_pending_suspects": "jobs_suspects",
    "suspects": "jobs_suspects",
    "claim": "jobs_pending",
    "has_pending": "jobs_pending",
    "latency": "jobs_pending",
    "promote": "jobs_scheduled",
    "next_due": "jobs_scheduled",
    "release_rest": "jobs_running",
    "vanish": "jobs_running",
    "owned": "jobs_running",
    "ownerless": "jobs_running",
    "family_runs": "jobs_running",
    "cancelling": "jobs_cancelling",
    "prune_look": "jobs_finished",
    "prunable": "jobs_finished",
    "prune_kept": "jobs_timed",
    "prunable_kept": "jobs_timed",
    "before": "jobs_pending",
    "holder": "jobs_unique",
    "held_by": "uniques_job",
    "retry": "uniques_job",
    "has_work": "jobs_deferred",
    "unknown_tasks": "jobs_unknown",
    "find.listed": "jobs_listed",
    "ids.listed": "jobs_listed",
    "below.listed": "jobs_listed",
    "above.listed": "jobs_listed",
    "count.listed": "jobs_listed",
    "failure_groups": "jobs_failures",
    "failures": "jobs_failures",
    "newest_pending": "jobs_pending",
    "pending_kinds": "jobs_pending",
    "pending_counts": "jobs_pending",
    "waiting": "jobs_pending",
    "pending_queues": "jobs_pending",
    "give_turns": "jobs_shares",
    "take_turns": "jobs_running",
    "raise_turns": "jobs_running",
    "turned_kinds": "jobs_pending",
    "level_turns": "jobs_pending",
    "shares_in_vain": "jobs_shares",
    "shareless": "jobs_pending",
}
ORDERED = [
    "claim",
    "claim_unsuspected",
    "claim_suspects",
    "suspects",
    "latency",
    "promote",
    "next_due",
    "prune_look",
    "prune_kept",
]  # the index is the order: nothing is sorted
WHOLE = {"counts", "task_names"}  # for people, and said so


def plan(store: SqliteStore, name: str) -> list[str]:
    statement = statements("sqlite")[name]
    parameters = dict.fromkeys(re.findall(r":(\w+)", statement), 1)
    rows = store._connected().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [row[3] for row in rows.fetchall()]


FILLED = {
    "new": {},
    "full and analysed": {"succeeded": 3_000, "scheduled": 500, "pending": 20},
    "analysed while all waited": {"pending": 3_000},
}


@pytest.fixture(params=FILLED)
def planned(request: pytest.FixtureRequest, store: SqliteStore) -> SqliteStore:
    if filled := FILLED[request.param]:
        execute = store._connected().execute
        for state, number in filled.items():
            execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO jobs (task, state, finished_at, run_at) "
                "SELECT 'app:f', ?, iif(? = 'succeeded', i, NULL), i FROM n",
                (number, state, state),
            )
        execute("ANALYZE")
        store.close()
    return store


@pytest.mark.parametrize("name", sorted(INDEX))
def test_a_statement_uses_its_partial_index(planned: SqliteStore, name: str) -> None:
    assert any(f"INDEX {INDEX[name]}" in step for step in plan(planned, name)), plan(planned, name)


def test_the_few_failed_are_found_without_reading_the_many_succeeded(store: SqliteStore) -> None:
    assert any("INDEX jobs_finished" in step for step in plan(store, "find_few.succeeded"))
    assert any("INDEX jobs_listed" in step for step in plan(store, "find.listed"))


@pytest.mark.parametrize("name", ORDERED)
def test_a_statement_takes_its_order_from_its_index(planned: SqliteStore, name: str) -> None:
    assert not any("TEMP B-TREE" in step for step in plan(planned, name)), plan(planned, name)


def test_no_statement_but_those_for_people_reads_the_whole_table(planned: SqliteStore) -> None:
    whole = {
        name
        for name in statements("sqlite")
        if any(re.fullmatch(r"SCAN (jobs|attempts|uniques)", step) for step in plan(planned, name))
    }
    assert whole <= WHOLE


@pytest.mark.parametrize(
    "name", ["schedules", "schedule", "has_tick", "looked_after", "trim_ticks"]
)
def test_no_look_at_a_schedule_reads_the_ticks_of_all(store: SqliteStore, name: str) -> None:
    steps = plan(store, name)
    assert any("ticks USING" in step or "PRIMARY KEY" in step for step in steps), steps
    assert not any(step.startswith("SCAN ticks") for step in steps), steps


def test_the_readable_view_tells_the_time(file: SqliteDatabase, store: SqliteStore) -> None:
    enqueue(store)
    assert file.sql("SELECT state, created_at FROM jobs_readable") == [
        ("pending", "2033-05-18T03:33:20.000Z")
    ]


def test_a_strangers_row_is_due_at_the_moment_it_was_inserted(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    before = SYSTEM.now_ms()
    file.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    ((created, due),) = file.sql("SELECT created_at, run_at FROM jobs")
    # julianday() has a grain of a millisecond.
    assert before - 2 <= created == due <= SYSTEM.now_ms() + 2
    assert os.path.exists(f"{file.path}-wake")
    assert len(store.find()) == 1


@pytest.mark.parametrize("count", [1, 3])
def test_new_jobs_come_after_one_that_a_stranger_numbered(
    file: SqliteDatabase, store: SqliteStore, count: int
) -> None:
    enqueue(store)
    file.sql("UPDATE jobs SET id = 4711")
    assert store.enqueue([new()] * count)[0] == (4712, True)


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
    file: SqliteDatabase, store: SqliteStore, values: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        file.sql(f"INSERT INTO jobs {values}")
    assert store.find() == []


def steps(store: SqliteStore, look: Callable[[], object]) -> int:
    """How many hundreds of SQLite's instructions it takes."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    store._connected().set_progress_handler(count, 100)
    look()
    store._connected().set_progress_handler(None, 0)
    return counted[0]


def test_a_page_of_a_common_state_is_read_without_the_rest_of_it(store: SqliteStore) -> None:
    fill = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO jobs (task, state, finished_at) SELECT 'app:f', 'succeeded', i FROM n"
    )
    taken = []
    for number in (1_000, 20_000):
        store._connected().execute(fill, (number,))
        taken.append(steps(store, lambda: store.find(Filter(state=State.SUCCEEDED), limit=50)))
    assert taken[1] < 2 * taken[0]
    last = store.find(Filter(state=State.SUCCEEDED), limit=3, before=500)
    assert [job.id for job in last] == [499, 498, 497]
    assert len(store.find(Filter(state=State.SUCCEEDED), limit=50, before=20)) == 19


@pytest.mark.parametrize("jobs", [[new()], [new(), new()], [new(unique_key="mine"), new()]])
def test_a_job_that_a_trigger_leaves_out_is_not_told_as_stored(
    file: SqliteDatabase, store: SqliteStore, jobs: list[NewJob]
) -> None:
    file.sql(
        "CREATE TRIGGER skip BEFORE INSERT ON jobs WHEN new.unique_key IS NULL"
        " BEGIN SELECT RAISE(IGNORE); END"
    )
    with pytest.raises(RowRefused, match="left the job out"):
        store.enqueue(jobs)
    with pytest.raises(RowRefused, match="left the job out"):
        store.enqueue_one(jobs[-1])
    assert store.find() == []


@pytest.mark.parametrize("many", [3, 250])
def test_the_ids_of_a_batch_are_its_own_where_a_trigger_enqueues_too(
    file: SqliteDatabase, store: SqliteStore, many: int
) -> None:
    held = enqueue(store, unique_key="held")
    file.sql(
        "CREATE TRIGGER audit AFTER INSERT ON jobs WHEN new.task <> 'audit'"
        " BEGIN INSERT INTO jobs (task) VALUES ('audit'); END"
    )
    jobs = [new(priority=number) for number in range(many)]
    jobs[1] = new(unique_key="held")
    found = store.enqueue(jobs)
    assert found[1] == (held, False)
    del found[1], jobs[1]
    assert [created for _number, created in found] == [True] * len(jobs)
    stored = [store.get(number) for number, _created in found]
    assert [(job.task, job.priority) for job in stored] == [("app:f", job.priority) for job in jobs]
    assert len(store.find(Filter(task="audit"), limit=1000)) == len(jobs)


# -- a turn


def test_a_job_of_bytes_that_are_no_text_is_claimed_with_the_others(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    store.enqueue([new(task="app:first")])
    file.sql("INSERT INTO jobs (task) VALUES (CAST(x'61ff' AS TEXT))")
    store.enqueue([new(task="app:last")])
    jobs = claim(store, life())
    assert [job.task for job in jobs] == ["app:first", "a\N{REPLACEMENT CHARACTER}", "app:last"]


def test_what_a_turn_may_have_to_undo_stays_in_memory(
    file: SqliteDatabase, store: SqliteStore
) -> None:
    store.close()
    claim(store, life())
    assert pragma(store, "temp_store") == 2
    assert pragma(file.open(), "temp_store") == 0  # a migration may have more than the memory holds
