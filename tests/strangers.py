"""What strangers may write into the table of jobs with plain SQL: extreme values for every column."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

MOST, LEAST = 2**63 - 1, -(2**63)
REFUSALS = (sqlite3.Error, psycopg.Error)

#: Whole numbers of every size, where a column takes numbers.
NUMBERS = (MOST, LEAST, -1, 0, 2**62, 2**53, 2**31, 1_000_000_000)
MOMENTS = (MOST, LEAST, -1, 1_700_000_000_000_000, 1_700_000_000_000_000_000, 253_402_300_799_999)
DATES = (
    "infinity",
    "-infinity",
    "9999-12-31T23:59:59.9999Z",
    "0001-01-01Z",
    "4713-01-01 BC",
    "294276-01-01",
)
JSON = (
    "null", "1", "{}", "[", "", "[1e999]", "[NaN]", f"[{'1' * 5_000}]", "[" * 500 + "]" * 500,
    "[" * 50_000 + "]" * 50_000, '[{"$datetime": 5}]', '[{"$nobody": 1}]', '[{"$dataclass": []}]',
    '{"$codec": "x"}', '["\\u0000"]', '["\\ud800"]', '{"a": 1, "a": 2}',
)  # fmt: skip
TEXTS = ("", "a\0b", "\x1b[31m\u2028\u202e", "x" * 100_000, "*", " ")

EXTREMES: dict[str, tuple[Any, ...]] = {
    # No id is left behind the greatest there is; one below is somebody's choice.
    "id": (MOST, LEAST, -1, 0, 2**61, 2**53),
    "task": TEXTS,
    "args": JSON,
    "kwargs": JSON,
    "queue": TEXTS,
    "priority": NUMBERS,
    "run_at": MOMENTS,
    "attempt": NUMBERS,
    "attempts_max": NUMBERS,
    "claims": NUMBERS,
    "losses": NUMBERS,
    "policy": (*JSON, '{"kind": "fixed", "delay": 1e999}', '{"kind": "exponential"}'),
    "timeout_ms": NUMBERS,
    "memory_bytes": NUMBERS,
    "unique_key": TEXTS,
    "expires_at": MOMENTS,
    "deferred": TEXTS,
    "cancel_requested": (2, -1, MOST),
    "owner": (None, *NUMBERS),
    "claim": (None, *NUMBERS),
    "created_at": MOMENTS,
    "claimed_at": MOMENTS,
    "started_at": MOMENTS,
    "finished_at": (None, *MOMENTS),
    "result": JSON,
    "error": TEXTS,
    "progress": JSON,
    "headers": (*JSON, '{"trace": "\\ud800"}', '{"trace": 1e999}', '{"trace": {"deep": null}}'),
    "parent": NUMBERS,
    "company": NUMBERS,
    "cpu_ms": NUMBERS,
    "rss_bytes": NUMBERS,
    "special": NUMBERS,
    "turn": NUMBERS,
    "limit_key": TEXTS,
    "share": TEXTS,
    "weight": NUMBERS,
    "parked": TEXTS,
    "limit_place": NUMBERS,
    "debounce_ms": NUMBERS,
    "deadline_at": MOMENTS,
    "keep": (
        *JSON,
        '{"failed": 9999999999999}',
        '{"failed": -1}',
        '{"failed": 1e999}',
        '{"failed": {}}',
    ),
}
STATES = ("pending", "scheduled", "running", "blocked", "failed", "succeeded")


def written(
    sql: Callable[..., Any], column: str, states: Sequence[str], *, dates: bool, task: str = "app:f"
) -> int:
    """Write each extreme value of a column in a row of each state; how many the database let in.

    `dates`: this database has a type of its own for moments.
    """
    values = EXTREMES[column]
    if dates and values[-1] == MOMENTS[-1]:
        values = DATES
    if column == "unique_key":
        states = states[:1]
    return sum(_write(sql, column, value, state, task) for value in values for state in states)


def _write(sql: Callable[..., Any], column: str, value: Any, state: str, task: str) -> bool:
    try:
        if column == "task":
            sql("INSERT INTO jobs (state, task) VALUES (?, ?)", state, value)
        else:
            sql(f"INSERT INTO jobs (task, state, {column}) VALUES (?, ?, ?)", task, state, value)
    except (*REFUSALS, OverflowError, UnicodeError):  # the last two: the driver cannot even say it
        return False
    return True
