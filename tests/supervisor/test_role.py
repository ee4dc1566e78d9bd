"""The skeleton of a child: how it sleeps, and what ends a sleep."""

from __future__ import annotations

import os
import signal

from jobvisor.jobs.clock import SECOND
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.child import spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.role import Role, Seat

REST = 0.1  # seconds


class Resting(Role):
    """A child that takes three steps; within the first comes a signal of the task's own."""

    def boot(self) -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        self.steps: list[int] = []

    def leaving(self) -> bool:
        return len(self.steps) == 3

    def step(self) -> float:
        if not self.steps:
            signal.raise_signal(signal.SIGALRM)
        self.steps.append(self.clock.monotonic_ns())
        return REST

    def shut_down(self) -> None:
        slept = (self.steps[2] - self.steps[1]) / SECOND
        assert slept >= REST, f"it slept {slept} s"


def test_a_signal_that_a_task_handles_by_itself_ends_one_sleep_and_not_every_later_one() -> None:
    board = Board()
    lifeline, kept = os.pipe()
    poke_read, poke = os.pipe()
    config = Config.of({"tasks": {"modules": ["app"]}})
    seat = Seat(config, board, board.slots[0], 1, 1, "worker 0", os.getpid(), lifeline, poke, poke)
    try:
        pid = spawn(lambda: Resting(seat).run(), [kept])
        _, status = os.waitpid(pid, 0)
    finally:
        for descriptor in (lifeline, kept, poke_read, poke):
            os.close(descriptor)
    assert os.waitstatus_to_exitcode(status) == 0
