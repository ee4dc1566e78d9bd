"""Arguments that came over HTTP: plain JSON, or the tagged form that documents of jobs show."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from jobvisor.jobs.decode import decode
from jobvisor.jobs.errors import InvalidOption, PayloadError, shown

__all__ = ["check_tags", "classes_in", "typed_value"]

_OF_CLASSES = ("$dataclass", "$enum", "$flag")
_OF_STORES = ("$codec", "$unreadable")


def typed_value(where: str, value: Any, *, classes: Collection[str] = ()) -> Any:
    """The value whose tags such as {"$date": "2027-01-31"} are dates again, not yet of users' classes.

    A worker imports the class that a tag names, so one may only name those in `classes`.

    >>> typed_value("args", [{"$date": "2027-01-31"}])
    [datetime.date(2027, 1, 31)]
    """
    check_tags(where, value, classes)
    try:
        return decode(json.dumps(value), lenient=True)
    except (PayloadError, ValueError, RecursionError) as error:
        raise InvalidOption(f"{where}: {error}") from None


def check_tags(where: str, value: Any, classes: Collection[str]) -> None:
    """InvalidOption where a tag of it names another class than these, or stands for no value."""
    for tag, body in _tags(value):
        if tag in _OF_STORES:
            raise InvalidOption(
                f'{where}: "{tag}" stands for what could not be read; send the value'
            )
        name = body[0] if isinstance(body, list) and body else None
        if tag in _OF_CLASSES and name not in classes:
            raise InvalidOption(
                f'{where}: "{tag}" names the class {shown(name)}, which is not taken over HTTP'
            )


def classes_in(value: Any) -> frozenset[str]:
    """The users' classes that a document names, which a copy of it may name again."""
    return frozenset(
        body[0]
        for tag, body in _tags(value)
        if tag in _OF_CLASSES and isinstance(body, list) and body and isinstance(body[0], str)
    )


def _tags(value: Any) -> Iterator[tuple[str, Any]]:
    """Each object of one key that begins with $, at any depth; without recursion, as a stranger sends it."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if len(found) == 1:
                [(key, body)] = found.items()
                if key.startswith("$") and not key.startswith("$$"):
                    yield key, body
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)
