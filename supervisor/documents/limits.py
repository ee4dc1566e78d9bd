"""Limits and how they stand, as `limits`, the API and the page have them; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jobvisor.jobs.client import Client
from jobvisor.jobs.described import BY_FUNCTION
from jobvisor.jobs.limit import CONFIG, COUNTED_MOST, Limit, limit_name

__all__ = [
    "counted", "limits_of", "said_of", "told_unknown_limits", "told_unsaid_limits", "told_unused_limits",
    "unknown_limits_of_status", "used_limits",
]  # fmt: skip

UNKNOWN_MAX = 100


def limits_of(client: Client) -> dict[str, Any]:
    """Every limit, and the names of those that jobs wait for and nobody has set."""
    return {
        "limits": [each.as_json() for each in client.limits.list()],
        "unknown": client.limits.unknown(most=UNKNOWN_MAX),
    }


def said_of(limit: Limit) -> str:
    """Who says what it is."""
    return "config" if limit.source == CONFIG else "set at run time"


def counted(number: int) -> str:
    """A number of a limit's jobs or keys, which are counted so far and no further.

    >>> counted(9_999), counted(10_000)
    ('9,999', '10,000+')
    """
    return f"{number:,}{'+' if number >= COUNTED_MOST else ''}"


def told_unknown_limits(names: Iterable[str]) -> list[str]:
    """A sentence for each limit that jobs wait for and nobody has set.

    >>> told_unknown_limits(["gpu"])
    ['jobs wait for the limit gpu, which nobody has set; add [limits.gpu], or run `jobvisor limits set gpu`']
    """
    return [
        f"jobs wait for the limit {name}, which nobody has set; add [limits.{name}], or run "
        f"`jobvisor limits set {name}`"
        for name in names
    ]


def unknown_limits_of_status(status: Mapping[str, Any] | None) -> list[str]:
    """What the caretaker last saw of them; none in the status of a release that did not look."""
    told = (status or {}).get("unknown_limits")
    return [str(name) for name in told] if isinstance(told, list) else []


def used_limits(tasks: Iterable[Mapping[str, Any]]) -> set[str] | None:
    """The limits that tasks name; None where one of them makes its key by a function."""
    keys = _keys(tasks)
    return None if BY_FUNCTION in keys else {limit_name(key) for key in keys}


def _keys(tasks: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(told["limit"]) for told in tasks if told.get("limit") is not None}


def told_unsaid_limits(limits: Collection[str], tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each limit that a task names and a config does not.

    >>> told_unsaid_limits(["gpu"], [{"limit": "stripe"}, {"limit": "gpu"}])
    ['there is no [limits.stripe]: its jobs wait until `jobvisor limits set stripe` says what it is']
    """
    names = {limit_name(key) for key in _keys(tasks) - {BY_FUNCTION}}
    return [
        f"there is no [limits.{name}]: its jobs wait until "
        f"`jobvisor limits set {name}` says what it is"
        for name in sorted(names)
        if name not in limits
    ]


def told_unused_limits(limits: Iterable[Limit], used: set[str] | None) -> list[str]:
    """A sentence for each limit that no task names, where that can be known.

    >>> told_unused_limits([Limit("stripe", 5), Limit("gpu", 2)], {"gpu"})
    ['no task has limit="stripe"; run `jobvisor limits remove stripe`, or name it where it is meant']
    """
    return [
        f'no task has limit="{each.name}"; {_removal(each)}, or name it where it is meant'
        for each in limits
        if used is not None and each.name not in used
    ]


def _removal(limit: Limit) -> str:
    if limit.source == CONFIG:
        return f"remove [limits.{limit.name}]"
    return f"run `jobvisor limits remove {limit.name}`"
