"""What the conductor sees to several times a second while lanes are busy, and when none is."""

from __future__ import annotations

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.events import Events
from jobvisor.supervisor.board import CANCEL_JOB
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.telling import Telling
from jobvisor.supervisor.several.calls import Calls
from jobvisor.supervisor.several.coroutines import Coroutines
from jobvisor.supervisor.several.shared import Shared
from jobvisor.supervisor.several.threads import Threads

ROUND_NS = SECOND // 4


class Rounds:
    """Looks at all lanes of one worker."""

    def __init__(
        self,
        role: Role,
        shared: Shared,
        *,
        calls: Calls,
        coroutines: Coroutines,
        events: Events,
        client: Client | None,
        fitness: Fitness,
        telling: Telling,
    ) -> None:
        """`client`: the one that tasks enqueue with, where its connection is let go at a rest."""
        self._role = role
        self._slot = role.slot
        self._lanes = shared.lanes
        self._backlog = shared.backlog
        self._calls = calls
        self._coroutines = coroutines
        self._events = events
        self._client = client
        self._fitness = fitness
        self._telling = telling
        self._max_jobs = role.seat.config.workers[role.seat.pool].max_jobs
        self._tellers = Threads[Events](self._tell)
        self._broken = shared.broken
        self.due_ns = 0
        """When the next round is due."""

    def go_if_due(self, now: int) -> None:
        """Bring cancels to their jobs, see whether the loop goes round and the process may go on."""
        if now < self.due_ns:
            return
        self.due_ns = now + ROUND_NS
        if any(self._slot.column(CANCEL_JOB)):
            for lane, job, claim in self._lanes.asked_to_end():
                self._coroutines.ask_to_end(lane, job, claim)
        if self._calls.threads.are_short:
            self._calls.threads.try_again()
        self._coroutines.note_blocked(now)
        self._fitness.check_descriptors()
        self._fitness.look_at_memory()
        self._look_at_jobs()
        self.tell()

    def tell(self) -> None:
        """Subscribers are a user's code: they are told in a thread of their own."""
        if self._tellers.are_short:
            self._tellers.try_again()
        elif self._events.has_waiting() and self._tellers.is_idle:
            self._tellers.give(self._events)

    def _tell(self, events: Events) -> None:
        try:
            events.tell()
        except BaseException as error:  # noqa: BLE001 -- the border of a thread: the conductor ends the process
            self._broken(error)

    def rest(self) -> None:
        """No lane is busy: what a job may have left can be seen now, and is nobody else's doing."""
        if self._fitness.inspection.is_behind():
            self._fitness.look_over()
        self._look_at_jobs()
        if self._client is not None:
            self._client.close()  # a server has not many connections
        self.tell()
        self._telling.tell_beside_if_due()

    def _look_at_jobs(self) -> None:
        """Leave where no further one may begin: the last ones run on, and a successor is there for others."""
        if self._max_jobs and self._backlog.taken >= self._max_jobs:
            self._fitness.leave("recycled", reason=f"it has begun {self._backlog.taken} jobs")

    def take_back(self) -> None:
        """What waits for a thread that could not be made is given back."""
        for lane, (job, claim, _) in self._calls.threads.take_back():
            self._backlog.withdrew(job, claim)
            self._lanes.release(lane)
