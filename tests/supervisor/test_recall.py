"""When a claim is taken back: by a clock that a test moves, on a real board, ledger and store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.base import Life
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.board import (
    AHEAD,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CLAIM,
    CURRENT,
    CURRENT_CLAIM,
    FILLED,
    FOREVER,
    GOING,
    LEAVING_CODES,
    OWNER,
    RECALL,
    ROLE,
    SINCE,
    SLOT_STATE,
    STATE,
    Board,
)
from jobvisor.supervisor.deaths.recall import Recall
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.ledger import Entry, Header, Ledger
from jobvisor.supervisor.roster import WORKER
from tests.clock import StandingClock
from tests.store.making import claim, enqueue, life


class Scene:
    """A worker that has ended the first of its jobs and is in the second."""

    def __init__(self, folder: Path, jobs: int, lanes: int = 1) -> None:
        self.clock = StandingClock()
        self.clock.move(1_000)
        self.board = Board()
        state = StateDir(str(folder / "state"))
        state.create()
        self.store: Store = open_store(
            f"sqlite:///{folder}/jobs.db", durable=False, clock=self.clock
        )
        for _ in range(jobs):
            enqueue(self.store)
        self.who: Life = life()
        self.jobs: list[Claimed] = claim(self.store, self.who, 1, limit=jobs)
        self.slot = self.board.slots[1]
        self.slot[SLOT_STATE], self.slot[ROLE], self.slot[STATE] = FILLED, WORKER.number, BUSY
        self.slot[OWNER], self.slot[CLAIM], self.slot[AHEAD] = self.who.owner, 1, jobs - 1
        self.slot.give_lanes(3, lanes)
        assert isinstance(self.store, SqliteStore)
        header = Header(self.who.owner, 1, 1, 1, 1, "boot", self.store.database_id(), "here", lanes)
        self.ledger = (Ledger if lanes == 1 else HalvedLedger)(state.ledgers, header, self.clock)
        self.ledger.claimed(1)
        self.begin(self.jobs[0])
        self.ledger.record(
            Entry(1, self.jobs[0].id, 1, 1, self.clock.boottime_ns(), 0, 0, b"", b"")
        )
        self.ledger.sheets[0].withdraw()
        if jobs > 1:
            self.begin(self.jobs[1])
        self.recall = Recall(self.store, state, self.board, self.clock, family=1, forget=False)

    def begin(self, job: Claimed, lane: int = 0, number: int = 1) -> None:
        words, sheet = self.slot.lane(lane), self.ledger.sheets[lane]
        sheet.claimed(number)
        words[CURRENT_CLAIM], words[SINCE] = number, self.clock.monotonic_ns()
        sheet.publish(job.id, 0)
        words[CURRENT] = job.id

    def states(self) -> list[State]:
        return [self.store.get(job.id).state for job in self.jobs]

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(tmp_path, 4)) as made:
        yield made


RUNS, WAITS, DONE = State.RUNNING, State.PENDING, State.SUCCEEDED


def test_a_claim_is_taken_back_when_its_job_has_run_for_fifty_milliseconds_and_not_before(
    scene: Scene,
) -> None:
    scene.clock.move(49)
    scene.recall.behind_long_jobs()
    assert (scene.slot[RECALL], scene.states()) == (0, [RUNS] * 4)
    scene.clock.move(1)
    scene.recall.behind_long_jobs()
    assert (scene.slot[RECALL], scene.states()) == (1, [DONE, RUNS, WAITS, WAITS])


def test_a_claim_is_taken_back_once(scene: Scene) -> None:
    scene.clock.move(50)
    scene.recall.behind_long_jobs()
    again = claim(scene.store, life(), 1)[0]
    scene.slot[RECALL] = 0
    scene.recall.behind_long_jobs()
    assert scene.slot[RECALL] == 0
    assert scene.store.get(again.id).state == RUNS


def test_a_worker_that_has_but_one_job_is_left_alone(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, 1)) as scene:
        scene.clock.move(60_000)
        scene.recall.behind_long_jobs()
        assert (scene.slot[RECALL], scene.states()) == (0, [RUNS])


def test_with_several_lanes_it_is_when_none_has_begun_anything_for_that_long(
    tmp_path: Path,
) -> None:
    with closing(Scene(tmp_path, 5, lanes=2)) as scene:
        scene.clock.move(40)
        scene.begin(scene.jobs[2], lane=1)
        scene.clock.move(49)
        scene.recall.behind_long_jobs()
        assert (scene.slot[RECALL], scene.states()) == (0, [RUNS] * 5)
        scene.clock.move(1)
        scene.recall.behind_long_jobs()
        assert (scene.slot[RECALL], scene.states()) == (1, [DONE, RUNS, RUNS, WAITS, WAITS])


def test_nothing_is_taken_back_where_nothing_is_ahead(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, 2, lanes=2)) as scene:
        scene.slot[AHEAD] = 0
        scene.clock.move(60_000)
        scene.recall.behind_long_jobs()
        assert (scene.slot[RECALL], scene.states()) == (0, [RUNS, RUNS])


def test_all_claims_of_a_worker_up_to_its_last_one_are_taken_back_together(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, 3, lanes=2)) as scene:
        for _ in range(2):
            enqueue(scene.store)
        scene.jobs += claim(scene.store, scene.who, 2, limit=2)
        scene.ledger.claimed(2)
        scene.slot[CLAIM] = 2
        scene.begin(scene.jobs[3], lane=1, number=2)
        scene.clock.move(50)
        scene.recall.behind_long_jobs()
        assert (scene.slot[RECALL], scene.states()) == (2, [DONE, RUNS, WAITS, RUNS, WAITS])


def cancels(scene: Scene) -> list[tuple[int, int]]:
    columns = (scene.slot.column(word) for word in (CANCEL_JOB, CANCEL_CLAIM))
    return list(zip(*columns, strict=True))


def test_a_cancel_is_brought_to_the_lane_that_runs_the_job(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, 4, lanes=3)) as scene:
        scene.begin(scene.jobs[2], lane=2)
        scene.store.cancel(scene.jobs[2].id)
        scene.recall.carry_cancels()
        assert cancels(scene) == [(0, 0), (0, 0), (scene.jobs[2].id, 1)]
        assert (scene.slot[RECALL], scene.states()) == (0, [RUNS] * 4)


def test_a_cancel_of_a_job_that_has_not_begun_takes_its_claim_back(tmp_path: Path) -> None:
    with closing(Scene(tmp_path, 4, lanes=3)) as scene:
        scene.store.cancel(scene.jobs[3].id)
        scene.recall.carry_cancels()
        assert cancels(scene) == [(0, 0)] * 3
        assert (scene.slot[RECALL], scene.states()) == (1, [DONE, RUNS, WAITS, State.CANCELLED])


def test_a_recall_of_an_earlier_claim_does_not_allow_what_a_later_one_forbade(
    scene: Scene,
) -> None:
    scene.slot[RECALL] = 7
    scene.recall.recall(scene.slot, scene.who.owner, 1)
    assert scene.slot[RECALL] == 7


def test_what_a_worker_without_a_clerk_ends_is_settled_and_what_it_has_not_begun_goes_back(
    tmp_path: Path,
) -> None:
    with closing(Scene(tmp_path, 4, lanes=2)) as scene:
        unheard = enqueue(scene.store)
        claim(scene.store, scene.who, 2)  # its answer was lost with the clerk
        scene.slot[AHEAD] = 0
        scene.recall.relieve()
        assert scene.states() == [RUNS] * 4
        scene.slot[GOING] = LEAVING_CODES["clerk"]
        scene.recall.relieve()
        assert (scene.slot[RECALL], scene.states()) == (FOREVER, [DONE, RUNS, WAITS, WAITS])
        assert scene.store.get(unheard).state == WAITS
        entry = Entry(1, scene.jobs[1].id, 1, 1, scene.clock.boottime_ns(), 0, 0, b"", b"")
        scene.ledger.record(entry)
        scene.ledger.sheets[0].withdraw()
        scene.recall.relieve()
        assert scene.states() == [DONE, DONE, WAITS, WAITS]
