"""Many ordinary new jobs as a stream of rows: half the work of an INSERT, for the server and for us."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import psycopg

from jobvisor.jobs.job import NewJob

#: In the order of the columns that the statement `copy` names, after the id.
_COLUMNS = attrgetter(
    "task", "args", "kwargs", "queue", "priority", "attempts_max", "policy", "timeout_ms",
    "memory_bytes", "headers", "parent",
)  # fmt: skip


def is_ordinary(job: NewJob) -> bool:
    """Whether the table's defaults say the rest: due now, for ever, with no key that another may hold."""
    return (
        job.unique_key is None
        and job.run_at_ms is None
        and job.run_in_ms <= 0
        and job.expires_in_ms is None
        and job.terms is None
    )


def copy(cursor: psycopg.Cursor[Any], statement: bytes, rows: Iterable[tuple[int, NewJob]]) -> int:
    """Send the rows while the server stores those before them; how many it stored."""
    with cursor.copy(statement) as stream:
        for number, job in rows:
            stream.write_row((number, *_COLUMNS(job)))
    return cursor.rowcount
