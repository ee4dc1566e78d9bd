"""What a task must leave as it found it; where it did not, the worker is replaced after its job."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from supervisor.signals import HANDLED

_WATCHED = (*HANDLED, signal.SIGALRM, signal.SIGPIPE, signal.SIGVTALRM, signal.SIGPROF)


class Cleanliness:
    """A picture of the process taken at boot, and what differs from it now."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = [(descriptor, _inode(descriptor)) for descriptor in descriptors]
        self._handlers = _handlers()
        self._folder = _folder()
        self._umask = _umask()
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._recursion = sys.getrecursionlimit()
        # A module may keep threads of its own; what a job adds to them is dirt.
        self._threads = _threads()

    def stain(self) -> str | None:
        """What a task changed, in a few words; None while all is as it was."""
        if _handlers() != self._handlers:
            return "its signal handlers were changed"
        if any(signal.getitimer(timer)[0] for timer in _TIMERS):
            return "a timer is set"
        if _folder() != self._folder:
            return f"its working directory is {_folder()}"
        if _umask() != self._umask:
            return "its umask was changed"
        if (sys.stdin, sys.stdout, sys.stderr) != self._streams:
            return "its standard streams were replaced"
        if sys.getrecursionlimit() != self._recursion:
            return "its recursion limit was changed"
        if _threads() > self._threads:
            return f"{_threads() - self._threads} threads were left behind"
        return self.lost_descriptor()

    def lost_descriptor(self) -> str | None:
        """A descriptor of ours that is closed or now another file's.

        Asked before every turn: a statement must never go into a user's file.
        """
        for descriptor, inode in self._descriptors:
            if _inode(descriptor) != inode:
                return f"its descriptor {descriptor} was closed"
        return None

    def holds(self, path: str) -> bool:
        """Whether this process has a file open more than once: ours, and somebody else's."""
        try:
            told = os.stat(path)
            numbers = [int(name) for name in os.listdir("/dev/fd")]
        except OSError:
            return False
        return [_inode(number) for number in numbers].count((told.st_dev, told.st_ino)) > 1


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


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # native threads too
    except FileNotFoundError:
        return threading.active_count()
