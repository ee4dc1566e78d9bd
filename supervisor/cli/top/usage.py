"""How much of a CPU each worker uses, by the clocks of their processes, between one look and the next."""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.clock import SYSTEM, Clock, process_ns_of

__all__ = ["Usage"]


class Usage:
    """Shares of one CPU, by pid."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._before: dict[int, tuple[int, int]] = {}
        self.percent: dict[int, int] = {}
        """Of whoever was there at the last two looks; several busy threads make more than 100."""

    def look(self, pids: Iterable[int]) -> None:
        """Read the clocks of these processes, and of no others."""
        seen: dict[int, tuple[int, int]] = {}
        for pid in pids:
            used = process_ns_of(pid)
            if used is not None:
                seen[pid] = self._clock.monotonic_ns(), used
        self.percent = {
            pid: max(0, round(100 * (used - self._before[pid][1]) / (at - self._before[pid][0])))
            for pid, (at, used) in seen.items()
            if pid in self._before and at > self._before[pid][0]
        }
        self._before = seen
