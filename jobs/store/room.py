"""Room in a write-ahead log that grows: written before it is needed, so that no commit makes the file longer.

A durable commit that writes over bytes of its file waits for these bytes alone; one that makes the file
longer waits for the file system's own log as well (half as long again, measured). SQLite writes over
its log from the beginning once that is in the database, so that only a new log has no room, and one
that a reader keeps from being begun anew (0.6 of the rate of before; with room 0.9, measured).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress

FRAME = 4120  # bytes of one page in the log, with its header
PAGES = 256  # made at once
# In commits. A process that enqueues one job makes no room for it; later a look takes two microseconds,
# and a commit that makes the file longer sixty.
FIRST_LOOK, BETWEEN_LOOKS = 16, 8


class Room:
    """What one store does for the log of its file."""

    def __init__(
        self,
        path: str,
        *,
        first: int = FIRST_LOOK,
        pages: int = PAGES,
        between: int = BETWEEN_LOOKS,
    ) -> None:
        self._log = f"{path}-wal"
        self._bytes = pages * FRAME
        self._between = between
        self._left = first
        self._size = 0

    def committed(self, connection: sqlite3.Connection) -> None:
        """After a durable commit: look, now and then, whether the log grows."""
        self._left -= 1
        if self._left <= 0:
            self._left = self._between
            # Without it the next commits are slower, no more.
            with suppress(OSError, sqlite3.Error):
                self._look(connection)

    def _look(self, connection: sqlite3.Connection) -> None:
        size = os.stat(self._log).st_size
        if size > self._size:
            log = os.open(self._log, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                if not self._has_room(log, size):
                    self._make(connection, log)
                    size += self._bytes
            finally:
                os.close(log)
        self._size = size

    def _has_room(self, log: int, size: int) -> bool:
        """Whether half of what is made at once is still there: it may be another process that made it."""
        at = size - self._bytes // 2
        return at > 0 and not any(os.pread(log, FRAME, at))

    def _make(self, connection: sqlite3.Connection, log: int) -> None:
        """Zeros behind the last byte: to SQLite they are no page of the log.

        Each page there begins with its number, which is never 0, and with the sign of this round of the
        log; who reads the log after a crash stops where that is not so. Nobody writes to it without the
        writers' lock, which is held meanwhile, and what is appended lies over nothing in any case.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")  # waits for nobody
            os.write(log, bytes(self._bytes))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
