"""The two jobs that every queue runs here: one that does nothing, one that says when it began."""

from __future__ import annotations

import os
import struct
import time

PIPE_VARIABLE = "JOBS_PIPE"  # none of our settings: other queues read it too
_MOMENT = struct.Struct("q")


def noop() -> None:
    """Nothing at all."""


def stamp() -> None:
    """Write the monotonic nanoseconds of this moment into the pipe."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    descriptor = os.open(os.environ[PIPE_VARIABLE], os.O_WRONLY)
    os.write(descriptor, _MOMENT.pack(now))
    os.close(descriptor)


class Pipe:
    """The reader's side, which outlives the jobs that write."""

    def __init__(self, path: str) -> None:
        os.mkfifo(path)
        self.path = path
        # Also open for writing, so that it does not end between two jobs.
        self._descriptor = os.open(path, os.O_RDWR)

    def read(self) -> int:
        """When the next job began; waits for it."""
        found: int = _MOMENT.unpack(os.read(self._descriptor, _MOMENT.size))[0]
        return found

    def close(self) -> None:
        """Close it; the file goes with its folder."""
        os.close(self._descriptor)
