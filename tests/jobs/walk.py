"""A second way to find the ticks of a cron expression: minute after minute of UTC, and what clocks show then.

It shares nothing with ours or cronsim's: fields are read here, and every minute is asked.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
_DAYS = {calendar.day_abbr[number].upper(): (number + 1) % 7 for number in range(7)}
_MONTHS = {calendar.month_abbr[number].upper(): number for number in range(1, 13)}


@dataclass(frozen=True)
class Shown:
    """A minute of UTC, and what the clocks of the zone show in it."""

    utc: datetime
    wall: datetime


def minutes(zone: str, since: datetime, until: datetime) -> Iterator[Shown]:
    """Every minute after one moment, up to another."""
    place = ZoneInfo(zone)
    moment = since.astimezone(UTC).replace(second=0, microsecond=0)
    while moment <= until:
        yield Shown(moment, moment.astimezone(place).replace(tzinfo=None, fold=0))
        moment += MINUTE


def changes(zone: str, first: datetime, last: datetime) -> Iterator[datetime]:
    """Every minute at which clocks have another offset than a minute before; asked each hour."""
    place = ZoneInfo(zone)
    hour, before = first.astimezone(UTC), first.astimezone(place).utcoffset()
    while hour < last:
        behind = (hour + HOUR).astimezone(place).utcoffset()
        if behind != before:
            within = (hour + number * MINUTE for number in range(1, 61))
            yield next(each for each in within if each.astimezone(place).utcoffset() == behind)
        hour, before = hour + HOUR, behind


def ticks(expression: str, shown: Iterable[Shown]) -> list[datetime]:
    """Of five fields, or six; the first minute is only to know what was shown before."""
    fields = expression.upper().split()
    if len(fields) == 5:
        return _ticks(fields, shown)
    second = fields.pop(0)
    if second.isdigit():  # it is added
        return [tick + timedelta(seconds=int(second)) for tick in _ticks(fields, shown)]
    seconds = sorted(numbers(second, 0, 59))
    matching = [each.utc for each in list(shown)[1:] if matches(fields, each.wall)]
    return [minute + timedelta(seconds=each) for minute in matching for each in seconds]


def _ticks(fields: list[str], shown: Iterable[Shown]) -> list[datetime]:
    once = not fields[0].startswith("*") and not fields[1].startswith("*")
    found, latest = [], None
    for each in shown:
        if latest is None:
            latest = each.wall
            continue
        passed_over = _between(latest, each.wall) if once else []
        repeated = once and each.wall <= latest
        if (not repeated and matches(fields, each.wall)) or any(
            matches(fields, wall) for wall in passed_over
        ):
            found.append(each.utc)
        latest = max(latest, each.wall)
    return found


def _between(before: datetime, behind: datetime) -> Iterator[datetime]:
    wall = before + MINUTE
    while wall < behind:
        yield wall
        wall += MINUTE


def matches(fields: list[str], wall: datetime) -> bool:
    """Whether all five fields have this minute."""
    minute, hour, day, month, weekday = fields
    if wall.minute not in numbers(minute, 0, 59) or wall.hour not in numbers(hour, 0, 23):
        return False
    if wall.month not in numbers(month, 1, 12):
        return False
    by_day, by_weekday = _has_day(day, wall), _has_weekday(weekday, wall)
    if day.startswith("*") or weekday.startswith("*"):
        return by_day and by_weekday
    return by_day or by_weekday


def _has_day(field: str, wall: datetime) -> bool:
    last = calendar.monthrange(wall.year, wall.month)[1]
    if field == "L":
        return wall.day == last
    if field == "LW":
        workdays = [d for d in range(1, last + 1) if wall.replace(day=d).isoweekday() < 6]
        return wall.day == workdays[-1]
    return wall.day in numbers(field, 1, 31)


def _has_weekday(field: str, wall: datetime) -> bool:
    today = wall.isoweekday() % 7
    last = calendar.monthrange(wall.year, wall.month)[1]
    if field.endswith("L"):
        return today == int(field[:-1]) % 7 and wall.day + 7 > last
    if "#" in field:
        day, number = field.split("#")
        return today == _number(day) % 7 and (wall.day - 1) // 7 + 1 == int(number)
    return today in {each % 7 for each in numbers(field, 0, 7)}


@cache
def numbers(field: str, low: int, high: int) -> frozenset[int]:
    """All that a field without words for days of a month stands for."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (_number(each) for each in span.split("-"))
        else:
            first = _number(span)
            last = high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


def _number(word: str) -> int:
    return _DAYS.get(word, _MONTHS.get(word, -1)) if word.isalpha() else int(word)
