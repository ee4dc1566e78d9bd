"""Jobs that wait for longer than they may: too late for any run to begin, or past their deadline."""

from __future__ import annotations

import json
from typing import Any

from jobvisor.jobs.job import Claimed, Special
from jobvisor.jobs.store.refusals import EACH_AT_ONCE, Refusals
from jobvisor.jobs.store.rows import Changed, Row, with_deadlines

ENDED_AT_ONCE = 500  # rows in one transaction; some milliseconds

EXPIRED = "expired: it expired before a run could begin"
PAST_DEADLINE = "deadline: it was not done by its deadline"


class Overdue(Refusals):
    """What the caretaker ends because of the time alone; whoever runs a job looks at its time too."""

    def end_overdue(self) -> bool:
        due_ms = self._rows("next_end", {})[0][0]
        if due_ms is None or due_ms > 0:
            return False
        expired = self._end("expire", "expired_rows", EXPIRED, "cancel", "expired")
        failed = self._end("fail_overdue", "overdue_rows", PAST_DEADLINE, "fail", "deadline")
        return max(expired, failed) >= ENDED_AT_ONCE

    def _with_deadlines(self, jobs: list[Claimed]) -> list[Claimed]:
        """Of claimed jobs that have a deadline the timeout ends there, at the latest."""
        dated = [job.id for job in jobs if job.special & Special.DEADLINE]
        if not dated:
            return jobs
        return with_deadlines(jobs, dict(self._rows("deadlines", {"jobs": json.dumps(dated)})))

    def _end(self, statement: str, listing: str, error: str, verb: str, kind: str) -> int:
        asked: dict[str, Any] = {"error": error, "limit": ENDED_AT_ONCE, "job": None}
        with self.transaction():
            rows: list[Row]
            rows, refused = self._attempted(self._rows, statement, asked)
            if refused is not None:
                page = {"limit": EACH_AT_ONCE, **self._but_left()}
                ids = [{"job": row[0]} for row in self._rows(listing, page)]
                rows = [row for _, row in self._each(statement, asked, ids)]
            for job, *told in rows:
                self._moved(verb, job, Changed._make(told), error=error, kind=kind)
        return len(rows)
