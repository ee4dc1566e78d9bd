"""Suspects that no worker of their pool takes, as all are busy: seen by the caretaker, told to the parent."""

from __future__ import annotations

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.store import Store
from jobvisor.supervisor.board import SUSPECTS_AT, SUSPECTS_BY, SUSPECTS_WAIT_MS, Board
from jobvisor.supervisor.config import Workers

EVERY_SECONDS = 0.5


class Suspicion:
    """A look at the pending suspects of each pool whose workers have several lanes."""

    def __init__(
        self, store: Store, board: Board, clock: Clock, pools: tuple[Workers, ...], generation: int
    ) -> None:
        """`generation` is the configuration's: the parent tells by it which pool a number means."""
        self._store = store
        self._board = board
        self._clock = clock
        self._generation = generation
        self._pools = [(number, pool) for number, pool in enumerate(pools) if pool.concurrency > 1]
        self._since: dict[
            int, dict[int, int]
        ] = {}  # of a pool: each suspect, and when it was first seen

    @property
    def is_of_use(self) -> bool:
        """Whether there is such a pool."""
        return bool(self._pools)

    def look(self) -> float | None:
        """A duty. An absent database ends it, and nothing is told."""
        for number, pool in self._pools:
            waiting = self._store.suspects(pool.queues)
            now, before = self._clock.monotonic_ns(), self._since.get(number, {})
            since = self._since[number] = {job: before.get(job, now) for job in waiting}
            words = self._board.pools[number]
            words[SUSPECTS_BY] = self._generation
            words[SUSPECTS_WAIT_MS] = (now - min(since.values(), default=now)) // 1_000_000
            words[SUSPECTS_AT] = now  # last: who reads another moment reads again
        return None
