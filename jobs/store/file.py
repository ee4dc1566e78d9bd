"""The file of an SQLite database: where it may lie, who may use it, and a connection to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from urllib.parse import quote

from jobvisor.jobs.errors import StoreRefused, StoreUnavailable
from jobvisor.jobs.store.checkpoint import log_settings, log_size
from jobvisor.jobs.store.filesystem import file_system, is_network

OLDEST_SQLITE = (3, 37, 0)  # STRICT tables; RETURNING is older


class DatabaseFile:
    """One file, or a database in memory (`:memory:`)."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self.in_memory = path == ":memory:"
        # SQLite follows a link, and keeps its log beside the file itself; so does all of ours.
        self.path = path if self.in_memory else os.path.realpath(path)
        self.is_fleeting = False
        """Whether the newest connection took the file as one that nobody writes: good for one look."""
        self._durable = durable
        self._place_checked = False

    def connect(self) -> sqlite3.Connection:
        """A new connection that waits for nobody; SQLite's errors are the caller's."""
        connection = sqlite3.connect(
            self._uri(), uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = readable
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            for setting in log_settings(durable=self._durable):
                connection.execute(setting)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def is_only_readable(self) -> bool:
        """Whether whoever we are may read the file and not write it."""
        return (
            not self.in_memory
            and os.access(self.path, os.R_OK)
            and not os.access(self.path, os.W_OK)
        )

    def check_place(self) -> None:
        """StoreRefused where the file cannot be used at all, for what is true of its folder or of SQLite."""
        if self._place_checked or self.in_memory:
            return
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreRefused(
                f"SQLite {sqlite3.sqlite_version} is too old; jobvisor needs "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or newer"
            )
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise StoreRefused(
                f"the folder {folder} of {self.path} does not exist; create it first"
            )
        kind = file_system(folder)
        if is_network(kind):
            raise StoreRefused(
                f"{self.path} lies on a network file system ({kind}), where SQLite's log gets "
                f"damaged; use a local disk"
            )
        self._place_checked = True

    def _uri(self) -> str:
        """The file as whoever we are may use it; a new one is nobody else's to read."""
        self.is_fleeting = False
        if self.in_memory:
            return "file::memory:"
        with suppress(OSError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        place = f"file:{quote(os.fsencode(self.path))}"
        if not self.is_only_readable():
            return place
        # Without a right to write SQLite reads beside the writers that are there, through the index
        # of their log. Where nobody is there it would have to make one, so that the file is taken
        # as it stands: for one look, since whoever begins to write then does not know of us.
        if os.path.exists(f"{self.path}-shm"):
            return f"{place}?mode=ro&readonly_shm=1"
        if log_size(f"{self.path}-wal"):
            raise StoreUnavailable(
                f"{self.path} was left with a log that only somebody who may write can carry into "
                f"it; run any command as the owner of the file"
            )
        self.is_fleeting = True
        return f"{place}?mode=ro&immutable=1"


def readable(data: bytes) -> str:
    """What a stranger wrote must not stop a queue: bytes that are no UTF-8 are replaced."""
    return data.decode("utf-8", "replace")
