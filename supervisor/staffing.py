"""How many workers a pool should have, by what was seen of it: more where jobs wait, fewer where workers do.

Nothing here has a clock or a process: it is told what was seen, and when.
"""

from __future__ import annotations

from typing import NamedTuple

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.units import duration_text
from jobvisor.jobs.values import Span

# Why a pool is to have as many workers as it is: numbers, for the board.
CONFIGURED, ASKED, WAITED, UNNEEDED = range(4)
WHYS = ("as configured", "as asked for", "jobs waited", "workers were idle")

GAP_NS = (
    10 * SECOND
)  # looks further apart are no watching: the database was away, or the machine slept


class Look(NamedTuple):
    """What was seen of a pool at one moment, with an answer of the database."""

    at: int
    """By CLOCK_MONOTONIC, ns; 0 where nothing was seen yet."""
    latency_ms: int
    """How long the longest waiting of its jobs has been due."""
    idle: int
    """How many of its workers had nothing to do."""


class Staffing:
    """One pool: the least, the most, and how many are wanted between them."""

    def __init__(self, span: Span, latency_ms: int, idle_ms: int) -> None:
        self._span = span
        self._latency_ms = latency_ms
        self._idle_ms = idle_ms
        self.least, self.most = span
        self.wanted = self.least
        self.why = CONFIGURED
        self.why_ms = 0
        """How long jobs waited, or workers were idle."""
        self._last = 0  # when was looked at last
        self._idle_since = 0  # since when some were idle at every look, and how many at the least
        self._idle_least = 0

    def follow(self, span: Span, latency_ms: int, idle_ms: int) -> None:
        """Another configuration: what is wanted stays where it lies in the range."""
        self._span, self._latency_ms, self._idle_ms = span, latency_ms, idle_ms
        self.least, self.most = span
        self._want(min(max(self.wanted, self.least), self.most), CONFIGURED)

    def ask(self, least: int) -> None:
        """A person wants at least so many; where the pool has no range exactly so many."""
        self.least = least
        fixed = self._span.least == self._span.most
        self.most = least if fixed else max(least, self._span.most)
        self._want(min(max(self.wanted, self.least), self.most), ASKED)

    def note(self, look: Look, *, ready: bool) -> bool:
        """Whether this look changes what is wanted; `ready`: all that were added are there and work.

        Where jobs wait though nobody is idle, there are to be at most twice as many; those must be ready
        before there can be more. Where at every look of a while some were idle, as many leave.
        """
        if look.at <= self._last:
            return False
        if look.at - self._last > GAP_NS:
            self._forget_idle()
        self._last = look.at
        before = self.wanted
        if not look.idle:
            self._forget_idle()
            if ready and look.latency_ms > self._latency_ms and self.wanted < self.most:
                self._want(min(2 * self.wanted, self.most), WAITED, look.latency_ms)
        elif not self._idle_since:
            self._idle_since, self._idle_least = look.at, look.idle
        else:
            self._idle_least = min(self._idle_least, look.idle)
            self._leave_idle(look.at)
        return self.wanted != before

    def _leave_idle(self, now: int) -> None:
        idle_ms = (now - self._idle_since) // 1_000_000
        too_many = min(self._idle_least, self.wanted - self.least)
        if idle_ms >= self._idle_ms and too_many > 0:
            self._want(self.wanted - too_many, UNNEEDED, idle_ms)

    def _want(self, workers: int, why: int, ms: int = 0) -> None:
        if workers != self.wanted or why == ASKED:
            self.why, self.why_ms = why, ms
        self.wanted = workers
        self._forget_idle()

    def _forget_idle(self) -> None:
        self._idle_since = 0
        self._idle_least = 0


def why_text(why: int, ms: int) -> str:
    """A reason in words.

    >>> why_text(WAITED, 2_500)
    'jobs waited 2.5s'
    """
    text = WHYS[why] if 0 <= why < len(WHYS) else "?"
    return f"{text} {duration_text(ms)}" if ms else text
