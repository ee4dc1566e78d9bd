"""How one generation of children follows another: who is told to leave, when, and who waits.

The workers of a pool are told when a new one is ready beside them. Whoever runs a job then finishes it,
in its own slot, and its successor starts at once in another. The caretaker, and pools that may not have
more processes for a while, are replaced one after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.log import say
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.board import (
    BOOTING,
    GOING,
    IDLE,
    LEAVE_BY,
    STATE,
    jobs_text,
    why_leaving,
)
from jobvisor.supervisor.config import Config, Workers
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import WORKER


class Succession:
    """Old children, and those that are to follow them."""

    def __init__(
        self, crew: Crew, nursery: Nursery, clock: Clock, *, wanted: Callable[[str], int]
    ) -> None:
        """`wanted` tells how many workers a pool is to have."""
        self._crew = crew
        self._nursery = nursery
        self._clock = clock
        self._wanted = wanted

    def try_out(self, config: Config) -> list[Post]:
        """A first worker for each pool that has room beside it, with a configuration not taken up yet."""
        tried = [pool for pool in config.workers if pool.overlap and self._may_depart(pool)]
        posts = [self._crew.add(WORKER, pool.name) for pool in tried[: self._crew.room]]
        for post in posts:
            post.on_trial = True
        return posts

    def begin(self, config: Config) -> None:
        """Another configuration is taken up: all that are there are old, but for those on trial."""
        self._crew.take_up()
        for post in self._crew:
            post.spawn_at = 0  # what kept dying may do so no longer
        self._leave_pools_that_are_gone(config)  # first of all: nobody can be forked for one

    def give_up_trials(self, reload_timeout_ms: int) -> None:
        """The configuration they were for is not taken up."""
        for post in self._crew:
            if post.on_trial and not post.pid:
                self._crew.remove(post)
            elif post.on_trial:
                post.on_trial = False
                boots = post.slot[STATE] == BOOTING  # perhaps for ever
                self._ask(post, 0 if boots else reload_timeout_ms, departs=True)

    def go_on(self, config: Config) -> None:
        """Tell whoever can be told now."""
        self._follow_those_that_leave_by_themselves(config)
        if not any(map(self._crew.is_old, self._crew.renewed())):
            return
        for pool in config.workers:
            if pool.overlap:
                self._replace_beside(pool, config)
        self._replace_one(config)

    def replace_all(self, stop_timeout_ms: int) -> None:
        """Everybody leaves at once, and another family follows in the same posts."""
        leave_by = self._clock.monotonic_ns() + stop_timeout_ms * 1_000_000
        for post in self._crew.renewed():
            if not post.pid:
                continue
            if not post.leaving:
                self._ask(post, stop_timeout_ms)
            elif not post.leave_by or post.leave_by > leave_by:
                # What it runs may run elsewhere by now.
                self._nursery.ask_to_leave(post, post.leaving, leave_by, departs=post.departs)

    def is_done(self) -> bool:
        """Whether all new ones are ready, and of the old ones only those are there that finish a job."""
        return all(
            bool(post.slot.running()) if post.departs else self._is_new(post)
            for post in self._crew.renewed()
        )

    def _is_new(self, post: Post) -> bool:
        there = post.pid and post.slot[STATE] != BOOTING
        return bool(there) and post.leaving != "reload" and not self._crew.is_old(post)

    # -- beside

    def _replace_beside(self, pool: Workers, config: Config) -> None:
        """The old workers of a pool leave, at most as many at a time as it has workers."""
        staying = self._crew.staying(pool.name)
        old = [post for post in staying if self._crew.is_old(post) and not post.leaving]
        if not old:
            return
        if not any(post.pid and self._is_new(post) for post in staying):
            if all(map(self._crew.is_old, staying)) and self._may_depart(pool) and self._crew.room:
                self._crew.add(WORKER, pool.name)
            return
        # Who leaves at once makes room for others.
        old.sort(key=lambda post: post.slot[STATE] != IDLE)
        succeeded = len(staying) - self._wanted(pool.name)  # or there are to be fewer
        for number, post in enumerate(old):
            if number >= succeeded and not self._may_depart(pool):
                return
            self._ask(post, config.family.reload_timeout_ms, departs=True)

    def _may_depart(self, pool: Workers) -> bool:
        departing = self._crew.departing(pool.name)
        most = max(self._wanted(pool.name), 1)
        return sum(post.leaving != "scale" for post in departing) < most

    def _leave_pools_that_are_gone(self, config: Config) -> None:
        names = {pool.name for pool in config.workers}
        for post in self._crew.workers():
            if post.pool in names or post.departs:
                continue
            if post.pid:
                self._ask(post, config.family.reload_timeout_ms, departs=True)
            else:
                self._crew.remove(post)

    def _follow_those_that_leave_by_themselves(self, config: Config) -> None:
        """A worker of several lanes ends them before it leaves: its successor does not wait for that."""
        pools = {pool.name: pool for pool in config.workers}
        for post in self._crew.workers():
            pool = pools.get(post.pool)
            goes = post.pid and post.slot[GOING] and post.slot.running()
            if pool is None or not goes or post.departs:
                continue
            family = config.family
            if not post.leaving:
                limit_ms = family.reload_timeout_ms if pool.overlap else family.stop_timeout_ms
                post.leaving = why_leaving(post.slot)
                post.leave_by = self._clock.monotonic_ns() + limit_ms * 1_000_000
                post.slot[LEAVE_BY] = post.leave_by
            post.departs = pool.overlap and self._may_depart(pool)

    # -- one after the other

    def _replace_one(self, config: Config) -> None:
        """The next one leaves when all the others are there."""
        beside = {pool.name for pool in config.workers if pool.overlap}
        posts = [
            post
            for post in self._crew.renewed()
            if post.pool not in beside and not post.departs and not post.on_trial
        ]
        if any(
            not post.pid or post.leaving == "reload" or post.slot[STATE] == BOOTING
            for post in posts
        ):
            return
        for post in posts:
            if self._crew.is_old(post) and not post.leaving:
                self._ask(post, config.family.stop_timeout_ms)
                return

    def _ask(self, post: Post, limit_ms: int, *, departs: bool = False) -> None:
        jobs = jobs_text(post.slot)
        if jobs != "none":
            say(
                "leaving_later", role=post.name, pid=post.pid, job=jobs,
                timeout=duration_text(limit_ms),
            )  # fmt: skip
        leave_by = self._clock.monotonic_ns() + limit_ms * 1_000_000
        self._nursery.ask_to_leave(post, "reload", leave_by, departs=departs)
