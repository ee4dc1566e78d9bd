"""A terminal for tests: a command on a pseudo-terminal, and what a person would see of it.

The screen understands what our commands send and nothing more: an escape sequence that it does not know
fails the test, because a real terminal might not know it either.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.cells import cell_len

ROOT = Path(__file__).parents[1]
SECONDS = 30.0  # for what comes at once; a busy machine takes longer

# What a terminal window does before it starts its command; Ctrl-C and Ctrl-Z come from this terminal then.
SESSION = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

_SEQUENCE = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])")
_BEGUN = re.compile(rb"\x1b(?:\[[?0-9;]*)?\Z")


class Screen:
    """Cells, a cursor, and the modes that a full-screen command changes and must change back."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.alternate = False
        self.cursor_shown = True
        self.colours: set[str] = set()
        """Every parameter of a colour or style that was ever sent."""
        self.reversed: list[bool] = []
        """Of each line whether its first cell is shown in reverse."""
        self._is_reversed = False
        self._rest = b""
        self._main: list[list[str]] = []
        self.clear()

    def clear(self) -> None:
        self._cells = [[" "] * self.columns for _ in range(self.lines)]
        self.reversed = [False] * self.lines
        self._row = self._column = 0

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.clear()

    @property
    def text(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = b""
        while data:
            found = _SEQUENCE.match(data)
            if found is not None:
                self._obey(found[1].decode(), found[2].decode())
                data = data[found.end() :]
            elif _BEGUN.match(data):
                self._rest, data = data, b""
            elif data[:1] == b"\x1b":
                raise AssertionError(f"no terminal need know {data[:20]!r}")
            else:
                end = data.find(b"\x1b")
                plain, data = (data, b"") if end < 0 else (data[:end], data[end:])
                while not data and plain[-1:] >= b"\x80" and not _whole(plain):
                    plain, self._rest = plain[:-1], plain[-1:] + self._rest
                for letter in plain.decode():
                    self._put(letter)

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._down()
        elif letter == "\x08":
            self._column = max(0, self._column - 1)
        else:
            assert letter.isprintable(), f"{letter!r} reached the terminal"
            wide = cell_len(letter)
            if self._column + wide > self.columns:
                self._column = 0
                self._down()
            if self._column == 0:
                self.reversed[self._row] = self._is_reversed
            if wide:
                self._cells[self._row][self._column] = letter
            for beside in range(1, wide):
                self._cells[self._row][self._column + beside] = ""
            self._column += wide

    def _down(self) -> None:
        if self._row < self.lines - 1:
            self._row += 1
        else:
            self._cells = [*self._cells[1:], [" "] * self.columns]
            self.reversed = [*self.reversed[1:], False]

    def _obey(self, parameters: str, verb: str) -> None:
        if verb == "m":
            assert "5" not in parameters.split(";"), "nothing of ours blinks"
            self.colours |= set(parameters.split(";"))
            self._is_reversed = "7" in parameters.split(";")
        elif verb == "H":
            row, _, column = parameters.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif verb == "J" and parameters == "2":
            self._cells = [[" "] * self.columns for _ in range(self.lines)]
        elif (parameters, verb) in (("?1049", "h"), ("?1049", "l")):
            if verb == "h":
                self._main = self._cells
                self.clear()
            elif self.alternate:
                self._cells = self._main
            self.alternate = verb == "h"
        elif (parameters, verb) in (("?25", "h"), ("?25", "l")):
            self.cursor_shown = verb == "h"
        else:
            raise AssertionError(f"no terminal need know ESC [ {parameters} {verb}")


def _whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Played:
    """A command that believes a person to be at its terminal."""

    def __init__(
        self,
        *args: str,
        folder: Path,
        size: tuple[int, int] = (100, 30),
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "jobvisor"),
    ) -> None:
        self.screen = Screen(*size)
        self._end, terminal = pty.openpty()
        self._resize(*size)
        self.before = termios.tcgetattr(terminal)
        environ = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
        environ |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SESSION, *program, *args],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env=environ,
        )
        self.terminal = terminal

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(columns, lines)
        self._resize(columns, lines)

    def press(self, keys: str | bytes) -> None:
        os.write(self._end, keys.encode() if isinstance(keys, str) else keys)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.text)

    def see(self, *wanted: str, but: Sequence[str] = ()) -> str:
        """Wait until all of these, and none of those, are on the screen."""
        return self.until(
            lambda: (
                all(text in self.text for text in wanted)
                and not any(text in self.text for text in but)
            ),
            f"{wanted} but {but}",
        )

    @property
    def chosen(self) -> str:
        """The line that is shown in reverse; empty where there is none."""
        lines = zip(self.screen.text, self.screen.reversed, strict=True)
        return next((line for line, is_reversed in lines if is_reversed), "")

    def see_chosen(self, word: str) -> None:
        """Wait until the line that is shown in reverse begins with this word; a paint comes in pieces."""
        self.until(lambda: self.chosen.split()[:1] == [word], f"{word} chosen")

    def until(self, fulfilled: Callable[[], bool], what: str) -> str:
        ends = time.monotonic() + SECONDS
        while not fulfilled():
            assert time.monotonic() < ends, f"never saw {what} on:\n{self.text}"
            assert self._read(0.1) or self.process.poll() is None, f"ended; {what}\n{self.text}"
        return self.text

    def _read(self, seconds: float) -> bool:
        """Whether something could be read."""
        if not select.select([self._end], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._end, 1 << 16)
        except OSError:
            return False
        self.screen.feed(data)
        return bool(data)

    def ended(self) -> int:
        """Its exit code, once it has left."""
        ends = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < ends, f"it does not end:\n{self.text}"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    def stopped(self) -> None:
        """Wait until it has been stopped."""
        ends = time.monotonic() + SECONDS
        while "\nState:\tT" not in Path(f"/proc/{self.process.pid}/status").read_text():
            assert time.monotonic() < ends, "it does not stop"
            self._read(0.05)
        while self._read(0.05):
            pass

    def shell_takes_over(self) -> None:
        """Do what a shell does with the terminal of a job that has been stopped."""
        termios.tcsetattr(self.terminal, termios.TCSANOW, self.before)
        self.screen.alternate, self.screen.cursor_shown = False, True
        self.screen.clear()

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.terminal)
        os.close(self._end)
        self._end = self.terminal = -1

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was before."""
        screen = self.screen
        same = termios.tcgetattr(self.terminal) == self.before
        return same and not screen.alternate and screen.cursor_shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self._end >= 0:
            os.close(self._end)
            os.close(self.terminal)
