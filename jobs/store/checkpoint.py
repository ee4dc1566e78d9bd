"""SQLite's write-ahead log: carried into the database while it is small, and begun anew when it is large.

A reader that stays keeps everything written since its first look in the log, and nothing can be done
about that; but to wait for it would stop every writer (a large log was waited for, a second at a
time: enqueue fell from 860 to 30 jobs/s, measured). So nobody waits: what may be carried is carried,
and the log is begun anew only once all of it is in the database.
"""

from __future__ import annotations

import os
import sqlite3

from jobvisor.jobs.clock import Clock

NET_PAGES = 4000  # from here on a commit carries the log itself; the caretaker is before it
#: A durable commit sooner: until the log begins anew each one makes the file longer, and waits for the disk
#: to know its new size as well. Of 2,000 jobs on a new file, 4,000/s instead of 2,900 (measured).
DURABLE_NET_PAGES = 1000
KEPT_BYTES = NET_PAGES * 4120  # a log that begins anew keeps so much of its file
WORTH_BYTES = 4 << 20  # the log is worth a step of the caretaker from here on
LARGE_BYTES = 64 << 20  # and from here on writers may have to wait a moment so that it begins anew
PATIENCE_MS = 5  # that moment
AGAIN_FIRST, AGAIN_CAP = 1.0, 60.0  # seconds until a large log is tried again that was in use


def log_settings(*, durable: bool) -> tuple[str, ...]:
    """What a connection says about the log.

    To write over bytes of its file costs a durable commit one write, and to add some a change of the
    file's size as well, so that a part is kept; a log that a reader has made large is cut by the first
    commit that begins it anew.
    """
    return (
        f"PRAGMA wal_autocheckpoint = {DURABLE_NET_PAGES if durable else NET_PAGES}",
        f"PRAGMA journal_size_limit = {KEPT_BYTES}",
    )


class Checkpoint:
    """The step of one caretaker for the log of one file."""

    def __init__(self, path: str, clock: Clock, *, large: int = LARGE_BYTES) -> None:
        self._log = f"{path}-wal"
        self._clock = clock
        self._large = large
        self._pause = 0.0
        self._again_ns = 0

    def due(self) -> bool:
        """Whether the log is worth a step."""
        return self._size() >= min(WORTH_BYTES, self._large)

    def step(self, connection: sqlite3.Connection) -> None:
        """Carry what no reader needs; PASSIVE waits for nobody."""
        _busy, frames, carried = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # Under constant writes PASSIVE never sees the end of the log, so it grows and grows. With
        # frames left that a reader needs, a beginning is impossible, and to ask for it stops writers.
        if (
            carried == frames
            and self._size() > self._large
            and self._clock.monotonic_ns() >= self._again_ns
        ):
            self._begin_anew(connection)

    def _begin_anew(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        try:
            busy, _frames, _carried = connection.execute(
                "PRAGMA wal_checkpoint(RESTART)"
            ).fetchone()
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
        self._pause = min(max(2 * self._pause, AGAIN_FIRST), AGAIN_CAP) if busy else 0.0
        self._again_ns = self._clock.monotonic_ns() + int(self._pause * 1e9)

    def _size(self) -> int:
        return log_size(self._log)


def log_size(path: str) -> int:
    """Bytes of a log; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
