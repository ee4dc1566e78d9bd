"""What jobs say of their progress, from their sheets to their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.base import Life
from jobvisor.supervisor.board import (
    BUSY,
    FILLED,
    OWNER,
    PROGRESS,
    ROLE,
    SLOT_STATE,
    STATE,
    Board,
)
from jobvisor.supervisor.caretaker.progress import SLICE_NS, Progress
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.ledger import Header
from jobvisor.supervisor.roster import WORKER
from tests.clock import StandingClock
from tests.store.making import claim, enqueue, life

LANES = 4


class SteppingClock(StandingClock):
    """One that moves at each look at it."""

    __slots__ = ("step_ms",)

    def __init__(self) -> None:
        super().__init__()
        self.step_ms = 0

    def monotonic_ns(self) -> int:
        self.move(self.step_ms)
        return super().monotonic_ns()


class Scene:
    """A worker whose four lanes are busy."""

    def __init__(self, folder: Path) -> None:
        self.clock = SteppingClock()
        self.store: Store = open_store(f"sqlite:///{folder}/jobs.db", durable=False)
        for _ in range(LANES):
            enqueue(self.store)
        self.who: Life = life()
        self.jobs: list[Claimed] = claim(self.store, self.who)
        state = StateDir(str(folder / "state"))
        state.create()
        board = Board()
        self.slot = board.slots[1]
        self.slot[SLOT_STATE], self.slot[ROLE], self.slot[STATE] = FILLED, WORKER.number, BUSY
        self.slot[OWNER] = self.who.owner
        self.slot.give_lanes(3, LANES)
        header = Header(self.who.owner, 1, 1, 1, 1, "boot", "database", "here", LANES)
        self.ledger = HalvedLedger(state.ledgers, header)
        for sheet, job in zip(self.ledger.sheets, self.jobs, strict=True):
            sheet.claimed(1)
            sheet.publish(job.id, 0)
        self.progress = Progress(self.store, state, board, self.clock)

    def say(self, lane: int, done: int, job: Claimed | None = None) -> None:
        said = b'{"done": %d}' % done
        told = self.ledger.sheets[lane].progress((job or self.jobs[lane]).id, said)
        self.slot.lane(lane)[PROGRESS] = told

    def rows(self) -> list[object]:
        found = [self.store.get(job.id).progress for job in self.jobs]
        return [None if told is None else told["done"] for told in found]

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_each_lane_speaks_for_the_row_of_its_own_job(scene: Scene) -> None:
    scene.say(1, 10)
    scene.say(3, 30)
    scene.progress.carry()
    assert scene.rows() == [None, 10, None, 30]
    scene.say(0, 5)
    scene.say(1, 11)
    scene.progress.carry()
    assert scene.rows() == [5, 11, None, 30]


def test_what_an_earlier_job_of_a_lane_said_is_not_told_of_the_next_one(scene: Scene) -> None:
    scene.say(2, 20)
    scene.ledger.sheets[2].publish(scene.jobs[0].id, 0)
    scene.progress.carry()
    assert scene.rows() == [None] * LANES


def test_lanes_that_speak_all_the_time_keep_no_other_waiting_for_ever(scene: Scene) -> None:
    scene.clock.step_ms = SLICE_NS // 1_000_000 + 1  # a database that takes its time
    for look in range(1, LANES + 1):
        for lane in range(LANES):
            scene.say(lane, look)
        scene.progress.carry()
    assert scene.rows() == [1, 2, 3, 4]
