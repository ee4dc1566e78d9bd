"""Clients of empty databases, and sites with jobs: what the tests of the application begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor import Client
from tests.postgres import shared
from tests.supervisor.web.shop import Shop


def migrated(kind: str, folder: Path) -> str:
    """The URL of a new database with our tables in it; of SQLite it is `jobs.db` in the folder."""
    url = shared().new_database() if kind == "postgres" else f"sqlite:///{folder}/jobs.db"
    with Client(url) as client:
        client.migrate()
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with our tables in it."""
    return migrated(request.param, tmp_path)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """Somebody who enqueues, and changes jobs."""
    with Client(url) as made:
        yield made


@pytest.fixture(params=["memory", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A site on each kind of database."""
    made = Shop("memory://" if request.param == "memory" else migrated(request.param, tmp_path))
    yield made
    made.close()


@pytest.fixture
def here() -> Iterator[Shop]:
    """A site in memory, where the kind of database makes no difference."""
    made = Shop()
    yield made
    made.close()
