"""What a worker has for its database: a connection, or clerks where several of its jobs run at once."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from jobvisor import Client
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.log import configure
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.board import BEAT, TURN, Board
from jobvisor.supervisor.child import spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.role import Role, Seat, import_for_lanes
from jobvisor.supervisor.running.opened import opened_for
from tests.store.making import life
from tests.store.processes import held_by_another
from tests.system.harness import is_gone, open_files
from tests.waiting import eventually


class Worker(Role):
    """A worker that opens its store, checks it in one step, and leaves."""

    def __init__(self, seat: Seat, check: Callable[[Worker], None], told: int) -> None:
        super().__init__(seat)
        self._check = check
        self._told = told
        self._checked = False

    def boot(self) -> None:
        configure("warning")  # what it asserts is told
        self.opened = opened_for(self, Events())
        pids = " ".join(str(clerk.pid) for clerk in self.opened.clerks)
        os.write(self._told, pids.encode())

    def leaving(self) -> bool:
        return self._checked

    def step(self) -> float:
        self._check(self)
        self._checked = True
        return 0

    def shut_down(self) -> None:
        self.opened.store.close()

    @property
    def path(self) -> str:
        return self.seat.config.database.url.removeprefix("sqlite:///")

    def claim(self) -> int:
        store: WorkerStore = self.opened.store
        return len(store.turn(life(), 1, queues=["default"], limit=9).jobs)


def ran(
    folder: Path, lanes: int, check: Callable[[Worker], None], kind: type[Worker] = Worker
) -> list[int]:
    """Let a worker with so many lanes check this; the pids of its clerks."""
    board = Board()
    slot = board.slots[0]
    slot.give_lanes(0, lanes)
    config = Config.of(
        {"database": {"url": f"sqlite:///{folder}/jobs.db"}, "tasks": {"modules": ["app"]}}
    )
    import_for_lanes(
        config
    )  # as its parent does: where it has no descriptors it can import nothing
    lifeline, kept = os.pipe()
    poke_read, poke = os.pipe()
    told_read, told = os.pipe()
    seat = Seat(config, board, slot, 1, 1, "worker 0", os.getpid(), lifeline, poke, poke)
    try:
        pid = spawn(lambda: kind(seat, check, told).run(), [kept, poke_read, told_read])
        _, status = os.waitpid(pid, 0)
        os.close(told)
        clerks = [int(number) for number in os.read(told_read, 100).split()]
    finally:
        for descriptor in (lifeline, kept, poke_read, poke, told_read):
            os.close(descriptor)
    assert os.waitstatus_to_exitcode(status) == 0
    return clerks


def test_a_worker_with_one_lane_has_its_own_connection(tmp_path: Path) -> None:
    def check(worker: Worker) -> None:
        assert isinstance(worker.opened.store, SqliteStore)
        assert worker.claim() == 0
        assert worker.path in open_files(os.getpid())

    assert ran(tmp_path, 1, check) == []


def test_a_worker_with_several_has_none_and_its_clerks_leave_with_it(tmp_path: Path) -> None:
    def check(worker: Worker) -> None:
        with Client(f"sqlite:///{worker.path}") as client:
            client.enqueue("app:f")
        assert worker.claim() == 1
        assert worker.path not in open_files(os.getpid())
        for clerk in worker.opened.clerks:
            assert worker.path in open_files(clerk.pid)

    clerks = ran(tmp_path, 2, check)
    assert len(clerks) == 2
    for pid in clerks:
        eventually(lambda pid=pid: is_gone(pid), what="the clerk has left")  # type: ignore[misc]


def test_a_clerk_keeps_nothing_of_its_workers_open(tmp_path: Path) -> None:
    def check(worker: Worker) -> None:
        seat, (turns, clients) = worker.seat, worker.opened.clerks
        Client(f"sqlite:///{worker.path}").enqueue("app:f")
        assert worker.claim() == 1  # both have begun
        ours = (seat.lifeline, seat.parent_poke, *worker.signals.descriptors(), turns.fileno())
        mine = {os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in ours}
        assert not mine & set(open_files(turns.pid))
        assert not mine & set(open_files(clients.pid))

    ran(tmp_path, 2, check)


@pytest.mark.parametrize("in_a_turn", [True, False])
def test_a_clerk_that_waits_for_the_lock_moves_the_turn_and_not_the_beat_of_its_worker(
    tmp_path: Path, in_a_turn: bool
) -> None:
    def check(worker: Worker) -> None:
        store, slot = worker.opened.store, worker.slot
        store.open()
        slot[TURN], slot[BEAT] = int(in_a_turn), 1
        waits = 0
        with held_by_another(Path(worker.path)) as holder:

            def count() -> None:
                nonlocal waits
                waits += 1
                if waits == 2:
                    holder.let_go()

            store.on_wait = count
            worker.claim()
        assert (slot[TURN] > 1, slot[BEAT]) == (in_a_turn, 1)

    with Client(f"sqlite:///{tmp_path}/jobs.db") as client:
        client.migrate()
    ran(tmp_path, 2, check)


class Poor(Worker):
    """The system has nothing left to give to it."""

    def boot(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        with pytest.raises(StoreUnavailable, match=r"no process for the database .* Too many open"):
            opened_for(self, Events())

    def shut_down(self) -> None:
        """It has nothing."""


def test_a_worker_that_cannot_have_a_clerk_says_why(tmp_path: Path) -> None:
    assert ran(tmp_path, 2, lambda _worker: None, Poor) == []
