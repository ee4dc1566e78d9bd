"""Time zones: found by their names, what their clocks show, and when these change."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.nearest import did_you_mean

__all__ = ["change_between", "first_moment", "offset_at", "wall_of", "zone_of"]

NAME_MAX = 100
_PROBE_S = 12 * 3600  # no zone has changed its clock twice within so short a time
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as clocks on walls show it
# Another one on each machine, or with leap seconds in it.
_NO_PLACES = re.compile("localtime|posixrules|Factory|posix/.*|right/.*")


def zone_of(name: object) -> tzinfo:
    """The zone of this name, as the IANA database has it; InvalidOption where there is none.

    >>> zone_of("UTC")
    datetime.timezone.utc
    """
    if name == "UTC":
        return UTC  # needs no files
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX or _NO_PLACES.fullmatch(name):
        raise _no_zone(name, "")
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # a folder of zones is an OSError
        known = available_timezones()
        hint = did_you_mean(name, sorted(known)) if known else "; run: pip install tzdata"
        raise _no_zone(name, hint) from None


def _no_zone(name: object, hint: str) -> InvalidOption:
    told = hint or '; write a name such as "Europe/Berlin" or "UTC"'
    return InvalidOption(f"timezone={shown(name)} is no time zone known here{told}")


def offset_at(zone: tzinfo, second: int) -> int:
    """By how many seconds the zone's clocks are before UTC at this second since 1970."""
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    return 0 if offset is None else offset // timedelta(seconds=1)


def wall_of(second: int) -> datetime:
    """What a clock on a wall shows, so many seconds after it showed the beginning of 1970."""
    return _EPOCH + timedelta(seconds=second)


def first_moment(zone: tzinfo, wall: datetime) -> int:
    """The second at which clocks show this for the first time, or pass over it."""
    shows = wall.replace(tzinfo=zone, fold=0)
    moment = int((shows.astimezone(UTC) - _EPOCH.replace(tzinfo=UTC)).total_seconds())
    skipped = moment + offset_at(zone, moment) - int((wall - _EPOCH).total_seconds())
    # In a gap this is as long after the change as the wanted time was after the last one shown.
    return _change(zone, moment - skipped, moment) if skipped else moment


def change_between(zone: tzinfo, after: int, until: int) -> int | None:
    """The first second after one, up to another, from which clocks are before UTC by another offset."""
    if zone is UTC:
        return None
    for year in range(wall_of(after).year, wall_of(until).year + 1):
        for change in _changes(zone, year):
            if after < change <= until:
                return change
    return None


@lru_cache(maxsize=1_024)
def _changes(zone: tzinfo, year: int) -> tuple[int, ...]:
    """Those of one year of UTC, in their order; found by looking twice a day."""
    begins = int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH.replace(tzinfo=UTC)).total_seconds())
    probes = range(begins - 1, begins + 366 * 86_400 + _PROBE_S, _PROBE_S)
    offsets = [offset_at(zone, probe) for probe in probes]
    return tuple(
        _change(zone, probe, probe + _PROBE_S)
        for probe, before, behind in zip(probes, offsets, offsets[1:], strict=False)
        if before != behind
    )


def _change(zone: tzinfo, before: int, behind: int) -> int:
    """The first second of the offset that there is at `behind`, which is another one than `before`."""
    offset = offset_at(zone, behind)
    while behind - before > 1:
        middle = (before + behind) // 2
        if offset_at(zone, middle) == offset:
            behind = middle
        else:
            before = middle
    return behind
