"""Lives of others that died: found, settled in slices, one never in the way of another."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import HOST, boot_id, pid_namespace
from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Life, Store, open_store
from jobvisor.jobs.store.settlement import VANISHED_AT_ONCE
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.deaths.rescue import Rescue
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.ledger import Header, Ledger
from tests.store.making import enqueue, new

DEAD_TICKS = 1  # no process of ours began with the machine


class Scene:
    """A caretaker's rescue on a store, and lives that have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDir(str(folder / "state"))
        self.state.create()
        self.store: Store = open_store(f"sqlite:///{folder}/jobs.db")
        self.store.open()
        self.asked = 0
        self.patience = 1_000_000
        self.rescue = Rescue(
            self.store, self.state, Board(), SYSTEM,
            family=1, dead_after_ms=30_000, forget=False, alone=lambda: False, go_on=self._go_on,
        )  # fmt: skip

    def _go_on(self) -> bool:
        self.asked += 1
        return self.asked <= self.patience

    def dead(self, owner: int, *, family: int = 2) -> Life:
        return Life(owner, family, "x", HOST, boot_id(), pid_namespace(), 4_000_000, DEAD_TICKS)

    def claim(self, life: Life, limit: int = 10_000) -> list[Claimed]:
        turn = self.store.turn(life, 1, queues=("default",), limit=limit, register=True)
        return turn.jobs

    def ledger(self, life: Life) -> Ledger:
        header = Header(
            life.owner, life.pid, life.start_ticks, life.pid_namespace, life.family,
            life.boot_id, self.store.database_id(), HOST,
        )  # fmt: skip
        return Ledger(self.state.ledgers, header)

    def states(self) -> set[State]:
        return {job.state for job in self.store.find(limit=10_000)}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.store.close()


def test_between_two_pages_of_a_lost_owner_the_caretaker_does_what_cannot_wait(
    scene: Scene,
) -> None:
    pages = 3
    lost = scene.dead(901, family=0)
    scene.store.enqueue([new()] * (VANISHED_AT_ONCE * pages))
    assert len(scene.claim(lost)) == VANISHED_AT_ONCE * pages
    scene.rescue.rescue()
    assert scene.states() == {State.PENDING}
    assert scene.asked >= pages


def test_a_rescue_without_time_left_stops_after_a_page_and_is_continued_later(
    scene: Scene,
) -> None:
    lost = scene.dead(901, family=0)
    scene.store.enqueue([new()] * (VANISHED_AT_ONCE * 3))
    scene.claim(lost)
    scene.patience = 1
    scene.rescue.rescue()
    assert scene.states() == {State.PENDING, State.RUNNING}
    scene.patience = 1_000_000
    scene.rescue.rescue()
    assert scene.states() == {State.PENDING}


def test_a_ledger_that_cannot_be_read_does_not_stop_the_others(scene: Scene) -> None:
    enqueue(scene.store)
    Path(scene.state.ledgers, "111").mkdir()  # as unreadable as a file can be to root
    lost = scene.dead(222)
    scene.claim(lost)
    scene.ledger(lost).close()
    scene.rescue.scan_ledgers(scene.state.ledgers)
    assert scene.states() == {State.PENDING}


def curse(scene: Scene, job: int) -> None:
    """A trigger of the user's that lets nobody change one row."""
    with closing(sqlite3.connect(scene.folder / "jobs.db")) as stranger, stranger:
        stranger.execute(
            f"CREATE TRIGGER curse BEFORE UPDATE ON jobs WHEN OLD.id = {job} "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )


def found(scene: Scene) -> dict[int, State]:
    return {job.id: job.state for job in scene.store.find(limit=10)}


def test_a_ledger_whose_rows_a_trigger_refuses_does_not_stop_the_others(scene: Scene) -> None:
    ids = [enqueue(scene.store) for _ in range(2)]
    for owner in (111, 222):
        lost = scene.dead(owner)
        scene.claim(lost, limit=1)
        scene.ledger(lost).close()
    curse(scene, ids[0])
    scene.rescue.scan_ledgers(scene.state.ledgers)
    assert found(scene) == {ids[0]: State.RUNNING, ids[1]: State.PENDING}


def test_a_life_without_a_ledger_whose_row_is_refused_does_not_stop_the_others(
    scene: Scene,
) -> None:
    ids = [enqueue(scene.store) for _ in range(2)]
    for owner in (111, 222):
        scene.claim(scene.dead(owner, family=0), limit=1)
    curse(scene, ids[0])
    scene.rescue.rescue()
    assert found(scene) == {ids[0]: State.RUNNING, ids[1]: State.PENDING}
