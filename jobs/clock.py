"""The only place that reads time or sleeps.

Everything else takes a Clock as an argument, so a test can bring its own. Three times exist,
because they answer three questions: what o'clock is it (`now_ms`, may jump), how long did it take
(`monotonic_ns`), and how long did it take while the machine may have slept (`boottime_ns`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from jobvisor.jobs.errors import InvalidOption

SECOND = 1_000_000_000  # in the unit of all that is measured

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# Linux counts suspended time only here; macOS has no such clock, there the lease may outlive a
# suspend.
_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        """UTC in milliseconds since 1970. It jumps when somebody sets the clock."""
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back, the same for all processes; a suspend does not count."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def boottime_ns(self) -> int:
        """Nanoseconds that never go back and count a suspend, where there is such a clock."""
        return time.clock_gettime_ns(_BOOTTIME)

    def process_ns(self) -> int:
        """CPU time of this process, all its threads together; what its children used does not count."""
        return time.process_time_ns()

    def thread_ns(self) -> int:
        """CPU time of this thread."""
        return time.thread_time_ns()

    def sleep(self, seconds: float) -> None:
        """Do nothing for this long; 0 or less returns at once."""
        if seconds > 0:
            time.sleep(seconds)


SYSTEM = Clock()


def process_ns_of(pid: int) -> int | None:
    """The same of another process, also of one that has ended and is not reaped; None where nobody tells."""
    try:
        # Linux: the clock of a process has a number made of its pid (clock_getcpuclockid(3)).
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return None


def to_datetime(ms: int) -> datetime:
    """UTC milliseconds as an aware datetime.

    >>> to_datetime(1_500)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=datetime.timezone.utc)
    """
    try:
        return _EPOCH + ms * _MILLISECOND
    except OverflowError as error:
        raise InvalidOption(f"{ms} ms since 1970 is outside the years 1 to 9999") from error


def iso(moment: datetime) -> str:
    """A moment as text, for JSON, the log and people: ISO 8601 in UTC, to the millisecond.

    >>> iso(to_datetime(1_500))
    '1970-01-01T00:00:01.500Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_datetime(moment: datetime) -> int:
    """An aware datetime as UTC milliseconds; a naive one could mean any of many moments: refused.

    >>> from_datetime(to_datetime(1_500))
    1500
    """
    if moment.utcoffset() is None:
        raise InvalidOption(
            f"{moment.isoformat()} has no timezone: "
            f"write datetime(..., tzinfo=UTC) or datetime.now(UTC) + timedelta(...)"
        )
    return (moment - _EPOCH) // _MILLISECOND
