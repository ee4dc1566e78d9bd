"""Filled tables of older releases, migrated: each row is as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jobvisor.jobs.job import State
from jobvisor.jobs.store import open_store
from tests.older import SCHEMA_0_2, SCHEMA_0_5, make_old, old_postgres
from tests.postgres import shared

ROWS = 4_000

#: Rows of all states, with and without what a row may have; {each} counts them, {at} makes a moment.
FILLED = """
INSERT INTO jobs (task, args, kwargs, queue, priority, state, run_at, attempt, attempts_max, claims, losses,
    policy, timeout_ms, memory_bytes, unique_key, expires_at, deferred, cancel_requested, owner, claim,
    created_at, claimed_at, started_at, finished_at, result, error, progress)
SELECT 'app:' || i % 9, '[' || i || ']', '{{"a": ' || i || '}}', 'queue ' || i % 5, i % 7 - 3, state, {at},
    i % 3, 4, i % 3, i % 2, CASE WHEN i % 4 = 0 THEN '["fixed", 0]' END, i % 11, i % 2 * 1048576,
    CASE WHEN i % 6 = 0 THEN 'key ' || i END, CASE WHEN i % 8 = 0 THEN {at} END,
    CASE WHEN state = 'scheduled' THEN
        CASE i % 4 WHEN 0 THEN 'retry' WHEN 1 THEN 'snooze' WHEN 2 THEN 'unknown' END END,
    CASE WHEN state IN ('running', 'cancelled') THEN i % 2 ELSE 0 END,
    CASE WHEN state = 'running' THEN 1 + i % 3 END, CASE WHEN state = 'running' THEN i END, {at},
    CASE WHEN state = 'running' THEN {at} END, CASE WHEN state = 'running' THEN {at} END,
    CASE WHEN state IN ('succeeded', 'failed', 'cancelled') THEN {at} END,
    CASE WHEN state = 'succeeded' THEN '"done"' END, CASE WHEN state = 'failed' THEN 'ValueError: ' || i END,
    CASE WHEN i % 5 = 0 THEN '{{"done": 1}}' END
FROM (SELECT i, CASE i % {states}{kinds} END AS state FROM {each}) AS told;
INSERT INTO attempts (job, attempt, owner, claim, outcome, error_type, message, traceback, finished_at)
    SELECT id, 1, 1, 1, 'error', 'ValueError', 'no', 'at', {finished} FROM jobs WHERE state = 'failed';
"""
KINDS = "".join(f" WHEN {n} THEN '{state}'" for n, state in enumerate(State))


def filled(dialect: str, rows: int = ROWS) -> str:
    words = {"states": len(State), "kinds": KINDS}
    if dialect == "sqlite":
        numbers = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}"
        each = f"(WITH RECURSIVE n (i) AS ({numbers}) SELECT i FROM n)"
        return FILLED.format(each=each, at="1700000000000 + i", finished="1700000000000", **words)
    each, at = f"generate_series(1, {rows}) AS n (i)", "to_timestamp(1700000000 + i)"
    text = FILLED.format(each=each, at=at, finished="to_timestamp(1700000000)", **words)
    for column in ("'[' || i || ']'", "'{\"a\": ' || i || '}'"):
        text = text.replace(column, f"({column})::json")
    for value in ("'[\"fixed\", 0]'", "'\"done\"'", "'{\"done\": 1}'"):
        text = text.replace(value, f"{value}::json")
    return text


OLDER = pytest.mark.parametrize("numbers", [SCHEMA_0_2, SCHEMA_0_5], ids=["0.2.0", "0.5.0"])


@OLDER
def test_each_row_of_a_filled_file_is_as_before(tmp_path: Path, numbers: Mapping[str, int]) -> None:
    path = tmp_path / "jobs.db"
    make_old(path, filled("sqlite"), numbers=numbers)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        jobs, attempts = (
            connection.execute("SELECT * FROM jobs LIMIT 1"),
            connection.execute("SELECT * FROM attempts LIMIT 1"),
        )
        asked = [
            f"SELECT {', '.join(found.fetchone().keys())} FROM {table} ORDER BY id"
            for table, found in (("jobs", jobs), ("attempts", attempts))
        ]
        before = [list(map(tuple, connection.execute(text))) for text in asked]
        with closing(open_store(f"sqlite:///{path}")) as store:
            store.migrate()
        assert len(before[0]) == ROWS
        assert before[1]
        assert [list(map(tuple, connection.execute(text))) for text in asked] == before
        assert tuple(connection.execute("PRAGMA integrity_check").fetchone()) == ("ok",)


@OLDER
def test_each_row_of_filled_tables_is_as_before(numbers: Mapping[str, int]) -> None:
    url = shared().new_database()
    try:
        with (
            closing(old_postgres(url, filled("postgres"), numbers=numbers)) as store,
            psycopg.connect(url, autocommit=True) as server,
        ):
            asked = []
            for table in ("jobs", "attempts"):
                found = server.execute(f"SELECT * FROM jobvisor.{table} LIMIT 0".encode())
                columns = ", ".join(f"{column.name}::text" for column in found.description or ())
                asked.append(f"SELECT {columns} FROM jobvisor.{table} ORDER BY id".encode())
            before = [server.execute(text).fetchall() for text in asked]
            store.migrate()
            assert len(before[0]) == ROWS
            assert before[1]
            assert [server.execute(text).fetchall() for text in asked] == before
    finally:
        shared().drop_database(url)
