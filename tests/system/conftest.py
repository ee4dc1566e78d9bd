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

    One that is marked `lanes(1, 4)` runs with workers of one lane, and of four; one that is marked
    `preload(False, True)` runs without a template and with one.
    """
    for name, fixture in (("stores", "store_kind"), ("lanes", "lanes"), ("preload", "preload")):
        marker = metafunc.definition.get_closest_marker(name)
        if marker is not None and fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, marker.args, indirect=True, ids=_id)


def _id(value: object) -> str:
    return {False: "plain", True: "preload"}[value] if isinstance(value, bool) else str(value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs with a template once more does so on one store, unless it is a soak: the other is no news."""
    items[:] = [item for item in items if not _is_one_too_many(item)]


def _is_one_too_many(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("preload")
    if marker is None or len(marker.args) == 1 or item.get_closest_marker("soak"):
        return False
    params = item.callspec.params if isinstance(item, pytest.Function) else {}
    return bool(params.get("preload")) and params.get("store_kind") == "postgres"


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which store a test runs on: SQLite, where it is not marked."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def lanes(request: pytest.FixtureRequest) -> int:
    """How many jobs a worker runs at once: one, where a test is not marked."""
    return int(getattr(request, "param", 1))


@pytest.fixture
def preload(request: pytest.FixtureRequest) -> bool:
    """Whether the workers of a house are copies of a template: not, where a test is not marked."""
    return bool(getattr(request, "param", False))


@pytest.fixture
def new_database(store_kind: str) -> NewDatabase:
    """What a House takes as its `database`, another one each time."""
    return shared().new_database if store_kind == "postgres" else lambda: None


@pytest.fixture
def build(tmp_path: Path, new_database: NewDatabase, lanes: int, preload: bool) -> Iterator[Build]:
    """Makes houses: build(tasks_source, processes=2, config={...}, name="a")."""
    houses: list[House] = []

    def make(tasks: str, *, name: str = "house", **options: Any) -> House:
        options.setdefault("database", new_database())
        if lanes > 1:
            options.setdefault("concurrency", lanes)
        options.setdefault("preload", preload)
        houses.append(House(tmp_path / name, tasks, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()
