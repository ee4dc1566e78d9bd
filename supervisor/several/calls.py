"""`def` tasks of a worker with several lanes: each lane in a thread, one job after the other."""

from __future__ import annotations

import threading
from types import CoroutineType

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Outcome
from jobvisor.supervisor.several.backlog import Claim
from jobvisor.supervisor.several.coroutines import Coroutines, JobRun
from jobvisor.supervisor.several.lane import LaneOfSeveral
from jobvisor.supervisor.several.lanes import Given
from jobvisor.supervisor.several.shared import Shared
from jobvisor.supervisor.several.threads import Threads


class Calls:
    """What the threads do."""

    def __init__(self, shared: Shared, coroutines: Coroutines) -> None:
        self._lanes = shared.lanes
        self._backlog = shared.backlog
        self._outcomes = shared.outcomes
        self._bell = shared.bell
        self._execution = shared.execution
        self._broken = shared.broken
        self._coroutines = coroutines
        self.threads = Threads[Given](self._serve)

    def _serve(self, given: Given) -> None:
        lane, _ = given
        try:
            lane.own(serve)(self, given)
        except BaseException as error:  # noqa: BLE001 -- the border of a thread: the conductor ends the process
            self._broken(error)

    def go_through(self, given: Given) -> None:
        """A lane's jobs, until it is free or goes on elsewhere."""
        lane, waiting = given
        while True:
            job, claim, is_coroutine = waiting
            if is_coroutine:
                self._coroutines.give([(lane, waiting)])
                return
            if not self._run(lane, job, claim):
                return
            if self.threads.are_short:  # this one is wanted by what waits for a thread
                self._lanes.release(lane)
                return
            following = self._lanes.next(lane)
            if self._bell.for_outcome:
                self._bell.ring()
            if following is None:
                return
            waiting = following

    def _run(self, lane: LaneOfSeveral, job: Claimed, claim: Claim) -> bool:
        """Run one job; False where it goes on in the loop, because its function gave a coroutine."""
        if not lane.start(job, claim.number):
            self._backlog.withdrew(job, claim)
            return True
        lane.measure()
        execution = self._execution
        context = execution.context.copy()
        waited_ns = lane.began_ns - claim.at_ns
        begun = context.run(execution.begin, job, lane.ends_ns, waited_ns, lane)
        if isinstance(begun, Outcome):
            outcome = begun
        else:
            task, function, args, kwargs = begun
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 -- the border of an attempt: nothing a task raises passes
                execution.leave_if_copy(1)
                outcome = execution.raised(task, job, error)
            else:
                execution.leave_if_copy(0)
                if isinstance(value, CoroutineType):
                    self._coroutines.take_over(JobRun(lane, job, claim, value), task, context)
                    return False
                outcome = execution.returned(value)
        self._end(lane, job, outcome)
        return True

    def _end(self, lane: LaneOfSeveral, job: Claimed, outcome: Outcome) -> None:
        entry = lane.end(job, outcome)
        if entry is not None:
            settled = threading.Event()
            self._outcomes.keep(entry, settled.set)
            settled.wait()
        lane.leave()


def serve(calls: Calls, given: Given) -> None:
    """The outermost function of a lane in a thread."""
    calls.go_through(given)
