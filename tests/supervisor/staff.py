"""A parent whose children do what the test says; nothing is forked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobvisor.supervisor.board import (
    BOOTING,
    BUSY,
    CURRENT,
    IDLE,
    IDLE_SEEN,
    LATENCY_SEEN,
    REACHED,
    SEEN_AT,
    SEEN_BY,
    STATE,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.parent.parent import Parent
from tests.clock import StandingClock

PID = (1 << 22) + 1  # more than Linux has: a signal to it reaches nobody


class Staff:
    """A family of posts on a real board."""

    def __init__(self, folder: Path, *pools: dict[str, Any]) -> None:
        self.folder = folder
        self.clock = StandingClock()
        self.parent = Parent(self.config(*pools), clock=self.clock)
        self.parent.prepare()
        self.crew = self.parent._crew
        self.parent._first_start.ever_ready = self.parent._first_start._ever_reached = True
        self.go_on()

    def config(self, *pools: dict[str, Any]) -> Config:
        return Config.of({"workers": list(pools)}, folder=str(self.folder))

    def round(self) -> None:
        """One round of the parent, without forks."""
        self.parent.proceed()

    def go_on(self) -> None:
        """One round, and whoever is to be forked is there and idle."""
        self.round()
        self.ready(*self.fork())

    def fork(self, *some: Post) -> list[Post]:
        """Whoever is to be forked is there, and boots."""
        posts = [post for post in some or self.crew if not post.pid]
        for post in posts:
            post.slot.clear()
            self.crew.give_lanes(post, 1)
            post.pid, post.generation = PID, self.crew.generation + post.on_trial
        return posts

    def ready(self, *posts: Post) -> None:
        for post in posts:
            if post.slot[STATE] == BOOTING:
                post.slot[STATE], post.slot[REACHED] = IDLE, 1

    def see(self, latency_ms: int, *, idle: int = 0, after_ms: int = 1_000, by: int = 0) -> None:
        """What the caretaker saw of the first pool."""
        self.clock.move(after_ms)
        pool = self.parent._board.pools[0]
        pool[SEEN_BY], pool[LATENCY_SEEN] = by or self.crew.generation, latency_ms
        pool[IDLE_SEEN], pool[SEEN_AT] = idle, self.clock.monotonic_ns()

    def offer(self, *pools: dict[str, Any]) -> None:
        """A reload whose code can be imported."""
        reload = self.parent._reload
        reload.give_up()
        reload._old, reload._next = self.parent._config, self.config(*pools)

    def take_up(self, *pools: dict[str, Any]) -> None:
        """A reload whose first workers are ready at once; nobody is told yet."""
        config = self.config(*pools)
        self.ready(*self.fork(*self.parent._succession.try_out(config)))
        self.parent._take_up(config)

    def work(self, *posts: Post) -> None:
        for post in posts:
            post.slot[STATE], post.slot.lane(0)[CURRENT] = BUSY, 7

    def rest(self, *posts: Post) -> None:
        for post in posts:
            post.slot[STATE], post.slot.lane(0)[CURRENT] = IDLE, 0

    def end(self, *posts: Post) -> None:
        for post in posts:
            self.parent._bury(post, Exit(post.pid, 0))

    def old(self) -> list[Post]:
        return [post for post in self.crew.workers() if self.crew.is_old(post)]

    def told(self) -> list[Post]:
        return [post for post in self.crew.workers() if post.leaving]
