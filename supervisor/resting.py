"""A worker at rest: it looks at the table without a lock, is woken, and keeps its connection."""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.events import Events
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import Waker, WorkerStore
from jobvisor.supervisor.batch import Batch
from jobvisor.supervisor.board import AHEAD, IDLE, STATE
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.pace import Pace
from jobvisor.supervisor.running.telling import Telling
from jobvisor.supervisor.running.turns import Turns

POLL_UNWOKEN = 0.1  # seconds between two looks where nothing can wake this worker
# Turns that claim nothing of what a look has found: the first are lost races, then it waits, up to a second.
IN_VAIN, IN_VAIN_TOLD = 3, 6
IN_VAIN_FIRST, IN_VAIN_CAP = 0.01, 1.0


class Resting:
    """What one worker does while there is nothing to claim."""

    def __init__(
        self,
        role: Role,
        store: WorkerStore,
        waker: Waker,
        events: Events,
        client: Client,
        *,
        pace: Pace,
        fitness: Fitness,
        turns: Turns,
        batch: Batch,
        telling: Telling,
        declare: Callable[[], None],
    ) -> None:
        """`client` is the one that tasks enqueue with; `declare` tells of schedules what is untold yet."""
        self._role = role
        self._store = store
        self._waker = waker
        self._events = events
        self._client = client
        self._pace = pace
        self._fitness = fitness
        self._turns = turns
        self._batch = batch
        self._telling = telling
        self._declare = declare
        config = role.seat.config
        self._queues = config.workers[role.seat.pool].queues
        self._poll_seconds = config.database.poll_ms / 1000
        self.in_vain = 0
        """Turns without a job right after a look that had found one."""

    @property
    def is_hindered(self) -> bool:
        """Whether what cannot be claimed may stand in front of what can."""
        return self.in_vain >= IN_VAIN

    def rest(self) -> None:
        """Nothing to claim: look without a lock until there is, keeping the connection.

        The order is watch, drain, look, drain, sleep: what comes before the look is seen by it, what
        comes during it is drained after it, what comes later ends the sleep.
        """
        role = self._role
        if self._fitness.inspection.is_behind():
            self._fitness.look_over()
            if self._fitness.reason is not None:
                return
        if self._events.has_waiting():
            self._store.step_aside()
            self._events.tell()
        role.slot[STATE] = IDLE
        role.slot[AHEAD] = 0
        self._pace.rested()
        if not self._store.one_machine:
            self._client.close()  # the connection that tasks enqueue with; a server has not many
        self._wait_in_vain()
        now = look_at = role.clock.monotonic_ns()
        # What runs in our name and is not held is asked about with the first look and each that nobody
        # woke us for; one that was woken has a job to bring to its start.
        asks = role.seat.owner
        while not role.leaving():
            role.beat()
            try:
                hint = self._waker.drain()
                if self._waker.heard:
                    if self._turn_when_woken():
                        return
                    hint = self._waker.drain()  # when to look once more
                if hint is not None:
                    look_at = min(look_at, now + int(hint * SECOND))
                if now >= look_at:
                    found, due_ms, owned = self._store.look(self._queues, asks)
                    asks = 0
                    self._turns.unsure = self._turns.unsure or owned
                    if found or self._turns.unsure:
                        self.in_vain += 1  # unless the turn that follows claims
                        break
                    self.in_vain = 0
                    wait = self._poll_seconds if due_ms is None else due_ms / 1000
                    # After the look: it may have been the one that found out who can wake it.
                    if self._waker.fileno() is None:
                        wait = min(wait, POLL_UNWOKEN)
                    now = role.clock.monotonic_ns()
                    look_at = now + int(min(self._poll_seconds, wait) * SECOND)
                    continue  # what was told during the look is drained before the sleep
            except StoreError as error:
                self._turns.wait_for_database(error)
                return
            role.watch(self._waker.fileno())
            role.sleep((look_at - now) / SECOND)
            now = role.clock.monotonic_ns()
            if now >= look_at:
                asks = role.seat.owner
                self._telling.tell_if_due()
                self._declare()

    def wait_for_key(self) -> None:
        """What there is was put back, for another worker holds its key: a moment, and no claim in vain."""
        self.in_vain = 0
        self._role.pause(self._turns.reach.wait)

    def _turn_when_woken(self) -> bool:
        """Claim without a look, and run; whether there may be more to claim."""
        if self._turns.lacks_lease():
            return False
        self._fitness.trust_descriptors()
        jobs = self._turns.take(self._pace.batch, woken=True)
        if not jobs:
            return self._turns.reach.goes_on or self._turns.reach.is_held_up
        self.in_vain = 0
        self._batch.run(jobs)
        return True

    def _wait_in_vain(self) -> None:
        """Rows that can be seen and not be claimed: others were quicker, or a trigger skips the change."""
        times = self.in_vain - IN_VAIN
        if times < 0:
            return
        if times == IN_VAIN_TOLD:
            say("claims_in_vain", count=self.in_vain)
        self._role.pause(min(IN_VAIN_FIRST * 2 ** min(times, 20), IN_VAIN_CAP))
