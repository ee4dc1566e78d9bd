"""Workers that are added to a pool for its suspects, where all others are busy; each leaves if none waits."""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.board import (
    BUSY,
    STATE,
    SUSPECTS_AT,
    SUSPECTS_BY,
    SUSPECTS_WAIT_MS,
    Board,
)
from jobvisor.supervisor.config import Config, Workers
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import QUARANTINE

PATIENCE_MS = 1_000  # for a worker of the pool to be free: then it takes them


class Quarantine:
    """Their posts, which end with their children."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._clock = clock
        self._added: dict[str, int] = {}  # when one was added to a pool last

    def go_on(self, config: Config) -> None:
        """Add where suspects wait, at most one a second; who was forked for an older configuration leaves."""
        names = {pool.name for pool in config.workers}
        for post in self._crew.of(QUARANTINE):
            self._keep_up(post, config, known=post.pool in names)
        for number, pool in enumerate(config.workers):
            waited_ms = self._waited_ms(number, pool)
            if pool.concurrency > 1 and waited_ms >= PATIENCE_MS and self._has_room(pool):
                self._add(pool, waited_ms)

    def _keep_up(self, post: Post, config: Config, *, known: bool) -> None:
        post.departs = True
        if not post.pid:
            if not known:
                self._crew.remove(post)
        elif not post.leaving and (not known or self._crew.is_old(post)):
            limit = config.family.reload_timeout_ms * 1_000_000
            self._nursery.ask_to_leave(
                post, "reload", self._clock.monotonic_ns() + limit, departs=True
            )

    def _waited_ms(self, number: int, pool: Workers) -> int:
        """For how long the caretaker of this configuration has seen a suspect wait, since one was added."""
        words = self._board.pools[number]
        at, by, waited_ms = words[SUSPECTS_AT], words[SUSPECTS_BY], words[SUSPECTS_WAIT_MS]
        fresh = at > self._added.get(pool.name, 0) + SECOND
        return waited_ms if fresh and by == self._crew.generation else 0

    def _has_room(self, pool: Workers) -> bool:
        """Whether one more may be added: those that there are have all that they can run."""
        there = [post for post in self._crew.of(QUARANTINE) if post.pool == pool.name]
        full = all(post.pid and post.slot[STATE] == BUSY for post in there)
        return full and len(there) < pool.processes.most and self._crew.room > 0

    def _add(self, pool: Workers, waited_ms: int) -> None:
        self._added[pool.name] = self._clock.monotonic_ns()
        post = self._crew.add(QUARANTINE, pool.name)
        post.departs = True
        say("quarantined", pool=pool.name, name=post.name, delay=duration_text(waited_ms))
