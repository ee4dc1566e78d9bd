"""A parent whose children do what the test says; nothing is forked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobvisor.supervisor.board import (
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
from jobvisor.supervisor.crew import Post
from jobvisor.supervisor.parent import Parent
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
        self.go_on()

    def config(self, *pools: dict[str, Any]) -> Config:
        return Config.of({"workers": list(pools)}, folder=str(self.folder))

    def round(self) -> None:
        """One round of the parent, without forks."""
        self.parent._reload.go_on(self.parent._config)
        self.parent._scale.go_on(self.parent._config)

    def go_on(self) -> None:
        """One round, and whoever is to be forked is there and idle."""
        self.round()
        for post in self.crew:
            if not post.pid:
                self._fill(post, self.crew.generation)

    def see(self, latency_ms: int, *, idle: int = 0, after_ms: int = 1_000, by: int = 0) -> None:
        """What the caretaker saw of the first pool."""
        self.clock.move(after_ms)
        pool = self.parent._board.pools[0]
        pool[SEEN_BY], pool[LATENCY_SEEN] = by or self.crew.generation, latency_ms
        pool[IDLE_SEEN], pool[SEEN_AT] = idle, self.clock.monotonic_ns()

    def _fill(self, post: Post, generation: int) -> None:
        self.crew.give_lanes(post, 1)
        post.pid, post.generation = PID, generation
        post.slot[STATE], post.slot[REACHED] = IDLE, 1

    def take_up(self, *pools: dict[str, Any]) -> None:
        """A reload whose code is good."""
        config = self.config(*pools)
        self.parent._succession.try_out(config)
        for post in self.crew:
            if post.on_trial:
                self._fill(post, self.crew.generation + 1)
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
