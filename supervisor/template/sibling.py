"""A child for our parent: forked by a middle process that leaves at once, so that it is no child of ours.

The parent must be a subreaper: an orphan becomes its child. That has happened when the middle process has
been reaped, and not before, so only then the pid may be told to the parent.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from jobvisor.supervisor.child import live

_PID = struct.Struct("q")
LOOK_MS = 1000  # between two looks whether anybody still waits for the middle process


def fork_sibling(run: Callable[[], int], closing: Sequence[int], wanted: Callable[[], bool]) -> int:
    """The pid of a child of our parent that calls `run` and leaves with its result.

    It is the leader of a group of its own, and unblocks TERM when it has a handler for it. While the
    middle process hangs (in a handler of `os.register_at_fork`, say) `wanted` is asked once a second
    whether to wait on; else it is killed.

    Raises OSError where the system has no process or descriptor to give, or the middle process was killed.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # All signals are blocked until the child has its own handlers, or the default ones.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            middle = os.fork()
            if middle == 0:
                _pass_on(run, [*closing, read], mask, write)
        finally:
            os.close(write)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _await(read, middle, wanted)
        os.waitpid(middle, 0)
        # First it is reaped, then read what it wrote: its end is the end of all that it could write.
        return _told(read)
    finally:
        os.close(read)


def _pass_on(
    run: Callable[[], int], closing: Sequence[int], mask: set[int], write: int
) -> NoReturn:
    """The middle process: fork, tell of it, leave."""
    told = 0
    try:
        told = os.fork()
        if told == 0:
            # TERM too: the parent may ask it to leave before it has a handler for that.
            live(run, [*closing, write], {*mask, signal.SIGTERM}, new_streams=False)
        # In both processes, because either may be the first to need it.
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(told, told)
    except OSError as error:
        told = -(error.errno or 1)
    finally:
        with suppress(OSError):  # who forked it is dead
            os.write(write, _PID.pack(told))
        os._exit(0)


def _await(read: int, middle: int, wanted: Callable[[], bool]) -> None:
    """Until the middle process has written or ended, or is wanted no longer."""
    poll = select.poll()
    poll.register(read, select.POLLIN)
    # Where it was killed the pipe ends with it, unless its child hangs and has not closed the other end.
    while not poll.poll(LOOK_MS):
        if os.waitid(os.P_PID, middle, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        if not wanted():
            os.kill(middle, signal.SIGKILL)
            return


def _told(read: int) -> int:
    try:
        data = os.read(read, _PID.size)
    except BlockingIOError:  # its child has the other end, and it ended before it had written
        data = b""
    if len(data) < _PID.size:
        raise ChildProcessError(errno.ECHILD, "the middle process was killed")
    pid: int = _PID.unpack(data)[0]
    if pid <= 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid
