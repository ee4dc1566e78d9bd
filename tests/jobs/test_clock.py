"""Clocks and moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobvisor.jobs.clock import SYSTEM, from_datetime, to_datetime
from jobvisor.jobs.errors import InvalidOption


def test_monotonic_and_boottime_never_go_back() -> None:
    for read in (SYSTEM.monotonic_ns, SYSTEM.boottime_ns):
        first = read()
        assert first <= read()


def test_sleeping_for_no_time_or_less_returns_at_once() -> None:
    SYSTEM.sleep(0)
    SYSTEM.sleep(-1)


def test_a_moment_of_another_zone_is_the_same_milliseconds() -> None:
    berlin = timezone(timedelta(hours=1))
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert from_datetime(moment.astimezone(berlin)) == from_datetime(moment)
    assert to_datetime(from_datetime(moment)) == moment


def test_a_moment_before_1970_survives_the_round_trip() -> None:
    moment = datetime(1901, 2, 3, 4, 5, 6, 7_000, tzinfo=UTC)
    assert to_datetime(from_datetime(moment)) == moment


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(InvalidOption, match="timezone"):
        from_datetime(datetime(2026, 11, 22))  # noqa: DTZ001 -- what is refused


@pytest.mark.parametrize("ms", [10**15, -(10**15), 10**30])
def test_milliseconds_outside_the_calendar_are_refused(ms: int) -> None:
    with pytest.raises(InvalidOption, match="outside"):
        to_datetime(ms)
