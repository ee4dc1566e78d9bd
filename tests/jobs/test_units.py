"""Durations and sizes."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.units import DURATION_MAX_MS, duration_ms, duration_text, size_bytes, size_text


@given(st.integers(0, DURATION_MAX_MS))
def test_the_text_of_a_duration_reads_back_to_the_same_duration(ms: int) -> None:
    assert duration_ms(duration_text(ms)) == ms


@given(st.integers(0, 10**9))
def test_seconds_mean_the_same_as_number_text_and_timedelta(seconds: int) -> None:
    wanted = seconds * 1_000
    assert duration_ms(seconds) == duration_ms(str(seconds)) == wanted
    assert duration_ms(timedelta(seconds=seconds)) == duration_ms(f"{seconds}s") == wanted


@given(st.floats(min_value=1e-300, max_value=1_000))
def test_a_positive_duration_never_becomes_none(seconds: float) -> None:
    assert duration_ms(seconds) >= 1


@given(st.text())
def test_any_text_is_a_duration_or_an_invalid_option(text: str) -> None:
    with suppress(InvalidOption):  # anything else fails the test
        assert 0 <= duration_ms(text) <= DURATION_MAX_MS


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.5,
        timedelta(seconds=-1),
        math.nan,
        math.inf,
        10**400,
        1e300,
        "1e3",
        "-5s",
        "5 s s",
        "",
        "s",
        "5y",
        "9" * 5_000,
        "99999999999w",
        "\u0665s",
        True,
        None,
        [],
    ],
)
def test_what_is_no_duration_is_refused_with_its_value(value: Any) -> None:
    with pytest.raises(InvalidOption, match="duration"):
        duration_ms(value)


@given(st.integers(0, 2**43), st.sampled_from(["", "B", "K", "KB", "KiB", "kb", " MB", "G", "GiB"]))
def test_a_size_is_a_number_times_its_unit(number: int, unit: str) -> None:
    power = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3}[unit.strip().upper()[:1]]
    if number * 1024**power < 2**63:
        assert size_bytes(f"{number}{unit}") == number * 1024**power


@pytest.mark.parametrize("value", [-1, 2**63, "lots", "5X", "", "-1MB", True, 1.5, None])
def test_what_is_no_size_is_refused_with_its_value(value: Any) -> None:
    with pytest.raises(InvalidOption, match="size"):
        size_bytes(value)


def test_a_size_is_shown_in_its_largest_unit() -> None:
    assert [size_text(n) for n in (0, 1023, 1024, 1536, 2**30)] == [
        "0B",
        "1023B",
        "1KB",
        "1.5KB",
        "1GB",
    ]
