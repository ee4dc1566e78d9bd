"""How long a command may run, and what it is asked when that is over, or the job is cancelled."""

from __future__ import annotations

import sys

from jobvisor.jobs.builtin.command import Command
from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.context import Context
from jobvisor.jobs.units import duration_text

LOOK_SECONDS = 0.1  # between two looks whether the job is cancelled
MARGIN_SECONDS = 1.0  # before the job's own timeout: it would end the worker, and what runs beside


class Patience:
    """With one run of a command."""

    def __init__(self, ctx: Context, timeout_ms: int | None, grace_ms: int) -> None:
        self._ctx = ctx
        self._timeout_ms = timeout_ms
        self._grace_ns = grace_ms * 1_000_000
        self._began = now = SYSTEM.monotonic_ns()
        self._ends = now + timeout_ms * 1_000_000 if timeout_ms else None
        self._last = None  # it is killed then, whatever grace it has
        if (left := ctx.remaining) is not None:
            margin = min(MARGIN_SECONDS, left / 10)
            self._last = now + int((left - margin) * SECOND)
        self._asked: int | None = None
        self._killed = False
        self.why = ""
        """Why it was asked to end: cancelled, or timeout in words."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return round((SYSTEM.monotonic_ns() - self._began) / SECOND, 3)

    @property
    def pause_seconds(self) -> float:
        """Until it is to be seen to again, at the latest."""
        asked = None if self._asked is None else self._asked + self._grace_ns
        ends = [end for end in (asked or self._ends, self._last) if end is not None]
        left = min(ends, default=sys.maxsize) - SYSTEM.monotonic_ns()
        return LOOK_SECONDS if self._killed else min(LOOK_SECONDS, max(0.0, left / SECOND))

    def see_to(self, command: Command) -> None:
        """Ask it to end where its time is over, or kill it where it was asked long enough ago."""
        now = SYSTEM.monotonic_ns()
        if self._asked is None:
            self.why = self._reason(now)
            if self.why:
                self._asked = now
                command.ask_to_end()
        if not self._killed and self._is_over(now):
            self._killed = True
            command.kill()

    def _is_over(self, now: int) -> bool:
        if self._last is not None and now >= self._last:
            return True
        return self._asked is not None and now >= self._asked + self._grace_ns

    def _reason(self, now: int) -> str:
        if self._ctx.cancelled:
            return "cancelled"
        if self._ends is not None and now >= self._ends:
            return f"its timeout of {duration_text(self._timeout_ms or 0)} was over"
        if self._last is not None and now >= self._last:
            return "the timeout of the job is over"
        return ""
