"""Jobs that wait for longer than they may: too late for any run to begin, or past their deadline."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from jobvisor.jobs.job import Claimed, Special
from jobvisor.jobs.store.refusals import EACH_AT_ONCE, Refusals
from jobvisor.jobs.store.rows import Changed, Row, any_special, with_deadlines

ENDED_AT_ONCE = 500  # rows in one transaction; some milliseconds

EXPIRED = "expired: it expired before a run could begin"
PAST_DEADLINE = "deadline: it was not done by its deadline"


class _Ending(NamedTuple):
    """What is done to those whose time is over."""

    many: str
    """The statement that does it,"""
    one: str
    """to one row by itself, where one of them is refused,"""
    listing: str
    """and which these are."""
    error: str
    verb: str
    kind: str


_EXPIRE = _Ending("expire", "expire_row", "expire_rows", EXPIRED, "cancel", "expired")
_FAIL = _Ending(
    "fail_overdue", "fail_overdue_row", "fail_overdue_rows", PAST_DEADLINE, "fail", "deadline"
)


class Overdue(Refusals):
    """What the caretaker ends because of the time alone; whoever runs a job looks at its time too."""

    def end_overdue(self) -> bool:
        due_ms = self._rows("next_end", {})[0][0]
        if due_ms is None or due_ms > 0:
            return False
        return max(self._end(_EXPIRE), self._end(_FAIL)) >= ENDED_AT_ONCE

    def _with_deadlines(self, jobs: list[Claimed]) -> list[Claimed]:
        """Of claimed jobs that have a deadline the timeout ends there, at the latest."""
        if not any_special(jobs):
            return jobs
        dated = [job.id for job in jobs if job.special & Special.DEADLINE]
        if not dated:
            return jobs
        return with_deadlines(jobs, dict(self._rows("deadlines", {"jobs": json.dumps(dated)})))

    def _end(self, ending: _Ending) -> int:
        asked: dict[str, Any] = {"error": ending.error, "limit": ENDED_AT_ONCE}
        with self.transaction():
            rows: list[Row]
            rows, refused = self._attempted(self._rows, ending.many, asked)
            if refused is not None:
                page = {"limit": EACH_AT_ONCE, **self._but_left()}
                ids = [{"job": row[0]} for row in self._rows(ending.listing, page)]
                rows = [row for _, row in self._each(ending.one, asked, ids)]
            for job, *told in rows:
                changed = Changed._make(told)
                self._moved(ending.verb, job, changed, error=ending.error, kind=ending.kind)
        return len(rows)
