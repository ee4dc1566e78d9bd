"""How many jobs begin and end in a second, by what the family tells of its workers again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["Pace"]

OVER_S = 5.0
"""The last seconds that are looked at: the status is written once a second while jobs run."""


class _Seen(NamedTuple):
    at: float
    started: dict[tuple[Any, Any], int]
    """By slot and pid: a worker that is replaced begins at 0."""
    running: int


class Pace:
    """Rates over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()

    def note(self, status: Mapping[str, Any] | None) -> None:
        """Another status; the same one again, or none, changes nothing."""
        try:
            at = datetime.fromisoformat(str((status or {}).get("written_at"))).timestamp()
        except ValueError:
            return
        if self._seen and at == self._seen[-1].at:
            return
        if self._seen and at < self._seen[-1].at:
            self._seen.clear()  # the clock was set back, or it is another family
        workers = [each for each in (status or {}).get("workers") or [] if isinstance(each, dict)]
        started = {
            (each.get("slot"), each.get("pid")): each["started"]
            for each in workers
            if isinstance(each.get("started"), int)
        }
        self._seen.append(_Seen(at, started, sum(map(jobs_running, workers))))
        while len(self._seen) > 2 and at - self._seen[1].at >= OVER_S:
            self._seen.popleft()

    def rates(self) -> tuple[float, float] | None:
        """Jobs begun and ended in a second; None before there is anything to compare."""
        if len(self._seen) < 2:
            return None
        first, last = self._seen[0], self._seen[-1]
        begun = sum(_begun(before, after) for before, after in pairwise(self._seen))
        seconds = max(last.at - first.at, 0.001)
        return begun / seconds, max(0, begun + first.running - last.running) / seconds


def _begun(before: _Seen, after: _Seen) -> int:
    return sum(max(0, number - before.started.get(who, 0)) for who, number in after.started.items())


def jobs_running(worker: Mapping[str, Any]) -> int:
    """How many jobs a worker has begun and not ended, as the status tells it."""
    told = worker.get("running")
    return told if isinstance(told, int) else int(worker.get("job") is not None)
