"""When a schedule ticks: by a cron expression in a time zone, or every so often from an anchor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from jobvisor.jobs.clock import from_datetime, to_datetime
from jobvisor.jobs.cron import cron_of
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.units import Duration, duration_ms, duration_text
from jobvisor.jobs.zone import zone_of

__all__ = ["Timing", "stored_timing", "timing_of"]

EVERY_LEAST_MS = 1_000
EVERY_MOST_MS = 366 * 86_400_000
NEXT_TOLD = 3
_WINDOW_MS, _WIDER = 60_000, 8


@dataclass(frozen=True, slots=True)
class Timing:
    """One of both, judged: `timing_of` makes it."""

    cron: str | None = None
    every_ms: int | None = None
    anchor_ms: int = 0
    """From where `every_ms` counts."""
    timezone: str = "UTC"

    def next_after(self, ms: int) -> int | None:
        """The first tick after this moment; None where none comes."""
        if self.every_ms is not None:
            gone = (ms - self.anchor_ms) // self.every_ms
            return self.anchor_ms + (gone + 1) * self.every_ms
        second = cron_of_text(self.cron or "").next_after(ms // 1_000, zone_of(self.timezone))
        return None if second is None else second * 1_000

    def due(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        """The newest ticks after one moment, up to another, at most so many; the oldest first.

        They are looked for from the end, so that a year of seconds is not walked through.
        """
        window = _WINDOW_MS
        while True:
            begins = max(after_ms, until_ms - window)
            found = deque(self._between(begins, until_ms), maxlen=most)
            if len(found) == most or begins == after_ms:
                return list(found)
            window *= _WIDER

    def _between(self, after_ms: int, until_ms: int) -> Iterator[int]:
        tick = self.next_after(after_ms)
        while tick is not None and tick <= until_ms:
            yield tick
            tick = self.next_after(tick)

    def next_few(self, ms: int, number: int = NEXT_TOLD) -> list[datetime]:
        """The next ticks, as the clocks of the zone show them."""
        zone, found = zone_of(self.timezone), list[datetime]()
        tick = self.next_after(ms)
        while tick is not None and len(found) < number:
            found.append(to_datetime(tick).astimezone(zone))
            tick = self.next_after(tick)
        return found

    @property
    def words(self) -> str:
        """For people.

        >>> Timing(every_ms=90_000).words, Timing("0 3 * * *", timezone="Europe/Berlin").words
        ('Every 1m30s', 'At 03:00 every day, in Europe/Berlin')
        """
        if self.every_ms is not None:
            return f"Every {duration_text(self.every_ms)}"
        return f"{cron_of_text(self.cron or '').words}, in {self.timezone}"


cron_of_text = lru_cache(maxsize=1_024)(cron_of)


def timing_of(
    *,
    cron: str | None = None,
    every: Duration | None = None,
    timezone: str | None = None,
    anchor: datetime | None = None,
) -> Timing:
    """Judge what a person wrote; an InvalidOption names the option, its value and the remedy.

    >>> timing_of(every="15m")
    Timing(cron=None, every_ms=900000, anchor_ms=0, timezone='UTC')
    """
    if (cron is None) == (every is None):
        told = (
            "cron and every both say when"
            if cron is not None
            else "neither cron nor every says when"
        )
        raise InvalidOption(f'{told}; give one of them, cron="0 3 * * *" or every="15m"')
    name = "UTC" if timezone is None else timezone
    zone_of(name)
    if cron is not None:
        if anchor is not None:
            raise InvalidOption("anchor goes with every; a cron expression has its times in itself")
        return Timing(cron=cron_of(cron).text, timezone=name)
    anchor_ms = 0 if anchor is None else _anchor(anchor)
    return Timing(every_ms=_every(every), anchor_ms=anchor_ms, timezone=name)


def _every(value: Duration | None) -> int:
    try:
        milliseconds = 0 if value is None else duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"every: {error}") from error
    if not EVERY_LEAST_MS <= milliseconds <= EVERY_MOST_MS:
        raise InvalidOption(f'every={shown(value)} must be from "1s" to "366d"')
    return milliseconds


def _anchor(value: object) -> int:
    if not isinstance(value, datetime):
        raise InvalidOption(f"anchor={shown(value)} must be a datetime with a timezone")
    try:
        return from_datetime(value)
    except InvalidOption as error:
        raise InvalidOption(f"anchor: {error}") from error


def stored_timing(cron: str | None, every_ms: int | None, anchor_ms: int, timezone: str) -> Timing:
    """What is stored as one; InvalidOption where it can be none here.

    A stranger may have written anything there, and another machine may know other zones.
    """
    if every_ms is None:
        cron_of_text(cron or "")
        zone_of(timezone)
    elif not EVERY_LEAST_MS <= every_ms <= EVERY_MOST_MS:
        raise InvalidOption(f'every={every_ms} ms must be from "1s" to "366d"')
    return Timing(cron, every_ms, anchor_ms, timezone)
