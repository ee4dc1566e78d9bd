"""How a family ends: everybody finishes, then the rest is killed, and who settles them leaves last."""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    DRAIN,
    GRAVES_SETTLED,
    GRAVES_WRITTEN,
    NOW,
    RUN,
    STOP,
    Board,
)
from jobvisor.supervisor.caretaker.caretaker import FINAL_SECONDS
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.judge import Judge
from jobvisor.supervisor.parent.nursery import Nursery

APART_NS = 5 * SECOND  # for who is not vital: in a stop nothing waits for it any longer
LAST_TRIES = 2  # deaths of one that settles, in a stop, before the rest is left in the files


class Stop:
    """The stage of the family, on the board for all to see: run, drain, now."""

    def __init__(
        self, crew: Crew, nursery: Nursery, judge: Judge, board: Board, clock: Clock
    ) -> None:
        self._crew = crew
        self._nursery = nursery
        self._judge = judge
        self._board = board
        self._clock = clock
        self._stop_by = 0
        self._parted = False  # the last one has left for good
        self.forced = False
        """Whether somebody had to be killed."""

    @property
    def stage(self) -> int:
        """RUN, DRAIN or NOW."""
        return self._board[STOP]

    def begin(self, timeout_ms: int) -> None:
        """Everybody finishes what runs; closing the lifeline wakes whoever waits."""
        if self.stage != RUN:
            return
        self._board[STOP] = DRAIN
        self._stop_by = self._clock.monotonic_ns() + timeout_ms * 1_000_000
        self._nursery.cut_lifeline()
        for post in self._crew.living():
            if not post.role.vital:
                self._nursery.ask_to_leave(post, "stop", self._clock.monotonic_ns() + APART_NS)
        self._nursery.wake_caretaker()
        say("draining", timeout=f"{timeout_ms / 1000:g} s")

    def force(self, reason: str) -> None:
        """Whoever still runs is killed, its job given back."""
        if self.stage != DRAIN:
            return
        self._board[STOP] = NOW
        running = [post for post in self._crew.living() if not post.role.leaves]
        self.forced = self.forced or any(post.role.vital for post in running)
        if running:
            say("killing", count=len(running))
        for post in running:
            self._judge.condemn(post, reason)

    def go_on(self) -> None:
        """At the time limit the rest is killed; who leaves later is told when all before it have left."""
        if self.stage == RUN:
            return
        if self.stage == DRAIN and self._clock.monotonic_ns() > self._stop_by:
            self.force("stop")
        living = self._crew.living()
        first = min((post.role.leaves for post in living), default=0)
        if first:
            for post in living:
                if post.role.leaves == first and post.leaving != "stop":
                    leave_by = self._clock.monotonic_ns() + int((FINAL_SECONDS + 1) * SECOND)
                    self._nursery.ask_to_leave(post, "stop", leave_by)

    def note_death(self, post: Post, ended: Exit) -> bool:
        """Whether this was the end of the last settling: it says so by its exit, or its time is over.

        What it could not reach stays in the files. A death in the middle of it is one like any other.
        """
        last = post.role.kept_while_stopping and post.leaving == "stop"
        if last and (ended.status == 0 or post.killed):
            self._parted = True
            self.forced = self.forced or post.killed
        return last

    def is_over(self, *, hopeless: bool) -> bool:
        """All have left, and who settles them was forked once more where it died before it had."""
        if self.stage == RUN or self._crew.living():
            return False
        unsettled = self._board[GRAVES_WRITTEN] - self._board[GRAVES_SETTLED]
        kept = [post for post in self._crew if post.role.kept_while_stopping]
        given_up = self._parted or any(post.failures >= LAST_TRIES for post in kept)
        # The last grave is its own, and a settled family leaves it alone.
        return unsettled <= 1 or hopeless or given_up
