"""Many rows in one statement: a row costs SQLite half of what a statement for each costs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from jobvisor.jobs.job import NewJob
from jobvisor.jobs.store.base import Record

INSERTED = 100  # new jobs in one statement; more gain nothing (measured)
SETTLED = 50  # ended jobs: a worker connects, and so prepares its statements, anew for each turn

_VALUES = re.compile(r"(?<=VALUES )\([^)]*\)")


@cache
def repeated(statement: str, rows: int) -> str:
    """The statement with its row of values so many times, and every parameter by its place.

    >>> repeated("INSERT INTO t (a, b) VALUES (:a, :b)", 2)
    'INSERT INTO t (a, b) VALUES (?, ?), (?, ?)'
    """
    many = _VALUES.sub(lambda row: ", ".join([row[0]] * rows), statement)
    return re.sub(r":\w+", "?", many)


def new_rows(rows: Iterable[tuple[int | None, NewJob]], now: int) -> list[Any]:
    """The values of the statements that enqueue, for these jobs under these ids (None: the next one)."""
    found: list[Any] = []
    for number, job in rows:
        (
            task, args, kwargs, queue, priority, run_at, run_in, attempts_max, policy, timeout_ms,
            memory_bytes, unique_key, expires_in, headers, parent,
        ) = job  # fmt: skip
        due = (now if run_at is None else run_at) + run_in
        found += (
            number, task, args, kwargs, queue, priority, "scheduled" if due > now else "pending",
            due, attempts_max, policy, timeout_ms, memory_bytes, unique_key,
            None if expires_in is None else due + expires_in, headers, parent, now,
        )  # fmt: skip
    return found


def ended_rows(records: Iterable[Record], now: int) -> list[Any]:
    """What the statement `succeed_many` takes for these records."""
    found: list[Any] = [now, now]
    for record in records:
        result = record.body.decode("utf-8") if record.body else None
        found += (
            record.job, record.owner, record.claim, result, record.age_ms, record.duration_ms,
            record.cpu_ms, record.rss_bytes,
        )  # fmt: skip
    return found
