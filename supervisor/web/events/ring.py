"""The last looks, numbered: all that is kept for readers. Each reader is a number in it.

A reader that stops reading holds nothing but its number, so memory is bounded by the ring, however
many they are. One whose number has left the ring has missed something.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jobvisor.supervisor.web.events.message import Told

LOOKS_MOST = 600  # a minute of ten a second
TEXT_MOST = 4 << 20  # letters of all together; with what is around them 9 MB (measured)


class Look(NamedTuple):
    """What one look at the database has found."""

    number: int
    told: dict[int, Told]
    """By the ids of the jobs."""
    reset: str | None = None
    """Why everything is to be looked at anew from here on."""

    @property
    def size(self) -> int:
        """Letters of it."""
        return sum(len(each.text) for each in self.told.values())


class Since(NamedTuple):
    """What happened after a number."""

    told: Sequence[Told]
    """Each job once, with its last state."""
    reset: str | None = None


class Ring:
    """Looks with something in them; numbers count up and never end."""

    def __init__(self, looks_most: int = LOOKS_MOST, text_most: int = TEXT_MOST) -> None:
        self._looks: deque[Look] = deque()
        self._looks_most = looks_most
        self._text_most = text_most
        self._size = 0
        self.newest = 0
        """The number of the last look."""

    def add(self, told: Iterable[Told] = (), reset: str | None = None) -> None:
        """One more look; the oldest make room for it."""
        self.newest += 1
        look = Look(self.newest, {each.job: each for each in told}, reset)
        self._looks.append(look)
        self._size += look.size
        while len(self._looks) > self._looks_most or (
            self._size > self._text_most and len(self._looks) > 1
        ):
            self._size -= self._looks.popleft().size

    def reaches(self, number: int) -> bool:
        """Whether all that came after this number is still here."""
        return self.newest - len(self._looks) <= number <= self.newest

    def since(self, number: int) -> Since:
        """What came after a number that it reaches: after the last reset only what followed that."""
        found: dict[int, Told] = {}
        reset = None
        for look in reversed(self._looks):
            if look.number <= number:
                break
            for each in reversed(look.told.values()):
                found.setdefault(each.job, each)
            if look.reset is not None:
                reset = look.reset
                break
        return Since(list(found.values())[::-1], reset)

    def has_changed(self, job: int, number: int) -> bool:
        """Whether this job may be another one since this number."""
        if not self.reaches(number):
            return True
        for look in reversed(self._looks):
            if look.number <= number:
                return False
            if job in look.told or look.reset is not None:
                return True
        return False
