"""What SQLite's errors mean: the database cannot be had now, cannot be used at all, or is not ours."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from jobvisor.jobs.errors import RowRefused, SchemaError, StoreError, StoreRefused, StoreUnavailable

# https://www.sqlite.org/rescode.html, primary codes
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "somebody else holds it",
    sqlite3.SQLITE_LOCKED: "somebody else holds it",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "its locks do not answer",
}
_REFUSED = {
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a backup or run sqlite3's .recover",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; name another file",
}
NAME_ANOTHER = "name another file, or give ours names of their own by another [database] prefix"
# Another program's file may have tables of our names, and any user_version.
_FOREIGN = re.compile("no such (table|column)|already exists|has no column named")


def code_of(error: sqlite3.Error) -> int:
    """The primary code; without one it is Python's own: a stranger's text that is no UTF-8."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the database, so that patience helps."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_refusal(error: Exception) -> bool:
    """Whether a statement failed by the row it is about, or by a trigger that it set off."""
    if isinstance(error, sqlite3.OperationalError):
        return code_of(error) == sqlite3.SQLITE_ERROR and not _FOREIGN.search(str(error))
    kinds = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
    return isinstance(error, (*kinds, OverflowError, UnicodeError))


class NamedFaults(AbstractContextManager[None]):
    """Raise SQLite's errors under our names, with the file they are about.

    A class, and made once: a generator would cost each statement a microsecond.
    """

    def __init__(self, path: str, drop: Callable[[], None]) -> None:
        """`drop` is called first: the disk or file may be another by the next use."""
        self._path = path
        self._drop = drop

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, sqlite3.Error):
            named = self._named(error)
            if not isinstance(named, RowRefused):
                self._drop()
            raise named from error

    def _named(self, error: sqlite3.Error) -> StoreError:
        code = code_of(error)
        if code in _UNAVAILABLE:
            return StoreUnavailable(f"{self._path}: {_UNAVAILABLE[code]} ({error})")
        if code in _REFUSED:
            return StoreRefused(f"{self._path}: {_REFUSED[code]} ({error})")
        if code == sqlite3.SQLITE_ERROR and _FOREIGN.search(str(error)):
            return SchemaError(
                f"{self._path}: its tables are another program's ({error}); {NAME_ANOTHER}"
            )
        return RowRefused(f"{self._path} refuses a row: {error}")
