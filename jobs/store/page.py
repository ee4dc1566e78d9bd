"""Many rows in one statement: a row costs SQLite half of what a statement for each costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from jobvisor.jobs.job import NewJob, Terms
from jobvisor.jobs.store.base import Record
from jobvisor.jobs.store.rows import Stored

INSERTED = 100  # new jobs in one statement; more gain nothing (measured)
SETTLED = 50  # ended jobs: a worker connects, and so prepares its statements, anew for each turn
NEVER = -62_135_596_800_001  # a moment before those that a row may have

_STATE, _DUE, _EXPIRES = 6, 7, 13  # where they stand among the values of a new row
_NO_TERMS = Terms()
_whose = itemgetter(Record._fields.index("owner"), Record._fields.index("claim"))

_VALUES = re.compile(r"(?<=VALUES )\((?:[^()]|\([^()]*\))*\)")


@cache
def repeated(statement: str, rows: int) -> str:
    """The statement with its row of values so many times, and every parameter by its place.

    >>> repeated("INSERT INTO t (a, b) VALUES (:a, :b)", 2)
    'INSERT INTO t (a, b) VALUES (?, ?), (?, ?)'
    """
    many = _VALUES.sub(lambda row: ", ".join([row[0]] * rows), statement)
    return re.sub(r":\w+", "?", many)


def new_rows(rows: Iterable[tuple[int, NewJob]], now: int) -> list[Any]:
    """The values of the statements that enqueue, for these jobs under these ids (0: the next one)."""
    found: list[Any] = []
    for number, job in rows:
        (
            task, args, kwargs, queue, priority, run_at, run_in, attempts_max, policy, timeout_ms,
            memory_bytes, unique_key, expires_in, headers, parent, _terms,
        ) = job  # fmt: skip
        due = (now if run_at is None else run_at) + run_in
        found += (
            number, task, args, kwargs, queue, priority, "scheduled" if due > now else "pending",
            due, attempts_max, policy or "", timeout_ms, memory_bytes, unique_key or "",
            NEVER if expires_in is None else due + expires_in, headers or "", parent or 0, now,
        )  # fmt: skip
    return found


def rows_on_terms(rows: Iterable[tuple[int, NewJob]], now: int) -> list[Any]:
    """The values of the statements that enqueue jobs of which some are on terms."""
    found: list[Any] = []
    for number, job in rows:
        terms = job.terms or _NO_TERMS
        row = new_rows([(number, job)], now)
        due = row[_DUE]
        if terms.expires_at_ms is not None:
            row[_EXPIRES] = terms.expires_at_ms
        deadline = terms.deadline_at_ms
        if deadline is None:
            deadline = NEVER if terms.deadline_in_ms is None else due + terms.deadline_in_ms
        found += row
        found += (
            terms.special, terms.limit_key or "", terms.share or "", terms.weight or 0,
            -1 if terms.debounce_ms is None else terms.debounce_ms, deadline,
            terms.keep or "",
        )  # fmt: skip
    return found


def stored_of(row: list[Any], now: int) -> Stored:
    """What is known of a job that was stored by these values."""
    expires = row[_EXPIRES]
    return Stored(row[_STATE], row[_DUE], now, None if expires == NEVER else expires)


def by_claim(records: list[Record]) -> list[list[Record]]:
    """The records of each claim by themselves; those of one turn are mostly of one."""
    if len(set(map(_whose, records))) == 1:
        return [records]
    found: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        found.setdefault((record.owner, record.claim), []).append(record)
    return list(found.values())


def ended_rows(records: Sequence[Record], now: int) -> list[Any]:
    """What the statement `succeed_many` takes for these records, which are of one claim."""
    found: list[Any] = [now, now]
    for record in records:
        (
            _owner, _claim, job, _attempt, _verb, age_ms, duration_ms, _delay, body, _progress, cpu_ms,
            rss_bytes, _said,
        ) = record  # fmt: skip
        found += (
            job, body.decode(), age_ms, duration_ms, -1 if cpu_ms is None else cpu_ms,
            -1 if rss_bytes is None else rss_bytes,
        )  # fmt: skip
    found += (records[0].owner, records[0].claim)
    return found
