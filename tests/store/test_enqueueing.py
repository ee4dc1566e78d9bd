"""Enqueueing over a connection that is not the store's: in the application's own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.store.enqueueing import MOVES_MET, carried_out, enqueueing
from jobvisor.jobs.store.statements import statements
from tests.store.database import SqliteDatabase
from tests.store.making import new


def test_a_job_is_stored_with_the_rows_of_the_application_or_not_at_all(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    store = database.open()
    connection = sqlite3.connect(database.path, isolation_level=None)

    def ask(name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        values = {**parameters, "now": database.clock.now_ms()}
        return connection.execute(statements("sqlite")[name], values).fetchall()

    connection.execute("CREATE TABLE orders (number INTEGER)")
    for end in ("ROLLBACK", "COMMIT"):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO orders VALUES (7)")
        made = carried_out(enqueueing(new(unique_key="order 7")), ask)
        connection.execute(end)
    assert database.sql("SELECT count(*) FROM orders") == [(1,)]
    assert [job.id for job in store.find()] == [made.id]
    assert carried_out(enqueueing(new(unique_key="order 7")), ask)[:2] == (made.id, None)
    connection.close()
    database.close()


def test_a_key_that_is_always_taken_and_freed_between_two_looks_has_an_end() -> None:
    asked: list[str] = []

    def ask(name: str, _parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        asked.append(name)
        return []

    with pytest.raises(StoreUnavailable, match="'k' was taken and freed 10 times"):
        carried_out(enqueueing(new(unique_key="k")), ask)
    assert asked == ["enqueue", *["holder", "enqueue"] * (MOVES_MET - 1)]
