"""Families without processes, closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.supervisor.staff import Staff


@pytest.fixture
def staff(tmp_path: Path) -> Iterator[Callable[..., Staff]]:
    """Makes one: staff({"processes": 3})."""
    made: list[Staff] = []

    def build(*pools: dict[str, object]) -> Staff:
        made.append(Staff(tmp_path, *pools))
        return made[-1]

    yield build
    for one in made:
        one.parent._nursery.close()
