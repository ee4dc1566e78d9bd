"""What the caretaker does with the graves on the board, on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import Store, open_store
from jobvisor.supervisor.board import Board, Grave
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.deaths.burial import Burial
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.status import Status
from tests.store.making import claim, enqueue, life


class Yard:
    """A board, a store and a status, with nobody alive."""

    def __init__(self, folder: Path) -> None:
        config = Config.of({}, folder=str(folder))
        self.board = Board()
        self.state = StateDir(config.family.state_dir)
        self.state.create()
        self.store: Store = open_store(config.database.url)
        self.store.open()
        self.status = Status(self.board, config, self.state, SYSTEM, 1)
        self.burial = Burial(
            self.store, self.state, self.board, self.status, SYSTEM,
            family=1, forget=False, go_on=lambda: None,
        )  # fmt: skip

    def deaths(self) -> list[dict[str, object]]:
        self.status.write(waiting=False)
        told = self.state.status()
        assert told is not None
        deaths: list[dict[str, object]] = told["deaths"]
        return deaths


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


def grave(owner: int, status: int, current: int = 0) -> Grave:
    return Grave(owner, 4242, 3, status, 0, 0, 0, SYSTEM.monotonic_ns(), current, 1, WORKER.number)


def test_a_worker_that_left_by_itself_is_no_death_in_the_status(yard: Yard) -> None:
    yard.board.bury(grave(11, 0))
    yard.board.bury(grave(12, -9))
    yard.burial.settle_all()
    assert [death["signal"] for death in yard.deaths()] == ["SIGKILL"]


def test_a_worker_that_left_in_the_middle_of_a_job_is_a_death_whatever_its_exit_code(
    yard: Yard,
) -> None:
    enqueue(yard.store)
    who = life()
    (job,) = claim(yard.store, who)
    yard.board.bury(grave(who.owner, 0, job.id))
    yard.burial.settle_all()
    assert [death["job"] for death in yard.deaths()] == [job.id]
