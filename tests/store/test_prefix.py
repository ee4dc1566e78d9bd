"""Ours beside another program's: with a prefix nothing of theirs is named, seen, woken or waited for."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils
from sqlite_utils import Migrations

from jobvisor.jobs.errors import SchemaError
from jobvisor.jobs.store import Store, open_store, schema, tables
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.shipped import read_migrations
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.store.statements import statements
from tests.postgres import Stranger, shared
from tests.store.database import THEIRS, MemoryDatabase
from tests.store.making import claim, enqueue, life


@pytest.fixture
def stores() -> Iterator[list[Store]]:
    made: list[Store] = []
    yield made
    for store in made:
        store.close()


@pytest.fixture
def url() -> Iterator[str]:
    made = shared().new_database()
    yield made
    shared().drop_database(made)


# -- the names


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_without_a_prefix_the_statements_are_those_of_the_file(dialect: str) -> None:
    assert statements(dialect, "") == statements(dialect)
    assert statements(dialect, "our_").keys() == statements(dialect).keys()


@pytest.mark.parametrize("name", sorted(statements("sqlite")))
def test_a_statement_on_sqlite_names_only_tables_with_the_prefix(tmp_path: Path, name: str) -> None:
    database = MemoryDatabase(tmp_path)
    store = database.open()
    assert isinstance(store, SqliteStore)
    connection, touched = store._connected(), set[str]()

    def note(action: int, table: str | None, *_rest: object) -> int:
        if action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE,
                      sqlite3.SQLITE_DELETE):  # fmt: skip
            touched.add(table or "")
        return sqlite3.SQLITE_OK

    statement = store._statements[name]
    connection.set_authorizer(note)
    connection.execute(f"EXPLAIN {statement}", dict.fromkeys(re.findall(r":(\w+)", statement)))
    database.close()
    named = {table for table in touched if not table.startswith(("our_", "sqlite_", "json_"))}
    assert named <= {"told", "found", ""}  # what the statement itself calls so


_BARE = r"(?:jobs|attempts|families|owners|meta|changes)"
_PLACED = rf"\b(?:FROM|INTO|UPDATE|JOIN|TABLE|ON|INDEX|TRIGGER)\s+{_BARE}(?:_\w+)?\b"


def test_on_postgres_no_name_of_ours_stands_without_schema_and_prefix() -> None:
    store = open_store("postgresql://nowhere/app", schema="app", prefix="our_")
    assert isinstance(store, PostgresStore)
    texts = [store._statements[name].decode() for name in statements("postgres")]
    texts += [store._worded(script.text) for script in read_migrations("postgres")]
    for text in texts:
        code = re.sub(r"--.*", "", text)
        assert re.findall(r'"app"\.(?!our_)\w*', code) == []
        assert re.findall(_PLACED, code) == []
        assert re.findall(rf"(?<![\w.]){_BARE}\.", code) == []


def test_all_that_is_made_in_a_file_begins_with_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{THEIRS}; PRAGMA user_version = 7")
        with closing(open_store(f"sqlite:///{path}", prefix="our_")) as store:
            store.migrate()
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")]
        theirs = [row[0] for row in connection.execute("PRAGMA user_version")]
    known = set(re.findall(r"CREATE TABLE (\w+)", THEIRS)) | {"sqlite_sequence"}
    ours = [re.sub("^(sqlite_autoindex|idx)_", "", name) for name in names if name not in known]
    assert [name for name in ours if not name.startswith("our_")] == []
    assert len(ours) > 15
    assert theirs == [7]


_MADE = """
SELECT relname FROM pg_class WHERE relnamespace = 'app'::regnamespace
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'app'::regnamespace
UNION ALL SELECT ltrim(typname, '_') FROM pg_type WHERE typnamespace = 'app'::regnamespace
UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
"""


def test_all_that_is_made_in_a_schema_begins_with_the_prefix(url: str, stores: list[Store]) -> None:
    stores.append(open_store(url, schema="app", prefix="our_"))
    assert stores[0].migrate() == (0, tables.SCHEMA)
    with closing(Stranger(url, "app")) as stranger:
        names = [row[0] for row in stranger.sql(_MADE)]
    assert [name for name in names if not name.startswith("our_")] == []
    assert len(names) > 40


# -- beside each other


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    return str(request.getfixturevalue("url"))


def test_queues_of_three_prefixes_in_one_database_do_not_see_each_other(
    place: str, stores: list[Store]
) -> None:
    stores += [open_store(place, prefix=prefix) for prefix in ("", "a_", "a_jobs_")]
    for number, store in enumerate(stores):
        assert store.migrate()[0] == 0
        for _ in range(number + 1):
            enqueue(store)
    assert [len(store.find()) for store in stores] == [1, 2, 3]
    assert len({store.database_id() for store in stores}) == 3
    assert [len(claim(store, life(), limit=9)) for store in stores] == [1, 2, 3]
    assert [store.migrate() for store in stores] == [stores[0].migrate()] * 3


def test_the_record_of_migrations_is_not_that_of_another_who_uses_sqlite_utils(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.db"
    theirs = Migrations("jobvisor")  # a name that nobody can forbid them
    theirs(name="0001_spine")(lambda database: database["books"].create({"title": str}))
    with closing(sqlite3.connect(path)) as connection:
        theirs.apply(sqlite_utils.Database(connection))
    with closing(open_store(f"sqlite:///{path}", prefix="our_")) as store:
        assert store.migrate() == (0, schema.SCHEMA)
        assert store.migrate() == (schema.SCHEMA, schema.SCHEMA)
        assert enqueue(store) == 1


def test_a_notify_is_for_the_workers_of_its_prefix(url: str, stores: list[Store]) -> None:
    stores += [open_store(url, prefix=prefix) for prefix in ("", "a_", "b_")]
    wakers = []
    for store in stores:
        store.migrate()
        wakers.append(store.waker())
    for waker in wakers:
        waker.drain()
    enqueue(stores[1])
    with closing(Stranger(url, "public")) as stranger:
        stranger.sql("SELECT 1")  # the server has sent by now what it was to send
    assert [store.heard() for store in stores if isinstance(store, PostgresStore)] == [
        False, True, False,
    ]  # fmt: skip


def test_a_migration_waits_for_none_of_another_prefix(url: str, stores: list[Store]) -> None:
    with closing(Stranger(url, "public")) as other:
        other.sql("CREATE SCHEMA jobvisor")
        for key in ("jobvisor", "b_:jobvisor"):
            other.sql("SELECT pg_advisory_lock(hashtextextended(?, 0))", key)
        stores.append(open_store(url, prefix="a_", patience=5))
        assert stores[0].migrate() == (0, tables.SCHEMA)


def test_of_two_prefixes_that_make_one_schema_the_second_waits(
    url: str, stores: list[Store]
) -> None:
    with closing(Stranger(url, "public")) as other:
        other.sql("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('jobvisor', 0))")
        other.sql("CREATE SCHEMA jobvisor")
        store = open_store(url, prefix="a_")
        stores.append(store)
        waited: list[int] = []

        def go_on() -> None:
            if not waited and other.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):
                waited.append(1)
                other.sql("COMMIT")

        store.on_wait = go_on
        assert store.migrate() == (0, tables.SCHEMA)
        assert waited


# -- what is told


def make(place: str, table: str) -> None:
    """A table of theirs, where ours would be."""
    if place.startswith("sqlite"):
        with closing(sqlite3.connect(place.removeprefix("sqlite:///"))) as connection:
            connection.execute(f"CREATE TABLE {table} (theirs integer)")
        return
    with closing(Stranger(place, "public")) as stranger:
        stranger.sql("CREATE SCHEMA IF NOT EXISTS jobvisor")
        stranger.sql(f"CREATE TABLE jobvisor.{table} (theirs integer)")


@pytest.mark.parametrize("prefix", ["", "app_"])
@pytest.mark.parametrize("table", ["jobs", "meta", "changes"])
def test_a_table_of_theirs_in_the_place_of_ours_is_told_with_the_prefix_as_the_remedy(
    place: str, stores: list[Store], table: str, prefix: str
) -> None:
    make(place, prefix + table)
    stores.append(open_store(place, prefix=prefix))
    for _ in range(2):
        with pytest.raises(SchemaError, match=r"another program's.*\[database\] prefix"):
            stores[0].migrate()


def test_a_wrong_prefix_is_a_missing_schema_and_named(url: str, stores: list[Store]) -> None:
    stores += [open_store(url), open_store(url, prefix="shop_")]
    stores[0].migrate()
    with pytest.raises(SchemaError, match=r"in the schema jobvisor with the prefix shop_; run"):
        stores[1].find()


def test_a_number_that_is_none_is_told_with_its_table(tmp_path: Path, stores: list[Store]) -> None:
    path = tmp_path / "app.db"
    stores.append(open_store(f"sqlite:///{path}", prefix="our_"))
    stores[0].migrate()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE our_meta SET value = 'three' WHERE key = 'schema'")
    with pytest.raises(SchemaError, match="our_meta says schema = 'three'"):
        claim(stores[0], life())
