"""What is promised of claims, looks and settlings holds where a clerk makes them for its worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.clerked import ClerkDatabase
from tests.store.database import Database
from tests.store.test_claim import *  # noqa: F403 -- the same tests, with another database
from tests.store.test_looks import *  # noqa: F403
from tests.store.test_settle import *  # noqa: F403


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = ClerkDatabase(tmp_path)
    yield made
    made.close()
