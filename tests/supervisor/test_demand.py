"""What the caretaker sees of the pools with a range, and tells the parent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.errors import StoreError
from jobvisor.supervisor.board import (
    BUSY,
    FILLED,
    IDLE,
    IDLE_SEEN,
    LATENCY_SEEN,
    LEAVE,
    ROLE,
    SEEN_AT,
    SEEN_BY,
    SLOT_STATE,
    STATE,
    Board,
)
from jobvisor.supervisor.caretaker.demand import EVERY_SECONDS, Demand
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.roster import WORKER
from tests.store.database import Database, SqliteDatabase
from tests.store.making import enqueue

POOLS = [
    {"name": "fixed", "queues": ["fixed"], "processes": 2},
    {"name": "range", "queues": ["mail", "bulk"], "processes": "1-4"},
]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = SqliteDatabase(tmp_path)
    yield made
    made.close()


def test_the_parent_is_told_how_long_jobs_wait_and_how_many_workers_do(
    database: Database, tmp_path: Path
) -> None:
    store, board = database.open(), Board()
    pools = Config.of({"workers": POOLS}, folder=str(tmp_path)).workers
    for slot, (pool, state, leave) in enumerate(
        [("range", IDLE, 0), ("range", IDLE, 2), ("range", BUSY, 0), ("fixed", IDLE, 0)]
    ):
        words = board.slots[slot]
        words[SLOT_STATE], words[ROLE], words[STATE] = FILLED, WORKER.number, state
        words[LEAVE] = leave
        board.write_pool_name(slot, pool)
    demand = Demand(store, board, database.clock, pools, 7)
    assert demand.is_of_use
    enqueue(store, queue="fixed")
    database.clock.move(100)
    enqueue(store, queue="bulk")
    database.clock.move(40)
    assert demand.look() == pytest.approx(EVERY_SECONDS, rel=10)
    told = board.pools[1]
    assert (told[SEEN_BY], told[LATENCY_SEEN], told[IDLE_SEEN]) == (7, 40, 1)
    assert 0 < told[SEEN_AT] <= database.clock.monotonic_ns()
    assert board.pools[0][SEEN_AT] == 0, "a pool without a range is not looked at"


def test_an_absent_database_leaves_what_was_told_before(database: Database, tmp_path: Path) -> None:
    store, board = database.open(), Board()
    pools = Config.of({"workers": POOLS}, folder=str(tmp_path)).workers
    demand = Demand(store, board, database.clock, pools, 1)
    demand.look()
    told = [board.pools[1][word] for word in (SEEN_AT, LATENCY_SEEN, IDLE_SEEN)]
    store.close()
    for path in tmp_path.glob("*.db*"):
        path.unlink()
        path.mkdir()
    with pytest.raises(StoreError):
        demand.look()
    assert [board.pools[1][word] for word in (SEEN_AT, LATENCY_SEEN, IDLE_SEEN)] == told


def test_without_a_range_nothing_is_looked_at(database: Database, tmp_path: Path) -> None:
    pools = Config.of({"workers": POOLS[:1]}, folder=str(tmp_path)).workers
    assert not Demand(database.open(), Board(), database.clock, pools, 1).is_of_use
