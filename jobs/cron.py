"""When a cron expression ticks: fields as cronsim reads them, days of long and short clocks by our rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import islice

from cronsim import CronSim, CronSimError

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.zone import change_between, first_moment, offset_at, wall_of

__all__ = ["Cron", "cron_of"]

TEXT_MAX = 300
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_HELP = (
    'write five fields as "0 3 * * *" (minute, hour, day of month, month, day of week), six with the '
    "second before them, or one of @hourly, @daily, @weekly, @monthly, @yearly"
)
_SOME_DAY = datetime(2024, 1, 1)  # noqa: DTZ001 - from where it is tried whether there is a tick at all


@dataclass(frozen=True, slots=True)
class Cron:
    """One expression, judged. Its ticks are whole seconds since 1970.

    Where minute and hour both begin with something else than `*` it ticks once a day for each of its
    times, as Debian's cron does: on the day on which an hour comes twice at the first of them, and on the
    day on which it is left out at the first moment behind it. Else it follows real time: what the clock
    shows twice ticks twice, what it leaves out does not. A second that is a number is added to the ticks
    of the other five fields; one that is a pattern makes all of it follow real time.
    """

    text: str
    """As it was written, with single spaces."""
    fields: str
    """What cronsim is given: without a second that is a number."""
    added: int
    """That number."""
    once_a_day: bool

    def next_after(self, second: int, zone: tzinfo) -> int | None:
        """The first tick after this second; None where there is none within fifty years."""
        after = second - self.added
        try:
            found = self._once(after, zone) if self.once_a_day else self._each(after, zone)
        except (OverflowError, ValueError):  # it is before the year 1, or the year 9999 is over
            return None
        return None if found is None else found + self.added

    def _once(self, after: int, zone: tzinfo) -> int | None:
        for wall in self._walls(after + offset_at(zone, after)):
            moment = first_moment(zone, wall)
            if moment > after:  # else an hour comes for the second time just now
                return moment
        return None

    def _each(self, after: int, zone: tzinfo) -> int | None:
        """By one offset of the zone after the other: within one the wall goes as UTC does."""
        offset, since = offset_at(zone, after), after
        while True:
            wall = next(self._walls(after + offset), None)
            if wall is None:
                return None
            moment = int((wall - wall_of(0)).total_seconds()) - offset
            change = change_between(zone, since, moment)
            if change is None:
                return moment
            offset, since, after = offset_at(zone, change), change, change - 1

    def _walls(self, after: int) -> Iterator[datetime]:
        """What clocks show at its ticks, where no clock is ever changed."""
        return CronSim(self.fields, wall_of(after))

    @property
    def words(self) -> str:
        """In English: `At 03:00 every day`."""
        return CronSim(_spelt(self.text), _SOME_DAY).explain()


def cron_of(value: object) -> Cron:
    """Judge an expression; InvalidOption says what is wrong with it.

    >>> cron_of("0 3 * * MON").words
    'At 03:00 on Monday'
    """
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_MAX:
        raise InvalidOption(f"cron={shown(value)} is no cron expression; {_HELP}")
    text = " ".join(value.split())
    fields = _spelt(text)
    if fields.startswith("@"):
        raise InvalidOption(f"cron={shown(text)} {_why_no_alias(fields)}")
    try:
        walls = CronSim(fields, _SOME_DAY)
    except (CronSimError, ValueError) as error:
        why = str(error)[:1].lower() + str(error)[1:]
        raise InvalidOption(f"cron={shown(text)} is no cron expression ({why}); {_HELP}") from None
    if not list(islice(walls, 1)):
        raise InvalidOption(f"cron={shown(text)} names a day that never comes; {_HELP}")
    return _judged(text, fields.split())


def _judged(text: str, parts: list[str]) -> Cron:
    second = parts.pop(0) if len(parts) == 6 else "0"
    is_pattern = not second.isdigit()
    fixed = not is_pattern and not parts[0].startswith("*") and not parts[1].startswith("*")
    fields = [second, *parts] if is_pattern else parts
    return Cron(text, " ".join(fields), 0 if is_pattern else int(second), fixed)


def _spelt(text: str) -> str:
    return ALIASES.get(text.lower(), text)


def _why_no_alias(alias: str) -> str:
    if alias.lower() == "@reboot":
        return (
            "is no time: what is to be done when a family starts, enqueue it where that is started; "
            + _HELP
        )
    return f"is no word for a time; {_HELP}"
