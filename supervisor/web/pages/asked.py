"""What the address or the form of a page says of jobs, as the filter that clients and commands use too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.errors import InvalidOption, JobNotFound, shown
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State

__all__ = ["STATES", "WORDS", "Asked", "id_of", "ids_of", "known_id"]

WORDS = ("state", "queue", "task", "error", "error_type", "text", "since", "until")
"""The words of a filter, in addresses and in forms alike."""

ID_MAX = 2**63 - 1


class Asked(NamedTuple):
    """The words as they were given, each a text; empty where nothing was said."""

    words: dict[str, str]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Asked:
        """Of a query or a form: what else stands there is passed over."""
        words = {name: str(given.get(name) or "").strip() for name in WORDS}
        return cls({name: text for name, text in words.items() if text})

    def __getattr__(self, name: str) -> str:
        """`asked.queue`, for templates."""
        if name not in WORDS:
            raise AttributeError(name)
        return self.words.get(name, "")

    @property
    def narrowed(self) -> bool:
        """Whether anything but the state is said."""
        return any(name != "state" for name in self.words)

    def filter(self, **more: Any) -> Filter:
        """The filter; InvalidOption says what is wrong with a word."""
        said: dict[str, Any] = {**self.words, **more}
        for name in ("since", "until"):
            if name in said:
                said[name] = _moment(name, said[name])
        return Filter(**said)


def id_of(text: str) -> int | None:
    """The id that a text is, None where it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) and 0 < int(text) <= ID_MAX else None


def ids_of(given: list[Any]) -> list[int]:
    """The ids that were chosen; InvalidOption for what is none."""
    found = []
    for each in given:
        number = id_of(str(each))
        if number is None:
            raise InvalidOption(f"{shown(each)} is no id of a job")
        found.append(number)
    return found


def _moment(name: str, text: str) -> datetime | str:
    """A moment with its timezone, or a duration that the filter reads."""
    if not re.match(r"[0-9]{4}-", text):
        return text
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(
            f"{name}: {shown(text)} is no time; write 2027-01-31T08:00Z, or 1h for an hour ago"
        ) from None
    if found.utcoffset() is None:
        raise InvalidOption(f"{name}: {shown(text)} has no timezone; add one, such as Z or +01:00")
    return found


STATES = tuple(state.value for state in State)


def known_id(text: str) -> int:
    """The id in an address; JobNotFound for what is none."""
    found = id_of(text)
    if found is None:
        raise JobNotFound(f"{shown(text[:40])} is no id of a job")
    return found
