"""What a statement reads is bounded by what it is asked for, not by how many rows there are.

Counted, not taken from a plan, which may go along the right index and filter all of it: on PostgreSQL the
rows, entries and pages that tables and indexes have given, within functions too; on SQLite the steps of its
machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.store.statements import statements
from tests.store.database import PostgresDatabase, SqliteDatabase
from tests.store.filled import CLAIMED, FAIR, fill
from tests.store.making import undone
from tests.store.test_postgres_plans import CONDITION

FEW, MANY = 24_000, 1_000_000  # rows
ASKED = 10  # of them
MOST = {"sqlite": 5_000, "postgres": 800}  # steps; rows, entries and pages

#: For people, who are told so; or page by page along the ids; or of what an owner runs; or of many keys.
WHOLE = {
    "counts", "task_names", "unfinished", "oldest_pending", "prunable", "running", "ownerless", "export",
    "enqueued_alone", "unknown_tasks", "has_work",
}  # fmt: skip
OF_FILTERS = ("find", "ids", "count", "below", "above", "queues", "hold_these")
#: Of a transaction, of those who follow, or of arrays: none of them looks for rows.
UNASKED = {
    "hold_place", "let_go", "replaced", "copy", "follow", "follow_anew", "newest", "skip_ids", "import",
    "enqueue_alone", "enqueue_many", "enqueue_many_on_terms", "import_attempt", "import_key", "add_stats",
    "import_schedule", "store_schedule", "succeed_many", "succeed_and_forget_many", "add_attempt_many",
    "keep_words_many", "progress_many",
}  # fmt: skip

VALUES: dict[str, Any] = {
    "limit": ASKED, "most": ASKED, "first": ASKED, "kept": ASKED, "jobs": "[1, 2, 3]", "ids": "[1, 2, 3]",
    "rows": '[["key 1", 1]]', "keys": '["key 1", "key 2"]', "key": "big", "queue": "still",
    "unique_key": "key 1", "queues": "[]", "parked": "limit:big", "owner": CLAIMED, "after": 0,
    "lanes": 4, "paused": "[]", "name": "each", "after_key": "", "after_name": "", "schedule": "s1",
    "state": "succeeded", "age": 3_600_000, "at": None, "task": "app:f", "args": "[]", "kwargs": "{}",
    "policy": None, "left": "[]", "settings": "1", "priority": 0, "turn": 0, "run_at_ms": None,
    "run_in_ms": 0, "expires_at_ms": None, "expires_in_ms": None, "deadline_at_ms": None,
    "deadline_in_ms": None, "debounce_ms": None, "keep": None, "headers": None, "parent": None,
    "special": 0, "limit_key": None, "share": "gone", "weight": None, "held_ms": None, "each": 100,
    "error": "e", "runs": "[]", "claims": None, "held": "[]", "up_to": None, "progress": "{}",
    "result": "1", "kinds": '[["default", 0]]', "groups": "[]", "owners": "[1]", "ranges": "[[1, 2]]",
    "family_name": "main", "source": "config", "within": False, "entered": False, "woken": False,
    "waits": False, "fair": 1,
}  # fmt: skip
_OF_POSTGRES: dict[str, Any] = {"paused": [], "first": True, "finished": False}
#: What is asked otherwise, once or in several ways.
SO: dict[str, list[dict[str, Any]]] = {
    "admit": [{"keys": ["big"]}, {"keys": ["each:1", "each:2", "none"]}],
    "fit_keys": [{"keys": ["big"]}, {"keys": ["each:1", "each:2", "none"]}],
    "claim": [{}, {"queue": "fair"}, {"queue": "wide"}],
    "enqueue_on_terms": [{"queue": "fair"}, {"queue": "wide", "share": "tenant 5"}],
    "level_turns": [{"queue": "once"}],
    "unturned": [{"queue": "fair"}],
    "raise_turns": [{"owner": FAIR}],
    "take_turns": [{"owner": FAIR}],
    "hold_owner_woken": [{"queues": ["fair", "default"]}],
    "hold_owner_woken_unsuspected": [{"queues": ["fair", "default"]}],
    "hold_owner_woken_suspects": [{"queues": ["fair", "default"]}],
    "place": [{}, {"paused": ["app:f"]}],
}


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, rows: int
) -> Iterator[SqliteStore | PostgresStore]:
    kind = SqliteDatabase if request.param == "sqlite" else PostgresDatabase
    database = kind(tmp_path)
    made = database.open()
    fill(database, rows)
    made.close()  # what it knew of the plans of an empty table
    assert isinstance(made, SqliteStore | PostgresStore)
    yield made
    database.close()


def read(store: SqliteStore | PostgresStore, name: str, asked: dict[str, Any]) -> int:
    """How much a statement reads; what it does is undone."""
    if isinstance(store, SqliteStore):
        return _steps(store, name, asked)
    with undone(store):
        before = _given(store)
        store._execute(name, asked)
        return _given(store) - before


def _steps(store: SqliteStore, name: str, asked: dict[str, Any]) -> int:
    hundreds = 0

    def count() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    with undone(store):
        connection = store._connected()
        connection.set_progress_handler(count, 100)
        connection.execute(store._statements[name], store._bound(asked)).fetchall()
        connection.set_progress_handler(None, 0)
    return 100 * hundreds


_GIVEN = b"""
SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)
    + pg_stat_get_xact_blocks_fetched(oid))::bigint
FROM pg_class WHERE relnamespace = 'SCHEMA'::regnamespace
"""


def _given(store: PostgresStore) -> int:
    store._bare(b"SELECT 1")  # begins the transaction
    asked = _GIVEN.replace(b"SCHEMA", store._worded("{schema}").encode())
    row = store._connected().execute(asked).fetchone()
    assert row is not None
    return int(row[0])


def much_read(
    store: SqliteStore | PostgresStore, texts: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Which statements, these or those of this release, read more than they may, and how much."""
    dialect = "sqlite" if isinstance(store, SqliteStore) else "postgres"
    parameter = r":(\w+)" if dialect == "sqlite" else r"%\((\w+)\)s"
    own = _OF_POSTGRES if dialect == "postgres" else {}
    much = {}
    for name, text in (texts or statements(dialect)).items():
        if name in WHOLE | UNASKED or name.partition(".")[0].startswith(OF_FILTERS):
            continue
        known = dict.fromkeys(re.findall(parameter, text), 1)
        known |= {**dict.fromkeys(CONDITION.findall(text), False), **VALUES, **own}
        for so in SO.get(name, [{}]):
            found = read(store, name, {**known, **so})
            if found > MOST[dialect]:
                much[f"{name} {so}"] = found
    return much


@pytest.mark.parametrize(
    "rows", [FEW, pytest.param(MANY, marks=pytest.mark.soak)], ids=["some thousand", "a million"]
)
def test_no_statement_reads_more_than_it_is_asked_for(store: SqliteStore | PostgresStore) -> None:
    assert much_read(store) == {}
    if isinstance(store, PostgresStore):  # and by the plans of prepared statements in the long run
        connection = store._connected()
        connection.prepare_threshold = 0
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        assert much_read(store) == {}
