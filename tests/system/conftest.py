"""Houses for tests, closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import House


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses: build(tasks_source, processes=2, config={...}, name="a")."""
    houses: list[House] = []

    def make(tasks: str, *, name: str = "house", **options: Any) -> House:
        houses.append(House(tmp_path / name, tasks, **options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()
