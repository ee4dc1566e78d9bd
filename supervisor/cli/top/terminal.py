"""A terminal while a full-screen command has it: drawn on, read from, and given back on every way out.

A signal is only noted, and wakes the loop that waits for keys; what it asks for is done there.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.live import Live

from jobvisor.supervisor.cli.top.keys import Keys

__all__ = ["Size", "Terminal", "Waited"]

ESCAPE_S = 0.05
"""After a lone Escape: what belongs to the sequence of a key comes with it, or within this over a line."""

READ_BYTES = 1 << 12

LEAVING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
NOTED = (*LEAVING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)

USUAL = (80, 24)
"""Of a terminal that does not know its size."""


class Size(NamedTuple):
    """Columns and lines."""

    columns: int
    lines: int


class Waited(NamedTuple):
    """What has come while one waited."""

    keys: list[str]
    leaving: signal.Signals | None = None
    """It was asked to end by this signal."""


class Terminal:
    """Standard input and output, with every key delivered at once and nothing echoed."""

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._keys = Keys()
        self._noted: set[int] = set()
        self._saved: list[Any] = []
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        self._console = Console(
            file=sys.stdout, highlight=False, emoji=False, markup=False, soft_wrap=False
        )
        self._live: Live | None = None

    @property
    def drawable(self) -> bool:
        """Whether its cursor can be moved."""
        return not self._console.is_dumb_terminal

    @property
    def size(self) -> Size:
        """As it is now: the variables COLUMNS and LINES would hold on to what it was at the start."""
        try:
            found = os.get_terminal_size(self._output)
        except OSError:
            return Size(*USUAL)
        return Size(found.columns or USUAL[0], found.lines or USUAL[1])

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have it, until the block is left, however that is."""
        self._saved = termios.tcgetattr(self._input)
        before = {number: signal.signal(number, self._note) for number in NOTED}
        woken = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        try:
            self._take()
            yield
        finally:
            self._give_back()
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._woken)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.add(number)

    def _take(self) -> None:
        mode = termios.tcgetattr(self._input)
        # Ctrl-C and Ctrl-Z stay signals; Ctrl-S must not stop the drawing, and with it the way out.
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        self._set(mode)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _give_back(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):  # it has been hung up
                live.stop()
        with suppress(OSError, termios.error):
            self._set(self._saved)

    def _set(self, mode: list[Any]) -> None:
        while True:
            try:
                termios.tcsetattr(self._input, termios.TCSADRAIN, mode)
            except InterruptedError:
                continue
            except termios.error as error:
                if error.args[0] != errno.EINTR:  # it was stopped in the background, and goes on
                    raise
                continue
            return

    def draw(self, frame: RenderableType) -> None:
        """Show this from the upper left corner on, cut to the size of the terminal."""
        if self._live is not None:
            self._console.size = self.size
            try:
                self._live.update(frame, refresh=True)
            except OSError:  # EIO: the window is closed, of which the signal comes in a moment
                self._noted.add(signal.SIGHUP)

    def wait(self, seconds: float, news: Sequence[int] = ()) -> Waited:
        """Until a key is pressed, a signal comes, one of these can be read, or the time is over."""
        watched = [self._input, self._wake, *news]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        keys: list[str] = []
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, READ_BYTES)
        if self._input in ready:
            keys = self._read()
        return Waited(keys, self._obey())

    def _read(self) -> list[str]:
        try:
            data = os.read(self._input, READ_BYTES)
        except OSError:  # EIO: nobody is at the other end any more
            data = b""
        if not data:
            self._noted.add(signal.SIGHUP)
            return []
        keys = self._keys.read(data)
        while self._keys.unfinished:
            if not select.select([self._input], [], [], ESCAPE_S)[0]:
                return keys + self._keys.end()
            more = os.read(self._input, READ_BYTES)
            if not more:
                break
            keys += self._keys.read(more)
        return keys

    def _obey(self) -> signal.Signals | None:
        noted, self._noted = self._noted, set()
        for number in LEAVING:
            if number in noted:
                return number
        if signal.SIGTSTP in noted:
            self._suspend()
        elif signal.SIGCONT in noted:
            # After a SIGSTOP, which nobody hears of: the shell has taken the terminal meanwhile.
            self._give_back()
            self._take()
        return None

    def _suspend(self) -> None:
        """Be stopped, with the terminal as it was, until somebody lets this go on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._note)
        self._noted.discard(signal.SIGCONT)
        self._take()
