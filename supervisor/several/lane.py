"""One of several lanes of a worker: the same steps, each by itself, since between them its job may wait."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.units import DURATION_MAX_MS
from jobvisor.supervisor.autopsy.cost import ThreadMeter
from jobvisor.supervisor.board import (
    CURRENT,
    CURRENT_CLAIM,
    DEADLINE,
    MEMORY,
    SINCE,
    STARTED,
    VERDICT,
    Board,
    Slot,
)
from jobvisor.supervisor.ledger.layout import INLINE
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.running.lane import Lane

Function = TypeVar("Function", bound=Callable[..., Any])


class LaneOfSeveral(Lane):
    """A lane in a thread, or on the loop, for one job at a time."""

    def __init__(
        self,
        number: int,
        board: Board,
        slot: Slot,
        clock: Clock,
        *,
        leaving: Callable[[], bool],
        stopping: Callable[[], bool],
        recorded: Callable[[Claimed, Entry, Outcome], None],
        keeps: frozenset[str] = frozenset(),
    ) -> None:
        """`leaving` is asked before each job, `stopping` by a job."""
        super().__init__(
            board, slot, clock, leaving=leaving, stopping=stopping, recorded=recorded,
            commit=_nowhere, number=number, keeps=keeps,
        )  # fmt: skip
        self._meter: ThreadMeter = ThreadMeter(clock, self._words)
        self.began_ns = 0
        """When its job was published."""
        self.ends_ns = 0
        """The deadline of its job, 0 for none."""
        self._own: dict[Callable[..., Any], Callable[..., Any]] = {}

    def own(self, function: Function) -> Function:
        """The same function under this lane's name: the outermost one of whatever runs in the lane.

        A stack tells by it whose it is, also one that a signal handler has written in C.
        """
        found = self._own.get(function)
        if found is None:
            given = cast("FunctionType", function)
            name = f"lane_{self.number}"
            code = given.__code__.replace(co_name=name, co_qualname=name)
            found = self._own[function] = FunctionType(code, given.__globals__, name)
        return cast("Function", found)

    # -- the steps of a job

    def start(self, job: Claimed, claim: int, grace_ns: int = 0) -> bool:
        """Publish a job, then look whether it may begin: False where it must not, and nothing runs.

        Past its deadline it has so much longer before the parent ends it.
        """
        words, sheet = self._words, self._sheet
        self.claim = claim
        self.began_ns = began = self._clock.monotonic_ns()
        ends = began + min(job.timeout_ms, DURATION_MAX_MS) * 1_000_000 if job.timeout_ms else 0
        self.ends_ns = ends
        killed_at = ends + grace_ns if ends else 0
        words[MEMORY] = job.memory_bytes
        words[DEADLINE] = killed_at
        words[SINCE] = began
        words[CURRENT_CLAIM] = claim
        if sheet is not None:
            sheet.claimed(claim)
            sheet.publish(job.id, killed_at)
        words[CURRENT] = job.id
        if self._slot[VERDICT] or self._must_withdraw(job):
            self.withdraw()
            return False
        words[STARTED] += 1
        self._progress = (0, b"")
        self.current = job
        return True

    def measure(self) -> None:
        """Its job is about to run in this thread."""
        if self._meter.is_due(self.began_ns):
            self._meter.read(self.began_ns)

    def measure_nothing(self) -> None:
        """Its job is about to run on the loop, among others."""
        self._meter.leave_thread()

    def prolong(self, grace_ns: int) -> None:
        """Past its deadline the job has so much longer before the parent ends it."""
        if self.ends_ns:
            self._words[DEADLINE] = self.ends_ns + grace_ns
            if self._sheet is not None:
                self._sheet.prolong(self.ends_ns + grace_ns)

    def end(self, job: Claimed, outcome: Outcome) -> Entry | None:
        """Record how the job ended; what is returned found no place and must go to the database first."""
        entry = self._entry(job, outcome, self._clock.monotonic_ns() - self.began_ns)
        self._recorded(job, entry, outcome)
        ledger = self._ledger
        if ledger is not None and len(entry.body) <= INLINE and ledger.record(entry):
            return None
        self.outlast()
        return entry

    def leave(self) -> None:
        """The outcome is kept: nothing runs here any more."""
        self.current = None
        self.withdraw()


def _nowhere(_entry: Entry) -> None:
    """A lane of several brings nothing to the database by itself."""
