"""The post of the scheduler: there while there is a schedule, which the caretaker sees in the database.

A family of a database without one has no such process, and pays one question every few seconds.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import DRAINING, SCHEDULED, Board
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import SCHEDULER

LEAVE_NS = 5 * SECOND  # it leaves between two looks


class Timetable:
    """One post, or none."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._clock = clock
        self._is_short = False  # of a slot, and that is said

    def go_on(self, config: Config) -> None:
        """Have a post while there is something to do for it; one that drains makes no new work."""
        wanted = bool(config.schedules or self._board[SCHEDULED]) and not self._board[DRAINING]
        post = next(iter(self._crew.of(SCHEDULER)), None)
        if post is None:
            if wanted and self._crew.room:
                self._crew.add(SCHEDULER)
            elif wanted and not self._is_short:
                say("scheduler_short")
            self._is_short = wanted and not self._crew.of(SCHEDULER)
        elif not wanted and not post.departs:
            self._leave(post, departs=True)

    def follow(self, old: Config, config: Config) -> None:
        """Another configuration is taken up: it is told by whoever comes after this one."""
        if config != old:
            self.begin_anew()

    def begin_anew(self) -> None:
        """Another one comes, which knows what has changed: the configuration, or the id of the family."""
        post = next(iter(self._crew.of(SCHEDULER)), None)
        if post is not None:
            self._leave(post, departs=False)

    def _leave(self, post: Post, *, departs: bool) -> None:
        if post.pid:
            leave_by = self._clock.monotonic_ns() + LEAVE_NS
            self._nursery.ask_to_leave(post, "reload", leave_by, departs=departs)
        elif departs:
            self._crew.remove(post)
