"""Errors of the web role in the log, at a bounded rate: each request of an attack could bring one."""

from __future__ import annotations

import logging

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import error_text
from jobvisor.jobs.log import say

__all__ = ["Troubles"]

LINES_MAX = 10
EVERY_NS = 60 * SECOND


class Troubles(logging.Handler):
    """What uvicorn and asyncio log as errors becomes a line of ours; the rest is left out."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.ERROR)
        self._clock = clock
        self._since = clock.monotonic_ns()
        self._said = self._left_out = 0
        self.is_over = False
        """Whether the role leaves: what is cut off now is no trouble."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logger."""
        self.note(record.getMessage(), record.exc_info[1] if record.exc_info else None)

    def note(self, what: str, error: BaseException | None) -> None:
        """Log it, unless there were many in this minute."""
        if self.is_over:
            return
        now = self._clock.monotonic_ns()
        if now - self._since > EVERY_NS:
            if self._left_out:
                seconds = (now - self._since) // SECOND
                say("web_lines_left_out", count=self._left_out, seconds=seconds)
            self._since, self._said, self._left_out = now, 0, 0
        if self._said >= LINES_MAX:
            self._left_out += 1
            return
        self._said += 1
        told = f"{what.strip()}: {error_text(error)}" if error else what.strip()
        say("web_failed", error=told, trace=error)
