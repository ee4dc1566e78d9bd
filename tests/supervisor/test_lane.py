"""One job after the other in a lane, without a worker around it."""

from __future__ import annotations

import threading

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Context
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.registry import Registry
from jobvisor.supervisor.board import FOREVER, LEASE_UNTIL, Board
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.running.lane import Lane
from tests.clock import StandingClock

is_there, go_on = threading.Event(), threading.Event()


class Halting(str):
    """A text that waits while it is encoded, as a thread may be halted there."""

    __slots__ = ()

    def encode(self, *_: object, **__: object) -> bytes:
        is_there.set()
        assert go_on.wait(30)
        return b'{"done": 9}'


def claimed(job: int) -> Claimed:
    return Claimed(job, "app:run", "[]", "{}", 1, 4, 1, None, 0, 0, None, "default", 0)


def test_progress_of_a_job_that_has_ended_meanwhile_is_not_that_of_the_next_one() -> None:
    board, registry, kept = Board(), Registry(), list[Entry]()
    board[LEASE_UNTIL] = FOREVER
    board.slots[1].give_lanes(0, 1)
    lane = Lane(
        board, board.slots[1], SYSTEM, leaving=lambda: False, stopping=lambda: False,
        recorded=lambda *_: None, commit=kept.append,
    )  # fmt: skip
    lane.claim = 1
    thread = threading.Thread(target=lane.progress, args=(1, Halting()))

    def run(ctx: Context) -> None:
        if ctx.job == 1:  # leaves a thread that speaks of it later
            thread.start()
            assert is_there.wait(30)
        else:
            go_on.set()
            thread.join()

    registry.task(run, name="app:run")
    lane.execution = Execution(registry, clock=SYSTEM, port=lane, worker="worker 1")
    for job in (1, 2):
        lane.run(claimed(job))
    assert [(entry.job, entry.progress) for entry in kept] == [(1, b""), (2, b"")]


def test_jobs_are_started_until_the_lease_ends_and_not_a_moment_longer() -> None:
    board, registry, clock, ran = Board(), Registry(), StandingClock(), list[int]()
    board.slots[1].give_lanes(0, 1)
    lane = Lane(
        board, board.slots[1], clock, leaving=lambda: False, stopping=lambda: False,
        recorded=lambda *_: None, commit=lambda _entry: None,
    )  # fmt: skip

    def run(ctx: Context) -> None:
        ran.append(ctx.job)
        clock.move(400)

    registry.task(run, name="app:run")
    lane.claim = 1
    lane.execution = Execution(registry, clock=clock, port=lane, worker="worker 1")
    clock.move(1_000)
    board[LEASE_UNTIL] = clock.boottime_ns() + 800_000_000
    took = [lane.run(claimed(job)) for job in (1, 2, 3)]
    assert (took, ran) == ([400_000_000] * 3, [1, 2, 3])
    assert lane.run(claimed(4)) is None
    board[LEASE_UNTIL] = clock.boottime_ns()  # another heartbeat
    assert lane.run(claimed(4)) is not None
    assert ran == [1, 2, 3, 4]
