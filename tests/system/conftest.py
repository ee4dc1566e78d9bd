"""Houses for tests, closed whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import shared
from tests.system.harness import Build, House, NewDatabase


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a module marked `stores("sqlite", "postgres")` runs on each of them."""
    marker = metafunc.definition.get_closest_marker("stores")
    if marker is not None and "store_kind" in metafunc.fixturenames:
        metafunc.parametrize("store_kind", marker.args, indirect=True)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which store a test runs on: SQLite, where it is not marked."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def new_database(store_kind: str) -> NewDatabase:
    """What a House takes as its `database`, another one each time."""
    return shared().new_database if store_kind == "postgres" else lambda: None


@pytest.fixture
def build(tmp_path: Path, new_database: NewDatabase) -> Iterator[Build]:
    """Makes houses: build(tasks_source, processes=2, config={...}, name="a")."""
    houses: list[House] = []

    def make(tasks: str, *, name: str = "house", **options: Any) -> House:
        options.setdefault("database", new_database())
        houses.append(House(tmp_path / name, tasks, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()
