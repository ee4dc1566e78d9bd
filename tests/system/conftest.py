"""Houses for tests, closed whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import shared
from tests.system.harness import Build, House, NewDatabase


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a module marked `stores("sqlite", "postgres")` runs on each of them.

    One that is marked `lanes(1, 4)` runs with workers of one lane, and of four.
    """
    for name, fixture in (("stores", "store_kind"), ("lanes", "lanes")):
        marker = metafunc.definition.get_closest_marker(name)
        if marker is not None and fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, marker.args, indirect=True)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which store a test runs on: SQLite, where it is not marked."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def lanes(request: pytest.FixtureRequest) -> int:
    """How many jobs a worker runs at once: one, where a test is not marked."""
    return int(getattr(request, "param", 1))


@pytest.fixture
def new_database(store_kind: str) -> NewDatabase:
    """What a House takes as its `database`, another one each time."""
    return shared().new_database if store_kind == "postgres" else lambda: None


@pytest.fixture
def build(tmp_path: Path, new_database: NewDatabase, lanes: int) -> Iterator[Build]:
    """Makes houses: build(tasks_source, processes=2, config={...}, name="a")."""
    houses: list[House] = []

    def make(tasks: str, *, name: str = "house", **options: Any) -> House:
        options.setdefault("database", new_database())
        if lanes > 1:
            options.setdefault("concurrency", lanes)
        houses.append(House(tmp_path / name, tasks, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()
