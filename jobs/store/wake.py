"""How a sleeper on SQLite learns that a row became pending: a watched file beside the database.

Whoever makes a row pending touches `<database>-wake` after the commit, so whoever wakes sees the row.
Watching the write-ahead log instead wakes before the commit is visible (23 of 100 wake-ups saw
nothing, measured); its events are taken as the rumour of a stranger's plain INSERT, and looked
after 30 ms later. Where there is no inotify the sleeper polls the table.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from typing import Any

from jobvisor.jobs.store.base import Waker

RUMOUR_SECONDS = 0.03  # a commit is visible well within this after its first bytes reach the log
_MODIFY, _ATTRIB, _DELETE_SELF, _MOVE_SELF, _IGNORED = 0x2, 0x4, 0x400, 0x800, 0x8000
_EVENT = struct.Struct("iIII")


def touch(database: str) -> None:
    """Wake whoever watches. Only after the commit: an earlier wake sees nothing and is gone."""
    # A hint only: whatever is wrong with the disk must not turn a committed enqueue into an error.
    with contextlib.suppress(OSError):
        try:
            os.utime(f"{database}-wake")
        except FileNotFoundError:
            os.close(made(database))


def waker_of(database: str) -> Waker:
    """Watches the wake file of a database, which is made where it is missing; polls where it cannot.

    No file of the database itself is opened: to close it would drop its locks of this whole process.
    """
    with contextlib.suppress(OSError):
        os.close(made(database))
    waker = FileWaker(database)
    return waker if waker.fileno() is not None else PollWaker()


def made(database: str) -> int:
    """A descriptor of the wake file, made where it is missing.

    Whoever may write the database may touch it: it has the mode, and made by root the owner, of the
    database, as SQLite gives its log.
    """
    wake = f"{database}-wake"
    try:
        return os.open(wake, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(wake, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        owner = os.stat(database)
        os.fchmod(descriptor, owner.st_mode & 0o666)  # the umask has no say in it
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


class FileWaker(Waker):
    """Watches the wake file and the write-ahead log of one database."""

    def __init__(self, database: str) -> None:
        self._wake = f"{database}-wake"
        self._log = f"{database}-wal"
        self._watches: dict[int, str] = {}
        self._refused = False
        self._inotify = _inotify()
        self._descriptor = -1 if self._inotify is None else self._inotify.start()
        self._watch()

    def fileno(self) -> int | None:
        # A watch that the system refuses is one that never wakes: polling it is, until it is granted.
        return self._descriptor if self._descriptor >= 0 and not self._refused else None

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
        if self._inotify is None or self._descriptor < 0 or len(self._watches) == 2:
            return
        self._refused = False
        for path, mask in ((self._wake, _ATTRIB | _MODIFY), (self._log, _MODIFY)):
            if path not in self._watches.values():
                watch = self._inotify.add(self._descriptor, path, mask | _DELETE_SELF | _MOVE_SELF)
                if watch >= 0:
                    self._watches[watch] = path
                elif ctypes.get_errno() != errno.ENOENT:
                    self._refused = True


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
        """A watch, or -1: there is no such file yet, or the system has none left (max_user_watches)."""
        return int(self._library.inotify_add_watch(descriptor, os.fsencode(path), mask))


def _inotify() -> _Inotify | None:
    if not sys.platform.startswith("linux"):
        return None
    return _Inotify(ctypes.CDLL(None, use_errno=True))


def _sooner(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
