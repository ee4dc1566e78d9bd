"""Where a worker's jobs run, one after the other: publish, look, run, record.

The order of its writes is the promise of the product. A job is published as current, then the lane
looks whether it may start; it runs; its record is written, then the record's tail; then nothing is
current. A kill between any two of these leaves a state from which `settle` finds out what had happened.
"""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import SUCCEEDED, VERB_CODES, Outcome
from jobvisor.jobs.units import DURATION_MAX_MS
from jobvisor.supervisor.autopsy.cost import SHORT_NS, Meter
from jobvisor.supervisor.autopsy.saying import Speaker
from jobvisor.supervisor.board import (
    CANCEL_CLAIM,
    CANCEL_JOB,
    CURRENT,
    CURRENT_CLAIM,
    DEADLINE,
    FOREVER,
    LEASE_UNTIL,
    MEMORY,
    PROGRESS,
    RECALL,
    RUN,
    SINCE,
    STARTED,
    STOP,
    Board,
    Slot,
)
from jobvisor.supervisor.ledger.layout import INLINE
from jobvisor.supervisor.ledger.ledger import Entry, Ledger
from jobvisor.supervisor.ledger.said import Said
from jobvisor.supervisor.ledger.sheet import Sheet


class Lane:
    """One job at a time. It is also the port through which that job's context asks and speaks."""

    execution: Execution
    """Set once, before the first job: it speaks through this lane."""

    def __init__(
        self,
        board: Board,
        slot: Slot,
        clock: Clock,
        *,
        leaving: Callable[[], bool],
        stopping: Callable[[], bool],
        recorded: Callable[[Claimed, Entry, Outcome], None],
        commit: Callable[[Entry], None],
        number: int = 0,
        keeps: frozenset[str] = frozenset(),
    ) -> None:
        """`leaving` is asked before each job, `stopping` by a job; `commit` keeps what no ledger takes.

        `keeps`: with an outcome of these verbs goes what the job has said.
        """
        self.number = number
        self._board = board
        self._slot = slot.view()
        self._words = slot.lane(number)
        self._clock = clock
        self._leaving = leaving
        self._stopping = stopping
        self._recorded = recorded
        self._commit = commit
        self._keeps = keeps
        self._keeps_all = "succeed" in keeps
        self._said = Said.of_nobody()
        self._meter = Meter(clock, self._words)
        self._ledger: Ledger | None = None
        self._sheet: Sheet | None = None
        self.claim = 0
        self.claimed_ns = 0
        self.ended_ns = 0
        """When the last job ended."""
        self.current: Claimed | None = None
        """The job that runs, or has run and is not recorded yet."""
        self._progress = (0, b"")  # a job, and how far it last said that it had come

    def use(self, ledger: Ledger) -> None:
        """Keep what runs, and how it ends, in this ledger from now on."""
        self._ledger, self._sheet = ledger, ledger.sheets[self.number]
        self._said = Said(self._sheet.words, self._sheet.said)

    def claimed(self, claim: int) -> None:
        """After the COMMIT of a turn: what runs from now on is of this claim."""
        self._words[CURRENT_CLAIM] = claim
        if self._sheet is not None:
            self._sheet.claimed(claim)

    def run(self, job: Claimed) -> int | None:
        """Run one job and record its outcome: how many ns it took, None where it must not start."""
        words, sheet = self._words, self._sheet
        began = self._clock.monotonic_ns()
        ends = began + min(job.timeout_ms, DURATION_MAX_MS) * 1_000_000 if job.timeout_ms else 0
        # Publish, then look. The other order ran 1.8 % of recalled jobs twice (simulated).
        words[MEMORY] = job.memory_bytes
        words[DEADLINE] = ends
        words[SINCE] = began
        if sheet is not None:
            sheet.publish(job.id, ends)
        words[CURRENT] = job.id
        if self._must_withdraw(job):
            self.withdraw()
            return None
        words[STARTED] += 1
        if began >= self._meter.due:
            self._meter.read(began)
        self.current = job
        self._progress = (0, b"")
        outcome = self.execution.run(job, ends, waited_ns=began - self.claimed_ns)
        self.ended_ns = ended = self._clock.monotonic_ns()
        took = ended - began
        self._record(job, outcome, took)
        self.current = None
        words[CURRENT] = 0
        if sheet is not None:
            sheet.withdraw()
        return took

    def _must_withdraw(self, job: Claimed) -> bool:
        board, words = self._board, self._words
        lease = board[LEASE_UNTIL]
        return (
            board[STOP] != RUN
            or self._slot[RECALL] >= self.claim
            or (words[CANCEL_JOB] == job.id and words[CANCEL_CLAIM] == self.claim)
            or (lease != FOREVER and lease < self._clock.boottime_ns())
            or self._leaving()
        )

    def withdraw(self) -> None:
        """Nothing runs."""
        self._words[CURRENT] = 0
        if self._sheet is not None:
            self._sheet.withdraw()

    def outlast(self) -> None:
        """The function has returned: while its outcome waits for the database no limit may end it."""
        self._words[DEADLINE] = self._words[MEMORY] = 0
        if self._sheet is not None:
            self._sheet.outlast()

    def _record(self, job: Claimed, outcome: Outcome, took_ns: int) -> None:
        """Keep an outcome: in the ledger, or in the database where the ledger has no place for it."""
        entry = self._entry(job, outcome, took_ns)
        self._recorded(job, entry, outcome)
        if self._ledger is None or len(entry.body) > INLINE:
            self._commit(entry)
        else:
            self._ledger.record(entry)

    def _entry(self, job: Claimed, outcome: Outcome, took_ns: int) -> Entry:
        cpu_ms = rss_bytes = 0
        if took_ns >= SHORT_NS:
            cpu_ms, rss_bytes = self._meter.cost(took_ns)
        plain = outcome is SUCCEEDED  # the many
        speaker, progress = self._progress  # of a thread that speaks of an earlier job, perhaps
        # The same as `Entry(...)` in half of its time, for each job.
        return tuple.__new__(Entry, (
            self.claim,
            job.id,
            job.attempt,
            VERB_CODES[outcome.verb],
            self._clock.boottime_ns(),
            took_ns // 1_000_000,
            outcome.delay_ms,
            b"" if plain else outcome.body(),
            progress if speaker == job.id else b"",
            cpu_ms,
            rss_bytes,
            b"" if plain and not self._keeps_all else self._kept(job, outcome),
            took_ns,
        ))  # fmt: skip

    def _kept(self, job: Claimed, outcome: Outcome) -> bytes:
        return self._said.of(job.id, self.claim) if outcome.verb in self._keeps else b""

    def speaker(self) -> Speaker | None:
        """Whose the words are that are said in this process now; None between two jobs."""
        current = self.current
        return None if current is None else (self._said, current.id, self.claim)

    # -- the port of a running task's context

    def progress(self, job: int, text: str, /) -> None:
        """Into the ledger; the caretaker carries it to the row, and the last one goes with the outcome.

        A thread that a job left behind speaks of a job that is not current any more: not heard.
        """
        current = self.current
        if current is None or current.id != job:
            return
        told = text.encode()
        if self._sheet is not None:
            number = self._sheet.progress(job, told)
            if not number:
                return
            self._words[PROGRESS] = number
        self._progress = (job, told)

    def cancelled(self, job: int, /) -> bool:
        """Whether the caretaker brought a cancel for this job, which is the current one."""
        current = self.current
        return (
            current is not None
            and current.id == job
            and self._words[CANCEL_JOB] == job
            and self._words[CANCEL_CLAIM] == self.claim
        )

    def stopping(self) -> bool:
        """Whether this worker is to leave."""
        return self._stopping()
