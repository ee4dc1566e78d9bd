"""The one place where tests wait: for a condition, with one shared limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from jobvisor.jobs.clock import SYSTEM

LIMIT = 30.0
STEP = 0.005

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], *, limit: float = LIMIT, what: str = "") -> Value:
    """The first true answer of a condition; an AssertionError that says what was waited for."""
    ends = SYSTEM.monotonic_ns() + int(limit * 1e9)
    while True:
        value = condition()
        if value:
            return value
        if SYSTEM.monotonic_ns() > ends:
            raise AssertionError(f"not within {limit} s: {what or condition}; last: {value!r}")
        SYSTEM.sleep(STEP)
