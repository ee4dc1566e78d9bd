"""One suite that every store passes, unchanged: a new kind of database is one more id here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.events import Event
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.database import KINDS, Database


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = KINDS[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> Store:
    return database.open()


@pytest.fixture
def clock(database: Database) -> MovableClock:
    return database.clock


@pytest.fixture
def told(database: Database) -> list[Event]:
    """The events of everything that is done to the database through a store."""
    seen: list[Event] = []
    database.events.subscribe(seen.append)
    return seen
