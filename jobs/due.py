"""When a job that waits is to be due: at a moment, in so long, or now."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.clock import from_datetime, iso, to_datetime
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.units import duration_ms, duration_text

__all__ = ["NOW", "Due"]


class Due(NamedTuple):
    """A moment, or so long from when the database is told of it.

    >>> str(Due.of()), str(Due.of(run_in="90s")), str(Due.read("2027-01-31T08:00+01:00"))
    ('now', 'in 1m30s', 'at 2027-01-31T07:00:00.000Z')
    """

    at_ms: int | None = None
    """UTC milliseconds; None: from now."""
    in_ms: int = 0

    @classmethod
    def of(cls, *, run_in: Any = None, run_at: Any = None) -> Due:
        """As options say it; without either it is now."""
        if run_in is not None and run_at is not None:
            raise InvalidOption("run_in and run_at both say when; give one of them")
        if run_at is not None:
            if not isinstance(run_at, datetime):
                raise InvalidOption(f"run_at={shown(run_at)} must be a datetime with a timezone")
            return cls(at_ms=_judged("run_at", from_datetime, run_at))
        return NOW if run_in is None else cls(in_ms=_judged("run_in", duration_ms, run_in))

    @classmethod
    def read(cls, text: str) -> Due:
        """As a person writes it in one field: `now`, `1h30m`, or `2027-01-31T08:00Z`."""
        said = text.strip()
        if said.lower() == "now":
            return NOW
        if not re.match(r"[0-9]{4}-", said):
            try:
                return cls(in_ms=duration_ms(said))
            except InvalidOption:
                raise InvalidOption(
                    f"{shown(said)} is no time: write now, in how long (1h30m), or 2027-01-31T08:00Z"
                ) from None
        return cls(at_ms=from_datetime(_moment(said)))

    def options(self) -> dict[str, Any]:
        """As options say it: what `of` takes."""
        if self.at_ms is not None:
            return {"run_at": to_datetime(self.at_ms)}
        return {"run_in": self.in_ms / 1000}

    def __str__(self) -> str:
        """`now`, `in 1m30s`, or `at 2027-01-31T07:00:00.000Z`."""
        if self.at_ms is not None:
            return f"at {iso(to_datetime(self.at_ms))}"
        return f"in {duration_text(self.in_ms)}" if self.in_ms else "now"


NOW = Due()


def _judged(option: str, judge: Any, value: Any) -> int:
    try:
        return int(judge(value))
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def _moment(said: str) -> datetime:
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise InvalidOption(
            f"{shown(said)} is no time; write 2027-01-31T08:00+01:00 or 2027-01-31T07:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise InvalidOption(f"{shown(said)} has no timezone; add one, such as Z or +01:00")
    return moment
