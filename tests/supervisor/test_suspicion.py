"""What the caretaker sees of suspects that nobody takes, and tells the parent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.store.base import Whom
from jobvisor.supervisor.board import SUSPECTS_AT, SUSPECTS_BY, SUSPECTS_WAIT_MS, Board
from jobvisor.supervisor.caretaker.suspicion import Suspicion
from jobvisor.supervisor.config import Config
from tests.clock import StandingClock
from tests.store.database import Database, SqliteDatabase
from tests.store.making import enqueue, life


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = SqliteDatabase(tmp_path)
    yield made
    made.close()


def test_a_suspect_waits_from_the_first_look_that_saw_it_and_only_in_pools_with_lanes(
    database: Database, tmp_path: Path
) -> None:
    store, board = database.open(), Board()
    one, many = Config.of(
        {
            "workers": [
                {"name": "one", "queues": ["default"]},
                {"name": "many", "queues": ["default"]},
            ]
        },
        folder=str(tmp_path),
    ).workers
    assert not Suspicion(store, board, database.clock, (one,), 7).is_of_use
    pools = (one, dataclasses.replace(many, concurrency=50))
    clock = StandingClock()
    suspicion = Suspicion(store, board, clock, pools, 7)
    words = board.pools[1]

    def seen(after_ms: int) -> int:
        clock.move(after_ms)
        assert suspicion.look() is None
        assert (words[SUSPECTS_BY], words[SUSPECTS_AT]) == (7, clock.monotonic_ns())
        return words[SUSPECTS_WAIT_MS]

    enqueue(store)
    assert seen(60_000) == 0
    enqueue(store, memory_bytes=1 << 20)
    assert [seen(500) for _ in range(3)] == [0, 500, 1_000]
    enqueue(store, memory_bytes=1 << 20)
    store.turn(life(), 1, queues=["default"], limit=1, whom=Whom.SUSPECTS)
    assert [seen(500) for _ in range(2)] == [0, 500], "another one"
    assert board.pools[0][SUSPECTS_AT] == 0
