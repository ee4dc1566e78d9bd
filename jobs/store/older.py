"""Whether a family of an older release is at work, which would run a job and know nothing of its terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import StoreRefused, shown
from jobvisor.jobs.job import NewJob, Terms

ASKED_EACH_NS = 10 * SECOND

_NUMBER = re.compile(r"\d{1,6}(?:\.\d{1,6}){1,3}")

Ask = Callable[[str, Mapping[str, Any]], list[tuple[Any, ...]]]
"""Runs the statement of this name with these parameters; its rows."""


class OlderFamilies:
    """What one client knows of them: that there was none, some seconds ago at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked_ns: int | None = None

    def refuse(self, jobs: Iterable[NewJob], ask: Ask) -> None:
        """StoreRefused where there is one, and one of these jobs has terms that it does not know.

        Before the first of them is stored: in a caller's transaction, what is stored stays.
        """
        if self._knows_of_none():
            return
        for job in jobs:
            # (What is done where its key is held is done here.)
            if job.terms is not None and (words := _words(job.terms)):
                self._ask(f"{shown(job.task)} is to be enqueued with {words}", ask)
                return

    def refuse_stored(self, job: int, task: str, words: str, ask: Ask) -> None:
        """The same of a job that is stored, here or elsewhere, and is to be stored again."""
        if words and not self._knows_of_none():
            self._ask(f"job {job} ({shown(task)}) has {words}", ask)

    def _knows_of_none(self) -> bool:
        """From a moment ago; asked again where there was one, so that its end is seen at once."""
        now = self._clock.monotonic_ns()
        return self._asked_ns is not None and now - self._asked_ns < ASKED_EACH_NS

    def _ask(self, what: str, ask: Ask) -> None:
        now = self._clock.monotonic_ns()
        older = sorted({row[0] for row in ask("living_versions", {}) if is_older(row[0])})
        if older:
            raise StoreRefused(
                f"{what}, and a family of release {shown(older[0], 20)} is at work on this "
                f"database, which knows nothing of that; upgrade it to {SINCE} first"
            )
        self._asked_ns = now


def is_older(version: str) -> bool:
    """Whether a release knows nothing of terms; one whose name has no number may be any.

    >>> is_older("0.2.0"), is_older("99.0"), is_older("of somebody")
    (True, False, False)
    """
    found, first = number_of(version), number_of(SINCE)
    return found is not None and first is not None and found < first


def number_of(version: str) -> tuple[int, ...] | None:
    """The numbers that the name of a release begins with.

    >>> number_of("0.6.0.dev1")
    (0, 6, 0)
    """
    found = _NUMBER.match(version)
    return tuple(map(int, found[0].split("."))) if found else None


#: The first release that knows of terms, or what this tree is called before it is that one.
SINCE = min("0.6.0", __version__, key=lambda version: number_of(version) or ())


def _words(terms: Terms) -> str:
    """The terms of a job, by the names of the options that say them.

    >>> _words(Terms(limit_key="gpu", deadline_in_ms=5, is_held=True, held_ms=7))
    'limit, deadline, unique_for'
    """
    told = terms._replace(conflict="return")._asdict()
    said = (name for name, default in Terms()._asdict().items() if told[name] != default)
    return ", ".join(dict.fromkeys(_OPTIONS.get(name, name) for name in said))


_OPTIONS = {
    "limit_key": "limit", "debounce_ms": "delay", "deadline_in_ms": "deadline",
    "deadline_at_ms": "deadline", "expires_at_ms": "expires_at", "is_held": "unique_for",
    "held_ms": "unique_for",
}  # fmt: skip
