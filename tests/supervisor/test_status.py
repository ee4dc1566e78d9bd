"""What the caretaker says of the family while the parent changes it."""

from __future__ import annotations

from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.board import (
    BOOTING,
    BUSY,
    CURRENT,
    FAILURES,
    FILLED,
    IDLE,
    PID,
    ROLE,
    SINCE,
    SLOT_STATE,
    STARTED,
    STATE,
    Board,
)
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.status import Status
from tests.clock import MovableClock, StandingClock


def test_a_slot_that_is_being_cleared_is_left_out_of_the_status(tmp_path: Path) -> None:
    config = Config.of({}, folder=str(tmp_path))
    board, state = Board(), StateDir(config.family.state_dir)
    state.create()
    half, whole = board.slots[1], board.slots[2]
    half[SLOT_STATE] = whole[SLOT_STATE] = FILLED  # the first has lost its role already
    whole[ROLE], whole[PID] = WORKER.number, 4242
    Status(board, config, state, SYSTEM, 1).write(waiting=False)
    found = state.status()
    assert found is not None
    assert [worker["slot"] for worker in found["workers"]] == [2]


def test_a_worker_at_rest_is_shown_so_within_a_second_of_its_last_job(tmp_path: Path) -> None:
    config = Config.of({}, folder=str(tmp_path))
    board, state, clock = Board(), StateDir(config.family.state_dir), MovableClock()
    state.create()
    worker = board.slots[1]
    worker[SLOT_STATE], worker[ROLE], worker[PID], worker[STATE] = FILLED, WORKER.number, 4242, BUSY
    status = Status(board, config, state, clock, 1)
    status.write_if_due(waiting=False)
    worker[STATE] = IDLE
    clock.move(1000)
    status.write_if_due(waiting=False)
    found = state.status()
    assert found is not None
    assert found["workers"][0]["state"] == "idle"


def test_a_worker_with_several_lanes_shows_each_of_its_jobs(tmp_path: Path) -> None:
    config = Config.of({}, folder=str(tmp_path))
    board, state, clock = Board(), StateDir(config.family.state_dir), StandingClock()
    state.create()
    clock.move(10_000)
    for index, lanes in ((1, 1), (2, 4)):
        worker = board.slots[index]
        worker[SLOT_STATE], worker[ROLE], worker[STATE] = FILLED, WORKER.number, BUSY
        worker.give_lanes(index * 10, lanes)
        for words in worker.lanes()[:2]:
            words[CURRENT], words[STARTED] = 70 + index, 5
            words[SINCE] = clock.monotonic_ns() - index * 1_000_000_000
    board.slots[2].lane(3)[CURRENT] = 80
    board.slots[2].lane(3)[SINCE] = clock.monotonic_ns() - 9_000_000_000
    board.slots[2].lane(1)[CURRENT] = 73
    Status(board, config, state, clock, 1).write(waiting=False)
    one, several = (state.status() or {})["workers"]
    assert (one["job"], one["job_seconds"], one["started"]) == (71, 1.0, 5)
    assert "jobs" not in one
    assert (several["job"], several["job_seconds"], several["started"]) == (80, 9.0, 10)
    assert (several["running"], several["lanes"]) == (3, 4)
    assert several["jobs"] == [
        {"job": 80, "job_seconds": 9.0},
        {"job": 72, "job_seconds": 2.0},
        {"job": 73, "job_seconds": 2.0},
    ]


def test_a_worker_that_keeps_dying_is_told_while_it_is_tried_again(tmp_path: Path) -> None:
    config = Config.of({}, folder=str(tmp_path))
    board, state = Board(), StateDir(config.family.state_dir)
    state.create()
    worker = board.slots[1]
    worker[SLOT_STATE], worker[ROLE], worker[FAILURES] = FILLED, WORKER.number, 3
    status = Status(board, config, state, SYSTEM, 1)
    told = []
    for worker[STATE] in (BOOTING, IDLE):
        status.write(waiting=False)
        told.append((state.status() or {})["degraded"])
    assert told == [["worker 1 keeps dying and is started again with growing delay"], []]
