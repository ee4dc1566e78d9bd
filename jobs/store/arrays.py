"""Columns of many rows as the text of PostgreSQL's arrays: a tenth of the time of psycopg's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """One array for each parameter; the statement says of which type, as in `%(job)s::bigint[]`."""
    return {name: array([row[name] for row in rows]) for name in rows[0]}


def array(values: Sequence[int | str | None]) -> str:
    """The text of one.

    >>> array([1, None, "a, b"])
    '{1,NULL,"a, b"}'
    """
    # Numbers alone are the most, and need no look at each.
    told = map(str, values) if set(map(type, values)) == {int} else map(_element, values)
    return "{" + ",".join(told) + "}"


def _element(value: int | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
