"""Whether the kernel's OOM killer was at work when a child died.

A process that it ends has died of SIGKILL like any other; only a counter tells. The nearest one counts
for our own control group; where there is none the machine's does, which strangers move as well. Thus
a death is held against the counter as it was shortly before, not as it was at the last death.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from jobvisor.jobs.clock import SECOND, Clock

READ_EVERY = 5.0  # seconds between two readings
BEFORE_NS = 2 * SECOND  # a reading this old was made before the kernel began to kill for that death
READINGS = 8  # kept: a parent that was stopped for a while tells of deaths late


class OomWatch:
    """Readings of the counter, each with its moment."""

    def __init__(self, clock: Clock, path: str | None = None) -> None:
        """`path` is a file with a line "oom_kill N"; None finds the nearest one."""
        self._clock = clock
        self._path = path or _nearest()
        self._readings: deque[tuple[int, int]] = deque(maxlen=READINGS)
        self.read()

    def read(self) -> None:
        """Take a reading, the ground for the deaths to come; every READ_EVERY seconds."""
        self._readings.append((self._clock.monotonic_ns(), _counter(self._path)))

    def killed_at(self, moment_ns: int) -> bool:
        """Whether the counter has moved since shortly before a death at this moment."""
        before = [count for at, count in self._readings if at <= moment_ns - BEFORE_NS]
        return _counter(self._path) > (before[-1] if before else self._readings[0][1])


def _nearest() -> str:
    """The counter of our own control group (version 2, else 1), or of the machine."""
    groups: dict[str, str] = {}
    with suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _number, names, path = line.rstrip("\n").split(":", 2)
            groups.update(dict.fromkeys(names.split(","), path))
    for path in (
        f"/sys/fs/cgroup{groups.get('', '/')}/memory.events",
        f"/sys/fs/cgroup/memory{groups.get('memory', '/')}/memory.oom_control",
    ):
        if _found(path) is not None:
            return path
    return "/proc/vmstat"


def _counter(path: str) -> int:
    return _found(path) or 0


def _found(path: str) -> int | None:
    """The number in the line "oom_kill N"; None where the file or the line is missing."""
    with suppress(OSError, ValueError), open(path, "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return None
