"""How many workers each pool has: as configured at first, then as it was asked for."""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import Board
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.crew import Crew
from jobvisor.supervisor.nursery import Nursery
from jobvisor.supervisor.roster import CARETAKER, WORKER


class Scale:
    """The posts of a family, made and given up."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board, clock: Clock) -> None:
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._clock = clock
        self._published = 0  # pools whose number stands on the board
        #: Workers of a pool that wait for the places of those that leave.
        self._owed: dict[int, int] = {}

    def furnish(self, config: Config) -> None:
        """A post for each child of a configuration, before the first fork."""
        self._crew.add(CARETAKER)
        for index, pool in enumerate(config.workers):
            for _ in range(pool.processes):
                self._crew.add(WORKER, index)
        self._publish()

    def follow(self, config: Config) -> None:
        """As many workers as another configuration wants, in the pools that it has."""
        pools = config.workers
        for index in range(max(len(pools), 1 + max(post.pool for post in self._crew))):
            self._resize(index, pools[index].processes if index < len(pools) else 0, config)
        self._publish()

    def fill_up(self) -> None:
        """Somebody has left: its place may be owed to another pool, which a reload made larger."""
        for pool, owed in self._owed.items():
            added = min(owed, self._crew.room)
            self._owed[pool] -= added
            for _ in range(added):
                self._crew.add(WORKER, pool)

    def set(self, config: Config, pool: int, workers: int) -> str:
        """So many workers for a pool, and ""; or why it cannot have them, and nothing is changed."""
        refused = self._why_not(config, pool, workers)
        if refused:
            say("scale_refused", error=refused)
        elif workers != self.wanted(pool):
            self._resize(pool, workers, config)
            say("scaled", pool=config.workers[pool].name, count=workers)
            self._publish()
            self._nursery.wake_caretaker()
        return refused

    def wanted(self, pool: int) -> int:
        """How many workers there are to be in a pool."""
        return len(self._crew.staying(pool)) + self._owed.get(pool, 0)

    @property
    def total(self) -> int:
        """How many workers there are to be in all pools."""
        return sum(self._board.scales())

    def _why_not(self, config: Config, pool: int, workers: int) -> str:
        has = self.wanted(pool)
        asked = f"pool {config.workers[pool].name} cannot have {workers} workers"
        if workers < 1:
            return f"{asked}: a pool has at least 1; `jobvisor stop` ends the family"
        if workers <= has:
            return ""
        most = has + PROCESSES_MAX - self.total
        if workers > most:
            return (
                f"{asked}: at most {most} are possible, because all pools together have at most "
                f"{PROCESSES_MAX}; have fewer here or in another pool"
            )
        if workers > has + self._crew.room:
            return (
                f"{asked} now: at most {has + self._crew.room} are possible, because workers that "
                "are leaving still hold their places; ask again when they have left"
            )
        return ""

    def _resize(self, pool: int, wanted: int, config: Config) -> None:
        has = self._crew.staying(pool)
        leave_by = self._clock.monotonic_ns() + config.family.stop_timeout_ms * 1_000_000
        for post in has[wanted:]:
            if post.pid:
                self._nursery.ask_to_leave(post, "scale", leave_by)
            else:
                self._crew.remove(post)
        self._owed[pool] = max(0, wanted - len(has))
        self.fill_up()

    def _publish(self) -> None:
        pools = 1 + max([0, *self._owed, *(post.pool for post in self._crew)])
        for pool in range(max(pools, self._published)):
            self._board.set_scale(pool, self.wanted(pool))
        self._published = pools
