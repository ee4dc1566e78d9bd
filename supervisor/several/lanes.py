"""The lanes of one worker: who is free, and how each takes its next job from the backlog.

A `def` task runs in a thread, an `async def` task on the loop. A lane goes on with whatever is first in the
backlog; where that is of the other kind the lane is handed over. The conductor only fills the backlog.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.registry import Registry
from jobvisor.supervisor.ledger.ledger import Ledger
from jobvisor.supervisor.several.backlog import Backlog, Claim, Waiting
from jobvisor.supervisor.several.bell import Bell
from jobvisor.supervisor.several.lane import LaneOfSeveral

KINDS_MAX = 1000  # names that are remembered; they come from rows, so there may be any number

Given = tuple[LaneOfSeveral, Waiting]
"""A job, and the lane that it begins in."""


class Lanes:
    """As many as the worker has; each is made when it is first used."""

    def __init__(
        self,
        count: int,
        make: Callable[[int], LaneOfSeveral],
        *,
        registry: Registry,
        backlog: Backlog,
        bell: Bell,
    ) -> None:
        self.count = count
        self._make = make
        self._registry = registry
        self._waiting = backlog.waiting
        self._bell = bell
        self._made: dict[int, LaneOfSeveral] = {}
        self._free = deque(range(count - 1, -1, -1))  # taken from the end: few lanes, few threads
        self._kinds: dict[str, bool] = {}
        self._ledger: Ledger | None = None
        self.to_thread: Callable[[Given], None]
        """How a `def` task is begun, from any thread."""
        self.to_loop: Callable[[list[Given]], None]
        """How `async def` tasks are begun, from any thread."""

    def deal(self) -> None:
        """Let free lanes begin what waits."""
        waiting, free = self._waiting, self._free
        coroutines: list[Given] = []
        while waiting:
            try:
                number = free.pop()
            except IndexError:
                break
            try:
                first = waiting.popleft()
            except IndexError:
                free.append(number)  # and look again: what came meanwhile found no free lane
                continue
            if first[2]:
                coroutines.append((self._lane(number), first))
            else:
                self.to_thread((self._lane(number), first))
        if coroutines:
            self.to_loop(coroutines)

    def _lane(self, number: int) -> LaneOfSeveral:
        lane = self._made.get(number)
        if lane is None:
            lane = self._made[number] = self._make(number)
            if self._ledger is not None:
                lane.use(self._ledger)
        return lane

    def next(self, lane: LaneOfSeveral) -> Waiting | None:
        """What a lane does next, once its job has ended; None where it is free from now on."""
        try:
            return self._waiting.popleft()
        except IndexError:
            self.release(lane)
            return None

    def release(self, lane: LaneOfSeveral) -> None:
        """A lane is free."""
        self._free.append(lane.number)
        if self._waiting:  # it came between the two
            self.deal()
        elif self._bell.for_room:
            self._bell.ring()

    def use(self, ledger: Ledger) -> None:
        """Keep what runs, and how it ends, in this ledger from now on."""
        self._ledger = ledger
        for lane in self.made():
            lane.use(ledger)

    def asked_to_end(self) -> list[tuple[LaneOfSeveral, int, int]]:
        """Lanes whose jobs were asked to end, with job and claim."""
        running = ((lane, lane.current) for lane in self.made())
        return [
            (lane, job.id, lane.claim)
            for lane, job in running
            if job is not None and lane.cancelled(job.id)
        ]

    @property
    def current(self) -> Claimed | None:
        """The one job that runs; None where none does, or several."""
        running = [lane.current for lane in self.made() if lane.current is not None]
        return running[0] if len(running) == 1 else None

    def withdraw(self) -> None:
        """Nothing runs, for whoever settles this life."""
        for lane in self.made():
            lane.withdraw()

    @property
    def free(self) -> int:
        """How many have nothing to do."""
        return len(self._free)

    @property
    def busy(self) -> int:
        """How many run a job, or are about to."""
        return self.count - len(self._free)

    def made(self) -> list[LaneOfSeveral]:
        """Those that were ever used."""
        return list(self._made.values())

    def waiting(self, jobs: Iterable[Claimed], claim: Claim) -> list[Waiting]:
        """The jobs of a claim as they stand in the backlog."""
        kinds = self._kinds
        return [
            (job, claim, kinds[job.task] if job.task in kinds else self._kind(job.task))
            for job in jobs
        ]

    def _kind(self, name: str) -> bool:
        """Whether a task is run by the loop. One that returns a coroutine all the same goes there then."""
        task = self._registry.get(name)
        if task is None:
            return False
        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        function = task.function
        called = type(function).__call__  # of an object that is called like a function
        found = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
        self._kinds[name] = found
        return found
