"""What the pools with a range have to do: seen by the caretaker, and told to the parent on the board."""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.store import Store
from jobvisor.supervisor.board import (
    IDLE,
    IDLE_SEEN,
    LATENCY_SEEN,
    ROLE,
    SEEN_AT,
    SEEN_BY,
    STATE,
    Board,
    why_leaving,
)
from jobvisor.supervisor.config import Workers
from jobvisor.supervisor.roster import WORKER

EVERY_SECONDS, SELDOM_SECONDS = 0.25, 5.0
COST = 50  # a look that takes long is taken seldom: 2 % of the time goes into looks


class Demand:
    """A look at each pool that may have more or fewer workers, a few times a second."""

    def __init__(
        self, store: Store, board: Board, clock: Clock, pools: tuple[Workers, ...], generation: int
    ) -> None:
        """`generation` is the configuration's: the parent tells by it which pool a number means."""
        self._store = store
        self._board = board
        self._clock = clock
        self._generation = generation
        self._pools = [
            (number, pool)
            for number, pool in enumerate(pools)
            if pool.processes.least < pool.processes.most
        ]

    @property
    def is_of_use(self) -> bool:
        """Whether there is a pool with a range."""
        return bool(self._pools)

    def look(self) -> float | None:
        """A duty: seconds until the next look. An absent database ends it, and nothing is told."""
        began = self._clock.monotonic_ns()
        for number, pool in self._pools:
            latency = self._store.latency(pool.queues)
            words = self._board.pools[number]
            words[SEEN_BY] = self._generation
            words[LATENCY_SEEN], words[IDLE_SEEN] = latency, self._idle(pool.name)
            words[SEEN_AT] = (
                self._clock.monotonic_ns()
            )  # last: who reads another moment reads again
        took = (self._clock.monotonic_ns() - began) / 1e9
        return min(max(EVERY_SECONDS, COST * took), SELDOM_SECONDS)

    def _idle(self, pool: str) -> int:
        return sum(
            slot[STATE] == IDLE
            and slot[ROLE] == WORKER.number
            and self._board.pool_name(slot.index) == pool
            and not why_leaving(slot)
            for slot in self._board.workers()
        )
