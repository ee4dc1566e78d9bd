"""The jobs of one claim: run one after the other, until the rest has to be given back."""

from __future__ import annotations

from jobvisor.jobs.events import Events
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.board import AHEAD
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.lane import Lane
from jobvisor.supervisor.running.pace import OVERRUN_NS, Pace
from jobvisor.supervisor.running.turns import Turns


class Batch:
    """What one worker does with what it has claimed."""

    def __init__(
        self,
        role: Role,
        store: WorkerStore,
        events: Events,
        lane: Lane,
        clean: Cleanliness,
        *,
        pace: Pace,
        fitness: Fitness,
        turns: Turns,
    ) -> None:
        self._slot = role.slot
        self._clock = role.clock
        self._store = store
        self._events = events
        self._lane = lane
        self._clean = clean
        self._pace = pace
        self._fitness = fitness
        self._inspection = fitness.inspection
        self._turns = turns
        self._max_jobs = role.seat.config.workers[role.seat.pool].max_jobs

    def run(self, jobs: list[Claimed]) -> None:
        """One after the other, until all have run or the rest is given back."""
        self._store.step_aside()
        self._events.tell()
        self._clean.hold(self._store.descriptors())
        self._slot[AHEAD] = len(jobs) - 1
        self._turns.wake_watchers()
        began = self._clock.monotonic_ns()
        self._pace.began(began)
        done = 0
        for job in jobs:
            if not self._start(job):
                break
            done += 1
            # No job of it need be long for a batch to keep others waiting: it was claimed for the pace
            # of those before it.
            if self._fitness.reason is not None or self._lane.ended_ns - began > OVERRUN_NS:
                break
        if done:
            now = self._clock.monotonic_ns()
            self._pace.ended(now, now - began, done)
        if done < len(jobs):
            self._turns.unsure = True  # the rest of the claim is released by the next turn

    def _start(self, job: Claimed) -> bool:
        """Run one job, or withdraw from the rest of the claim (False)."""
        ledger = self._turns.ledger
        if ledger is not None and not ledger.has_room() and not self._turns.settle_now():
            return False
        took = self._lane.run(job)
        if took is None:
            return False
        if self._max_jobs and (started := self._slot.started) >= self._max_jobs:
            self._fitness.leave("recycled", reason=f"it has run {started} jobs")
        if self._inspection.is_due(job.task, took):
            self._fitness.look_over(job)
        return True
