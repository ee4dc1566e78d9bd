"""How many workers each pool has: as configured at first, then as it was asked for."""

from __future__ import annotations

from collections import Counter

from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import IDLE, STATE, Board
from jobvisor.supervisor.config import Config, Workers
from jobvisor.supervisor.crew import Crew, Post
from jobvisor.supervisor.nursery import Nursery
from jobvisor.supervisor.roster import CARETAKER, WORKER


class Scale:
    """The posts of a family, made and given up."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board) -> None:
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._wanted: Counter[str] = Counter()
        self._published = 0  # pools whose number stands on the board

    def furnish(self, config: Config) -> None:
        """A post for each child of a configuration, before the first fork."""
        self._crew.add(CARETAKER)
        self.follow(config)

    def follow(self, config: Config) -> None:
        """As many workers as another configuration wants, in the pools that it has."""
        self._wanted = Counter({pool.name: pool.processes for pool in config.workers})
        self._publish(config)
        self.settle(config)

    def settle(self, config: Config) -> None:
        """Make the posts that there are to be, as far as there are places, and give up the others."""
        has = Counter(
            post.pool
            for post in self._crew
            if post.role.runs_jobs and not post.departs and not post.on_trial
        )
        if has == self._wanted:
            return
        for pool in config.workers:
            if has[pool.name] < self._wanted[pool.name]:
                self._grow(pool)
            elif has[pool.name] > self._wanted[pool.name]:
                self._shrink(pool)

    def set(self, config: Config, pool: Workers, workers: int) -> str:
        """So many workers for a pool, and ""; or why it cannot have them, and nothing is changed."""
        refused = self._why_not(config, pool, workers)
        if refused:
            say("scale_refused", error=refused)
        elif workers != self.wanted(pool.name):
            self._wanted[pool.name] = workers
            say("scaled", pool=pool.name, count=workers)
            self._publish(config)
            self.settle(config)
            self._nursery.wake_caretaker()
        return refused

    def wanted(self, pool: str) -> int:
        """How many workers there are to be in a pool."""
        return self._wanted[pool]

    @property
    def total(self) -> int:
        """How many workers there are to be in all pools."""
        return self._wanted.total()

    def _why_not(self, config: Config, pool: Workers, workers: int) -> str:
        asked = f"pool {pool.name} cannot have {workers} workers"
        if workers < 1:
            return f"{asked}: a pool has at least 1; `jobvisor stop` ends the family"
        others = sum(
            other.places(self._wanted[other.name])
            for other in config.workers
            if other.name != pool.name
        )
        most = (PROCESSES_MAX - others) // pool.places(1)
        if workers <= max(most, self._wanted[pool.name]):
            return ""
        return (
            f"{asked}: at most {most} are possible, because a family has {PROCESSES_MAX} places for "
            "workers, and a pool with overlap needs two for each; have fewer here or in another pool"
        )

    def _grow(self, pool: Workers) -> None:
        """Workers that leave hold their places until they have left."""
        wanted = self._wanted[pool.name]
        staying, departing = self._crew.staying(pool.name), self._crew.departing(pool.name)
        room = min(
            pool.places(wanted) - len(staying) - len(departing),
            PROCESSES_MAX - len(self._crew.workers()),
            self._crew.room,
        )
        for _ in range(min(wanted - len(staying), room)):
            self._crew.add(WORKER, pool.name)

    def _shrink(self, pool: Workers) -> None:
        """Those leave who do nothing, and of them the newest; nobody is interrupted."""
        staying = self._crew.staying(pool.name)
        if pool.overlap and any(map(self._crew.is_old, staying)):
            return  # the old ones are to leave anyway, when the new ones are ready
        staying.sort(key=_does_something, reverse=True)
        for post in staying[self._wanted[pool.name] :]:
            if post.pid:
                self._nursery.ask_to_leave(post, "scale", departs=True)
            else:
                self._crew.remove(post)

    def _publish(self, config: Config) -> None:
        names = [pool.name for pool in config.workers]
        for index in range(max(len(names), self._published)):
            self._board.set_scale(index, self._wanted[names[index]] if index < len(names) else 0)
        self._published = len(names)


def _does_something(post: Post) -> int:
    """0 for a post that nobody holds, 1 for an idle worker, 2 for one that is booting or works."""
    if not post.pid:
        return 0
    return 1 if post.slot[STATE] == IDLE else 2
