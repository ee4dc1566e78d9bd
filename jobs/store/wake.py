"""How a sleeper on SQLite learns that a row became pending: a watched file beside the database.

Whoever makes a row pending touches `<database>-wake` after the commit, so whoever wakes sees the row.
Watching the write-ahead log instead wakes before the commit is visible (23 of 100 wake-ups saw
nothing, measured); its events are taken as the rumour of a stranger's plain INSERT, and looked
after 30 ms later. Where there is no inotify the sleeper polls the table.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from typing import Any

from jobvisor.jobs.store.base import Waker

RUMOUR_SECONDS = 0.03  # a commit is visible well within this after its first bytes reach the log
_MODIFY, _ATTRIB, _DELETE_SELF, _MOVE_SELF, _IGNORED = 0x2, 0x4, 0x400, 0x800, 0x8000
_EVENT = struct.Struct("iIII")


def touch(path: str) -> None:
    """Wake whoever watches. Only after the commit: an earlier wake sees nothing and is gone."""
    # A hint only: whatever is wrong with the disk must not turn a committed enqueue into an error.
    with contextlib.suppress(OSError):
        try:
            os.utime(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))


class FileWaker(Waker):
    """Watches the wake file and the write-ahead log of one database."""

    def __init__(self, database: str) -> None:
        self._wake = f"{database}-wake"
        self._log = f"{database}-wal"
        self._watches: dict[int, str] = {}
        self._inotify = _inotify()
        self._descriptor = -1 if self._inotify is None else self._inotify.start()
        self._watch()

    def fileno(self) -> int | None:
        return self._descriptor if self._descriptor >= 0 else None

    def drain(self) -> float | None:
        if self._descriptor < 0:
            return None
        due: float | None = None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 65536):
                due = _sooner(due, self._heard(data))
        self._watch()
        return due

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _heard(self, data: bytes) -> float | None:
        due: float | None = None
        offset = 0
        while offset < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            path = self._watches.get(watch)
            if mask & (_DELETE_SELF | _MOVE_SELF | _IGNORED):
                self._watches.pop(watch, None)
            due = _sooner(due, RUMOUR_SECONDS if path == self._log else 0.0)
        return due

    def _watch(self) -> None:
        """Watch what is not watched: SQLite deletes its log when the last connection leaves."""
        if self._inotify is None or len(self._watches) == 2:
            return
        for path, mask in ((self._wake, _ATTRIB | _MODIFY), (self._log, _MODIFY)):
            if path not in self._watches.values():
                watch = self._inotify.add(self._descriptor, path, mask | _DELETE_SELF | _MOVE_SELF)
                if watch >= 0:
                    self._watches[watch] = path


class PollWaker(Waker):
    """No hint at all: the table is looked at every 100 ms."""

    def fileno(self) -> int | None:
        return None

    def drain(self) -> float | None:
        return None

    def close(self) -> None:
        """Nothing is held."""


class _Inotify:
    """The three calls of inotify that the standard library does not have."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def start(self) -> int:
        """A descriptor, or -1 where the system has none left (fs.inotify.max_user_instances)."""
        return int(self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, descriptor: int, path: str, mask: int) -> int:
        """A watch, or -1 where there is no such file yet."""
        return int(self._library.inotify_add_watch(descriptor, os.fsencode(path), mask))


def _inotify() -> _Inotify | None:
    if not sys.platform.startswith("linux"):
        return None
    return _Inotify(ctypes.CDLL(None, use_errno=True))


def _sooner(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
