"""What the caretaker says of the family while the parent changes it."""

from __future__ import annotations

from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.board import FILLED, PID, ROLE, SLOT_STATE, Board
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.status import Status


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
