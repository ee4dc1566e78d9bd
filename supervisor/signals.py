"""A signal becomes a noted fact and a wake-up; nothing else happens inside a handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType

#: Every signal a family may handle somewhere; a child begins with the default of each.
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)

#: What the parent passes on to its children. Blocked from the fork until a child has its handlers:
#: the default of both is death, and a child that missed one would log into a file renamed away.
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """The signals one process has been sent and has not looked at yet.

    The wake-up descriptor gets a byte even when the signal arrives between a check and a sleep, so
    no signal waits for the next one. A full pipe loses bytes, not signals: the handler noted them.
    """

    def __init__(self, wanted: Iterable[signal.Signals]) -> None:
        self._noted: list[int] = []
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in wanted}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)

    def fileno(self) -> int:
        """Readable when a signal came; poll it, then `take`."""
        return self._read

    def descriptors(self) -> tuple[int, int]:
        """What a fork must close."""
        return self._read, self._write

    def rearm(self) -> None:
        """Take the wake-up back: an event loop that a task ran with handlers of its own switched it off."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def forget_in_copies(self) -> None:
        """Give copies of this process the defaults: what a task forks is to end where it is terminated.

        multiprocessing does that, at the end of each pool, and waits; it waited for ever.
        """
        masks = threading.local()

        def hold() -> None:
            # Until the copy has its defaults: what it is sent before that would be noted, for nobody.
            masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)

        def release() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

        def forget() -> None:
            self._forget()
            release()

        os.register_at_fork(before=hold, after_in_parent=release, after_in_child=forget)

    def _forget(self) -> None:
        for number in self._before:
            if signal.getsignal(number) == self._note:  # else it is a user's
                signal.signal(number, signal.SIG_DFL)
        woken = signal.set_wakeup_fd(-1)
        if woken not in (-1, self._write):
            signal.set_wakeup_fd(woken)

    def close(self, *, ends_here: bool = False) -> None:
        """Put back what was there before, for a script that made itself a parent for a while.

        Where the process ends here they are ignored instead: a second TERM in its last milliseconds
        must not turn the exit code into a death by signal.
        """
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            kept = signal.SIG_DFL if handler is None else handler
            signal.signal(number, signal.SIG_IGN if ends_here else kept)
        os.close(self._read)
        os.close(self._write)

    def take(self) -> list[int]:
        """What has come since the last look, oldest first."""
        drain(self._read)
        taken, self._noted = self._noted, []
        return taken

    def pending(self) -> bool:
        """Whether anything came that was not taken; cheap enough to ask before every job."""
        return bool(self._noted)


def drain(descriptor: int) -> bool:
    """Empty a non-blocking pipe; whether anything was in it."""
    found = False
    with suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            found = True
    return found


def poke(descriptor: int) -> None:
    """Wake the reader of a non-blocking pipe; a full one is awake already, a closed one is gone."""
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(descriptor, b"!")


def forget_all() -> None:
    """In a forked child, first of all: what the parent handled is the parent's business."""
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    # A child is a background group: by default a task that asks the terminal for a password would
    # be stopped for ever. Ignored, its read fails.
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)


def ignore_all() -> None:
    """In a child of a child: what is sent to all is meant for its parent, and it ends with that one."""
    for number in HANDLED:
        if number != signal.SIGCHLD:  # ignored, it would take away what a `waitpid` asks for
            signal.signal(number, signal.SIG_IGN)
