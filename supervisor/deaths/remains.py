"""What the tasks of a dead worker left running: proved to be theirs, then ended.

A parent does so before it gives a worker's pid back to the system. Where parent and worker died together
somebody else finds the worker dead, perhaps days later, and its number may be a stranger's group by then.
So it is not the number that proves it: a process is ended only if it is in that group, began after the
worker did, and bears the random number of that life, in the environment that it was started with, or,
where it was forked and never started a program, in the ledger that it still has mapped. What has left the
group (`setsid`, a daemon) was meant to live on, and is left alone as the parent leaves it; but for what a
command of the task `shell` has left, whose keeper was killed as well: that bears a second number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.identity import Identity, start_ticks
from jobvisor.jobs.log import say

MARK = "_JOBVISOR_LIFE"
"""The variable that every program started by a task inherits: the owner number of its worker."""

PASSES = 5  # looks for what was forked meanwhile
PAUSE_SECONDS = 0.002  # for the killed to be gone
FILE_BYTES_MAX = 1 << 20  # of an environment or a list of mappings


def end_remains(identity: Identity, owner: int, ledger: str | None, clock: Clock) -> int:
    """End what a dead worker of this boot and pid namespace left in its group; how many.

    `ledger` is the path of its file, if it had one.
    """
    if not hasattr(os, "pidfd_open") or identity.alive() is not False:
        return 0
    began = identity.start_ticks

    def end() -> set[int]:
        killed = {pid for pid in _members(identity.pid) if _end(pid, began, owner, ledger)}
        return killed | {pid for pid in _of_commands(owner) if _end(pid, began, owner, None)}

    return _ended(identity.pid, end, clock)


def end_commands(pid: int, owner: int, clock: Clock) -> int:
    """End what commands of the task `shell` left whose worker's death the parent saw; how many.

    Their keepers do so, unless somebody killed these with the worker.
    """
    if not hasattr(os, "pidfd_open"):
        return 0
    return _ended(
        pid, lambda: {each for each in _of_commands(owner) if _end(each, 0, owner, None)}, clock
    )


def _ended(worker: int, end: Callable[[], set[int]], clock: Clock) -> int:
    ended: set[int] = set()  # one that takes its time to go is signalled again, and counts once
    for _ in range(PASSES):
        killed = end()
        if not killed:
            break
        ended |= killed
        clock.sleep(PAUSE_SECONDS)
    if ended:
        say("remains_ended", pid=worker, count=len(ended))
    return len(ended)


def _members(group: int) -> list[int]:
    """The pids of a process group, as far as they can be seen."""
    found: list[int] = []
    with suppress(OSError):
        for name in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                if name.isdigit() and os.getpgid(int(name)) == group:
                    found.append(int(name))
    return found


def _of_commands(owner: int) -> list[int]:
    """The pids of what was started by commands of that life, in whatever group."""
    # Seldom needed: of a life whose end nobody of its family saw.
    from jobvisor.jobs.builtin.marked import MARK as COMMAND  # noqa: PLC0415
    from jobvisor.jobs.builtin.marked import variables_of  # noqa: PLC0415

    found: list[int] = []
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            variables = variables_of(int(name))
            if f"{MARK}={owner}".encode() in variables and any(
                each.startswith(f"{COMMAND}=".encode()) for each in variables
            ):
                found.append(int(name))
    return found


def _end(pid: int, after: int, owner: int, ledger: str | None) -> bool:
    """Signal this very process if it is of that life, begun `after` its worker: no other with its number."""
    if pid in {os.getpid(), os.getppid()}:
        return False
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # What is read from here on is of the process that the descriptor names, or of one that has
            # its number since it ended; in that case the signal reaches nobody.
            began = start_ticks(pid)
            if began is None or began < after:
                return False
            if _bears_mark(pid, owner) or (ledger is not None and _has_mapped(pid, ledger)):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False


def _bears_mark(pid: int, owner: int) -> bool:
    return f"{MARK}={owner}".encode() in _lines(f"/proc/{pid}/environ", b"\0")


def _has_mapped(pid: int, ledger: str) -> bool:
    path = os.path.realpath(ledger).encode()
    return any(line.endswith(b" " + path) for line in _lines(f"/proc/{pid}/maps", b"\n"))


def _lines(path: str, separator: bytes) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from file.read(FILE_BYTES_MAX).split(separator)
