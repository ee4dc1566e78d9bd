"""Whom the parent kills, and what its verdict names, where a worker runs several jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jobvisor.jobs.clock import SECOND
from jobvisor.supervisor.board import (
    BEAT,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CLERK,
    CURRENT,
    CURRENT_CLAIM,
    DEADLINE,
    IDLE,
    LOOP_BEAT,
    LOOP_STOOD_STILL,
    MEMORY,
    STATE,
    STOOD_STILL,
    TURN,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
    VERDICTS,
    Board,
)
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.judge import MEMORY_EVERY_NS, STUCK_BESIDE_NS, STUCK_NS, Judge
from jobvisor.supervisor.roster import WORKER
from tests.clock import StandingClock


class Court:
    """A judge over one worker with four lanes, which is a real process that only waits."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.clock.move(60_000)
        self.family = Config.of({}).family
        crew = Crew(Board())
        self.post: Post = crew.add(WORKER)
        crew.give_lanes(self.post, 4)
        # It tells no stack, and lives on when it is asked for one.
        code = "import signal; signal.signal(signal.SIGUSR2, signal.SIG_IGN); print(); input()"
        command = [sys.executable, "-c", code]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.child.stdout is not None
        self.child.stdout.readline()
        self.post.pid = self.child.pid
        self.slot = self.post.slot
        self.slot[STATE] = BUSY
        self.judge = Judge(crew, self.clock)
        for lane in range(4):
            self.run(lane, 70 + lane)

    def run(self, lane: int, job: int, claim: int = 2, deadline_ms: int = 0) -> None:
        words = self.slot.lane(lane)
        ends = self.clock.monotonic_ns() + deadline_ms * 1_000_000
        words[CURRENT_CLAIM], words[DEADLINE] = claim, ends if deadline_ms else 0
        words[CURRENT] = job

    def look(self, after_ms: int = 0) -> tuple[str, int, int]:
        """The verdict that stands on the slot after some time."""
        self.clock.move(after_ms)
        self.judge.look(self.family)
        return VERDICTS[self.slot[VERDICT]], self.slot[VERDICT_JOB], self.slot[VERDICT_CLAIM]

    def end(self) -> int:
        """How the child ends that was asked for its stack in vain."""
        self.look(20)
        self.look(30)
        return self.child.wait()

    def close(self) -> None:
        self.child.kill()
        self.child.communicate()


@pytest.fixture
def court() -> Iterator[Court]:
    made = Court()
    yield made
    made.close()


NONE = ("", 0, 0)


def test_a_deadline_is_that_of_the_lane_whose_job_it_is(court: Court) -> None:
    court.run(1, 80, deadline_ms=2_000)
    court.run(3, 81, claim=5, deadline_ms=1_000)
    assert court.look(999) == NONE
    assert court.look(1) == ("timeout", 81, 5)
    assert not court.post.condemned_at, "its neighbours may end first"
    assert court.look(court.family.cancel_grace_ms) == ("timeout", 81, 5)
    assert court.end() == -9


def test_the_deadline_of_a_job_that_has_ended_judges_nobody(court: Court) -> None:
    court.run(1, 80, deadline_ms=1_000)
    court.slot.lane(1)[CURRENT] = 0
    assert court.look(5_000) == NONE


def test_who_holds_no_jobs_is_not_judged_by_deadlines(court: Court) -> None:
    court.run(1, 80, deadline_ms=1_000)
    court.slot[STATE] = IDLE
    assert court.look(5_000) == NONE


def test_a_cancel_that_a_job_does_not_react_to_names_that_job(court: Court) -> None:
    grace_ms = court.family.cancel_grace_ms
    words = court.slot.lane(2)
    words[CANCEL_JOB], words[CANCEL_CLAIM] = 72, 1  # of an earlier claim
    assert court.look() == NONE
    assert court.look(grace_ms + 1) == NONE
    words[CANCEL_CLAIM] = 2
    assert court.look() == NONE
    assert court.look(grace_ms) == NONE
    assert court.look(1) == ("cancel", 72, 2)


def test_the_grace_of_a_cancel_begins_anew_with_each_job(court: Court) -> None:
    grace_ms = court.family.cancel_grace_ms
    for lane in (0, 1):
        words = court.slot.lane(lane)
        words[CANCEL_JOB], words[CANCEL_CLAIM] = 70 + lane, 2
        assert court.look(grace_ms // 2) == NONE
    court.slot.lane(0)[CURRENT] = 0  # it has ended
    assert court.look(grace_ms // 2 + 1) == NONE
    assert court.look(grace_ms // 2) == ("cancel", 71, 2)


@pytest.mark.parametrize(
    ("conductor_ms", "loop_ms", "still"),
    [
        (200, None, 0),
        (200, 200, 0),
        (1_000, None, STOOD_STILL),
        (200, 1_000, LOOP_STOOD_STILL),
        (1_000, 1_000, STOOD_STILL),
    ],
)
def test_a_kill_tells_whether_the_process_had_moved_in_the_last_second(
    court: Court, conductor_ms: int, loop_ms: int | None, still: int
) -> None:
    now = court.clock.monotonic_ns()
    court.slot[BEAT] = now - conductor_ms * 1_000_000
    court.slot[LOOP_BEAT] = 0 if loop_ms is None else now - loop_ms * 1_000_000
    court.judge.condemn(court.post, "timeout", 70, 2)
    assert court.slot[VERDICT] == VERDICT_CODES["timeout"] | still


def test_a_memory_limit_names_the_job_that_has_it(court: Court) -> None:
    court.slot.lane(3)[MEMORY] = 1 << 40
    assert court.look() == NONE
    court.slot.lane(2)[MEMORY] = 1
    assert court.look(MEMORY_EVERY_NS // 1_000_000) == ("memory", 72, 2)


def test_what_a_clerk_of_its_worker_holds_is_no_jobs_memory(court: Court) -> None:
    court.slot.lane(2)[MEMORY] = 1
    court.slot[CLERK] = court.child.pid
    assert court.look() == NONE
    court.slot[CLERK] = 0
    assert court.look(MEMORY_EVERY_NS // 1_000_000) == ("memory", 72, 2)


@pytest.mark.parametrize("busy", [True, False])
def test_a_turn_that_does_not_move_is_judged_and_later_where_jobs_run_beside_it(
    court: Court, busy: bool
) -> None:
    if not busy:
        for words in court.slot.lanes():
            words[CURRENT] = 0
    limit = STUCK_BESIDE_NS if busy else STUCK_NS
    court.slot[TURN] = court.clock.monotonic_ns()
    assert court.look(limit // 1_000_000) == NONE
    court.slot[TURN] += SECOND
    assert court.look(1_000) == NONE
    assert court.look(1) == ("stuck", 0, 0)


@contextmanager
def beside(act: Callable[[], None]) -> Iterator[None]:
    """A process that does this again and again meanwhile."""
    worker = os.fork()
    if worker == 0:
        try:
            while True:
                act()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_turn_that_ends_while_it_is_judged_is_no_stuck_one(court: Court) -> None:
    for words in court.slot.lanes():
        words[CURRENT] = 0

    def turn() -> None:
        court.slot[TURN] = court.clock.monotonic_ns()
        court.slot[TURN] = 0

    with beside(turn):
        assert {court.look() for _ in range(20_000)} == {NONE}


def test_a_job_without_a_limit_is_not_held_to_that_of_the_one_before_it(court: Court) -> None:
    words = court.slot.lane(0)

    def run_two() -> None:
        for job, limit in ((70, 1 << 50), (71, 0)):
            words[MEMORY] = limit
            words[CURRENT] = job
            words[CURRENT] = 0

    with beside(run_two):
        assert {court.look(MEMORY_EVERY_NS // 1_000_000) for _ in range(20_000)} == {NONE}
