"""Many new jobs in one INSERT: a row costs SQLite half of what a statement for each costs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from jobvisor.jobs.job import NewJob

ROWS = 100  # in one statement; more gain nothing (measured)

_VALUES = re.compile(r"(?<=VALUES )\([^)]*\)")


@cache
def repeated(statement: str, rows: int) -> str:
    """The statement with its row of values so many times, by position.

    >>> repeated("INSERT INTO t (a, b) VALUES (:a, :b)", 2)
    'INSERT INTO t (a, b) VALUES (?, ?), (?, ?)'
    """
    return _VALUES.sub(lambda row: ", ".join([re.sub(r":\w+", "?", row[0])] * rows), statement)


def values(rows: Iterable[tuple[int, NewJob]], now: int) -> list[Any]:
    """What the statement `enqueue_many` takes for these jobs under these ids."""
    found: list[Any] = []
    for number, job in rows:
        (
            task, args, kwargs, queue, priority, run_at, run_in, attempts_max, policy, timeout_ms,
            memory_bytes, unique_key, expires_in,
        ) = job  # fmt: skip
        due = (now if run_at is None else run_at) + run_in
        found += (
            number, task, args, kwargs, queue, priority, "scheduled" if due > now else "pending",
            due, attempts_max, policy, timeout_ms, memory_bytes, unique_key,
            None if expires_in is None else due + expires_in, now,
        )  # fmt: skip
    return found
