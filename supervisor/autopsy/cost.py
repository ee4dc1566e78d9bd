"""What a run cost: CPU time, and where one job runs at a time and ran long the most memory of its process.

A reading of the CPU clock takes 0.6 us, on a busy machine 2.5 (measured): 2 to 8 % of a job that does
nothing. So there is none after a job of less than a millisecond, and before a job only where the last one
is older than that. What is counted to a job may thus hold a millisecond of those before it.
"""

from __future__ import annotations

import os
import threading

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.supervisor.board import CPU, CURRENT, Slot
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.memory import forget_peak, peak

SHORT_NS = 1_000_000
"""A run that took less cost nothing, in milliseconds."""

LONG_NS = SECOND
"""The memory of a shorter run is not looked at: a look takes 30 microseconds."""

FORGET_NS = SECOND // 10
"""Between two moments at which the peak begins anew: what ran before may be counted for so long."""


class Meter:
    """The cost of one run after another."""

    def __init__(self, clock: Clock, words: memoryview[int]) -> None:
        """`words` are those of the lane: the parent learns from them what a run had begun with."""
        self._clock = clock
        self._words = words
        self._used = 0
        self._forgotten_at = 0
        self._forgets = True
        self.due = 0
        """From this moment on the next run begins with a reading."""

    def read(self, now: int) -> None:
        """Before a run."""
        self._used = self._words[CPU] = self._clock.process_ns()
        self.due = now + SHORT_NS
        if self._forgets and now - self._forgotten_at > FORGET_NS:
            self._forget(now)

    def cost(self, took_ns: int) -> tuple[int, int]:
        """After a run of SHORT_NS or more: milliseconds of CPU time, and bytes of memory or 0."""
        used = self._clock.process_ns() - self._used
        self.due = 0
        return used // 1_000_000, self._peak() if took_ns >= LONG_NS else 0

    def _peak(self) -> int:
        if not self._forgets:
            return 0
        found = peak(os.getpid())
        self._forget(self._clock.monotonic_ns())
        return found or 0

    def _forget(self, now: int) -> None:
        self._forgotten_at = now
        self._forgets = forget_peak()


class ThreadMeter(Meter):
    """Of a lane beside others: the CPU time of its thread; what runs on the loop is not measured."""

    def __init__(self, clock: Clock, words: memoryview[int]) -> None:
        super().__init__(clock, words)
        self._thread = 0

    def read(self, now: int) -> None:
        """Before a run, in its thread."""
        self._thread = threading.get_ident()
        self._used = self._words[CPU] = self._clock.thread_ns()
        self.due = now + SHORT_NS

    def leave_thread(self) -> None:
        """The next run is on the loop."""
        self._thread = self.due = 0

    def cost(self, took_ns: int) -> tuple[int, int]:
        """After a run of SHORT_NS or more: milliseconds of CPU time, or -1; no memory is known."""
        del took_ns
        self.due = 0
        if self._thread != threading.get_ident():
            return -1, 0
        return (self._clock.thread_ns() - self._used) // 1_000_000, 0

    def is_due(self, now: int) -> bool:
        """Whether a run in this thread begins with a reading."""
        return now >= self.due or self._thread != threading.get_ident()


def cost_at_death(slot: Slot, ended: Exit, peak: int) -> tuple[int, int]:
    """What the run cost that a worker with one lane died in, as a grave has it: milliseconds, bytes.

    `peak` is what its parent saw when it killed it. Of one that died otherwise the system tells the
    most that it held in its whole life.
    """
    lanes = slot.lanes()
    if len(lanes) != 1 or not lanes[0][CURRENT]:
        return -1, 0
    before = lanes[0][CPU]
    known = ended.cpu_ns is not None and before
    cpu_ms = max(0, (ended.cpu_ns or 0) - before) // 1_000_000 if known else -1
    return cpu_ms, peak or ended.rss_bytes
