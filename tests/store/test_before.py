"""The statements of the release before: the tables of this one still have what they look for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.statements import Worded
from tests import before
from tests.store.database import PostgresDatabase, SqliteDatabase
from tests.store.filled import fill
from tests.store.test_bounded import FEW, much_read
from tests.store.test_postgres_plans import Planner, whole_readers

Texts = dict[str, dict[str, str]]


class Ones(dict[str, Any]):
    """A value for whatever a statement asks for."""

    def __missing__(self, name: str) -> str:
        return "1"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    return before.statements(tmp_path_factory.mktemp("before"))


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[tuple[PostgresDatabase, PostgresStore]]:
    database = PostgresDatabase(tmp_path)
    store = database.open()
    assert isinstance(store, PostgresStore)
    yield database, store
    database.close()


def test_sqlite_still_compiles_each_of_them(tmp_path: Path, texts: Texts) -> None:
    database = SqliteDatabase(tmp_path)
    database.open()
    refused = {}
    with closing(sqlite3.connect(database.path)) as connection:
        for name, text in texts["sqlite"].items():
            try:
                connection.execute(f"EXPLAIN {text}", Ones())
            except sqlite3.Error as error:
                refused[name] = str(error)
    database.close()
    assert refused == {}


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
def test_on_postgres_none_of_a_loop_reads_the_whole_table(
    postgres: tuple[PostgresDatabase, PostgresStore], texts: Texts, generic: bool
) -> None:
    planner = Planner(*postgres, texts["postgres"])
    planner.fill()
    assert whole_readers(planner, generic=generic) == {}


#: README says so: to put them in the order of the ids they read what is pending in a queue.
SORT = {
    "claim", "claim_further", "claim_further_unsuspected", "hold_owner_woken", "hold_owner_woken_suspects",
    "hold_owner_woken_unsuspected", "pending_counts", "waiting",
}  # fmt: skip


def others(much: Mapping[str, int]) -> dict[str, int]:
    return {name: found for name, found in much.items() if name.split()[0] not in SORT}


def test_on_sqlite_none_but_those_that_sort_what_is_pending_reads_more_than_it_is_asked_for(
    tmp_path: Path, texts: Texts
) -> None:
    database = SqliteDatabase(tmp_path)
    database.open().close()
    fill(database, FEW)
    store = database.open()
    store._statements = texts["sqlite"]
    assert others(much_read(store, texts["sqlite"])) == {}
    database.close()


def test_on_postgres_none_but_those_that_sort_what_is_pending_reads_more_than_it_is_asked_for(
    postgres: tuple[PostgresDatabase, PostgresStore], texts: Texts
) -> None:
    database, store = postgres
    fill(database, FEW)
    store._statements = Worded(texts["postgres"], store._worded)
    assert others(much_read(store, texts["postgres"])) == {}
