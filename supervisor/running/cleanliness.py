"""What a task must leave as it found it; where it did not, the worker is replaced after its job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from jobvisor.supervisor.signals import HANDLED

_WATCHED = (*HANDLED, signal.SIGALRM, signal.SIGPIPE, signal.SIGVTALRM, signal.SIGPROF)


class Cleanliness:
    """A picture of the process taken at boot, and what differs from it now."""

    def __init__(self, descriptors: Sequence[int], *, shared: bool = False) -> None:
        """`shared` where threads of jobs may run while it is looked at: then nothing is set for it."""
        self._read_umask = _umask_of_status if shared else _umask
        self._descriptors = [(descriptor, _inode(descriptor)) for descriptor in descriptors]
        self._held: list[tuple[int, tuple[int, int] | None]] = []
        self.begin()

    def begin(self) -> None:
        """Take the picture anew: what was changed until now is how it is to be."""
        self._handlers = _handlers()
        self._folder = _folder()
        self._umask = self._read_umask()
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._recursion = sys.getrecursionlimit()

    def stain(self) -> str | None:
        """What a task changed that harms the next job, in a few words; None while all is as it was.

        Lost descriptors are left to `lost_descriptor`, which is asked first. Threads that a library
        leaves behind (a sender of reports, a pool of connections) harm nobody.
        """
        if _handlers() != self._handlers:
            return "its signal handlers were changed"
        if any(signal.getitimer(timer)[0] for timer in _TIMERS):
            return "a timer is set"
        if _folder() != self._folder:
            return f"its working directory is {_folder()}"
        if self._read_umask() != self._umask:
            return "its umask was changed"
        if (sys.stdin, sys.stdout, sys.stderr) != self._streams:
            return "its standard streams were replaced"
        if sys.getrecursionlimit() != self._recursion:
            return "its recursion limit was changed"
        return None

    def accept(self, descriptors: Sequence[int]) -> None:
        """These are ours and other files now: a log that was rotated."""
        kept = [(number, inode) for number, inode in self._descriptors if number not in descriptors]
        self._descriptors = [*kept, *((number, _inode(number)) for number in descriptors)]

    def accept_new(self, descriptors: Sequence[int]) -> None:
        """These are ours from now on."""
        self._descriptors += [(number, _inode(number)) for number in descriptors]

    def hold(self, descriptors: Sequence[int]) -> None:
        """These are ours too until the next `hold`: a connection, which may be another one later."""
        self._held = [(descriptor, _inode(descriptor)) for descriptor in descriptors]

    def lost_descriptor(self) -> str | None:
        """A descriptor of ours that is closed or now another file's.

        Asked before every turn and before each look: a statement, a line of the log or a byte for a
        sibling must never go into a user's file.
        """
        for descriptor, inode in (*self._descriptors, *self._held):
            if _inode(descriptor) != inode:
                return f"its descriptor {descriptor} was closed"
        return None

    def still_has(self, descriptors: Sequence[int]) -> bool:
        """Whether these of ours are what they were."""
        ours = dict(self._descriptors)
        return all(number in ours and _inode(number) == ours[number] for number in descriptors)


_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def _inode(descriptor: int) -> tuple[int, int] | None:
    try:
        told = os.fstat(descriptor)
    except OSError:
        return None
    return told.st_dev, told.st_ino


def _handlers() -> list[object]:
    return [signal.getsignal(number) for number in _WATCHED]


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "gone"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _umask_of_status() -> int:
    """As the system tells it: to set it for a moment would be seen by whoever makes a file just then."""
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return -1  # an older kernel, or none that tells: it is not looked at


# SQLite's write lock of a database in WAL mode: this byte of its -shm file (sqlite.org/walformat).
_WRITE_LOCK = 120


def locks_database(path: str) -> bool:
    """Whether this very process holds the write lock of a database: a task left a transaction open.

    Asked of the kernel. To open the -shm file for the question would drop every lock on it.
    """
    try:
        inode = os.stat(f"{path}-shm").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            return any(_is_write_lock(line.split(), inode) for line in file)
    except (OSError, ValueError):
        return False


def _is_write_lock(fields: list[str], inode: int) -> bool:
    # 1: POSIX  ADVISORY  WRITE 4711 fd:01:123456 120 120
    if len(fields) < 8 or fields[1] != "POSIX" or fields[3] != "WRITE":
        return False
    pid, place, first, last = int(fields[4]), fields[5], int(fields[6]), fields[7]
    covers = first <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK)
    return pid == os.getpid() and int(place.rsplit(":", 1)[1]) == inode and covers
