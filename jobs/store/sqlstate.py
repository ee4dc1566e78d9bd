"""What PostgreSQL's errors mean: the database cannot be had now, not at all, is not ours, or a row is bad."""

from __future__ import annotations

import re

import psycopg

from jobvisor.jobs.errors import (
    RowRefused,
    SchemaError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html; classes have two characters
_LATER = {
    "08001": "it cannot be reached",
    "08": "the connection broke",
    "25": "it is read-only or ended the transaction",
    "40": "another transaction stood in the way",
    "53": "it is out of connections, memory or disk",
    "55": "somebody else holds it",
    "57": "it was interrupted or is going down",
    "58": "its disk reports an error",
    "XX": "it reports an internal error",
}
_NEVER = {
    "28": "it refuses this user; look at the user, password and pg_hba.conf",
    "3D": "there is no such database; create it first",
    "42501": "this user lacks a privilege",
}
_REFUSALS = {
    "28": r"authentication failed|no pg_hba.conf entry|no password supplied|"
    r"role \".*\" (does not exist|is not permitted)",
    "3D": r"database \".*\" does not exist|no such database",
}
_FOREIGN = ("3F000", "42P01", "42703", "42883")  # no such schema, table, column, function
_BROKEN = (psycopg.OperationalError, psycopg.InterfaceError)


def named(error: psycopg.Error, place: str, *, connected: bool, broken: bool) -> StoreError:
    """The same error with the place it is about and what to do.

    `broken` is a connection that is gone by now: one that broke in the middle of a fetch is told of by
    a plain DatabaseError.
    """
    broken = broken or isinstance(error, _BROKEN)
    code = error.sqlstate or ("08000" if broken else "")
    if code == "08000" and not connected:
        code = _said(error)

    def told(what: str) -> str:
        return f"{place}: {what} ({_one_line(error)})"

    never = _NEVER.get(code) or _NEVER.get(code[:2])
    if never:
        return StoreRefused(told(never))
    if code in _FOREIGN:
        return SchemaError(told("its tables are not those of this release; run `jobvisor migrate`"))
    later = _LATER.get(code) or _LATER.get(code[:2])
    if code == "0A000" and "cached plan" in str(error):
        later = "a plan went stale"
    if later:
        return StoreUnavailable(told(later))
    # Not the details: they hold the whole row, and what a user's arguments are is nobody's to log.
    return RowRefused(
        f"{place}: it refuses a row ({error.diag.message_primary or _one_line(error)})"
    )


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:500]


def _said(error: psycopg.Error) -> str:
    """What kind of refusal a failed connection was: libpq passes on the server's words, not its code.

    Each address that was tried has a line. Where they differ, or the server speaks another language,
    it is taken for one that may be better later.
    """
    lines = [line for line in str(error).splitlines() if line.startswith("- ")] or [str(error)]
    for code, words in _REFUSALS.items():
        if all(re.search(words, line) for line in lines):
            return code
    return "08001"
