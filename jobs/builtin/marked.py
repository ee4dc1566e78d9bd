"""Processes that a command has left, known by a variable of their environment, and ended.

The variable is a random number of one run. Needed only where the keeper of a command was killed: else that
ends all of them. A process is signalled through a descriptor of itself, so that none that has its number by
then is hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

MARK = "_JOBVISOR_COMMAND"
"""What every program that a command of the task `shell` starts inherits: the number of its run."""

PASSES = 20  # looks for what was forked meanwhile
ENVIRONMENT_BYTES_MAX = 1 << 20


def end_marked(mark: str) -> int:
    """SIGKILL to each process that bears this mark; how many there were."""
    ended: set[int] = set()
    for _ in range(PASSES):
        found = {pid for pid in _others() if _end(pid, mark)}
        if not found - ended:
            break
        ended |= found
    return len(ended)


def variables_of(pid: int) -> list[bytes]:
    """The environment that a process was started with, as far as it may be read."""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return file.read(ENVIRONMENT_BYTES_MAX).split(b"\0")
    return []


def _others() -> Iterator[int]:
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                yield int(name)


def _end(pid: int, mark: str) -> bool:
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
        try:
            if f"{MARK}={mark}".encode() in variables_of(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False
