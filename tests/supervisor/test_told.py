"""What a config says of limits and queues is told once by a family, whatever becomes of its caretakers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.limit import CONFIG, limit_of
from jobvisor.supervisor.board import LIMITS_TOLD, QUEUES_TOLD, Board
from jobvisor.supervisor.caretaker.fairness import Fairness
from jobvisor.supervisor.caretaker.limits import Limits
from jobvisor.supervisor.caretaker.told import Told
from jobvisor.supervisor.config import Queue
from tests.store.database import Database, SqliteDatabase


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = SqliteDatabase(tmp_path)
    yield made
    made.close()


def test_a_caretaker_that_died_and_came_back_leaves_the_limits_of_a_newer_config(
    database: Database,
) -> None:
    store, boards = database.open(), {1: Board(), 2: Board()}

    def caretaker(family: int, places: int, generation: int = 0) -> Limits:
        told = Told(boards[family], LIMITS_TOLD, family, generation)
        return Limits(store, [limit_of("k", concurrency=places, source=CONFIG)], told)

    def places() -> int | None:
        return store.limits()[0].concurrency

    caretaker(1, 3).declare()
    caretaker(2, 5).declare()
    again = caretaker(1, 3)
    again.declare()
    assert places() == 5
    caretaker(1, 4, generation=1).declare()  # a reload says it anew
    assert places() == 4
    store.remove_limit("k")
    again.declare()
    assert places() == 3


def test_a_queue_of_which_a_config_says_nothing_stays_fair_and_a_restart_leaves_it(
    database: Database,
) -> None:
    store, boards = database.open(), {1: Board(), 2: Board()}

    def caretaker(family: int, *, fair: bool | None) -> Fairness:
        told = Told(boards[family], QUEUES_TOLD, family, 0)
        return Fairness(store, [Queue("q", (), fair)], told)

    caretaker(1, fair=True).see_to()
    caretaker(2, fair=None).see_to()
    assert store.fair_queues() == ["q"]
    store.set_fair("q", fair=False)
    caretaker(1, fair=True).see_to()
    assert store.fair_queues() == []
