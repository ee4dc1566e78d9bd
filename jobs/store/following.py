"""Following what changes: asked for by who wants to show it, told by whoever changes a job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.feed import (
    AT_ONCE,
    BEGUN_BACK,
    FOLLOWED_MOST,
    KEPT,
    KEPT_MS,
    Changes,
    Cursor,
    Late,
    Standing,
    missing,
    ranges,
    still_late,
)
from jobvisor.jobs.store.rows import Row

TRIMMED_AT_ONCE = 1_000  # changes; a few milliseconds


class Following(Dialect):
    """The verbs of the feed, and what a transaction that changed jobs tells before it commits."""

    def follow(self, seconds: float) -> Cursor:
        if not 1 <= seconds <= FOLLOWED_MOST:
            raise InvalidOption(f"seconds={seconds} must be 1 to {FOLLOWED_MOST}")
        with self.transaction():
            self._change("follow_anew", {})
            self._change("follow", {"ms": round(seconds * 1000)})
        return self._present(self._standing())

    def changes(self, after: Cursor, limit: int = AT_ONCE) -> Changes:
        now = self.clock.monotonic_ns()
        standing = self._standing()
        if not standing.fits(after):
            return Changes(self._present(standing), [], is_complete=False)
        old = ranges(after.late_changes, after.change, standing.change, now)
        new = ranges(after.late_jobs, after.job, standing.job, now)
        told = self._within("changed", old, limit)
        made = self._within("enqueued", new, limit)
        if len(told) > limit or len(made) > limit:
            return Changes(self._present(standing), [], is_complete=False)
        cursor = Cursor(
            standing.change,
            standing.job,
            standing.era,
            still_late(missing(old, (row[0] for row in told)), standing, now),
            still_late(missing(new, (row[0] for row in made)), standing, now),
        )
        lists = [row[1] for row in sorted(told)]
        jobs = [job for text in lists if text for job in map(int, text.split(","))]
        jobs += [row[0] for row in made]
        return Changes(cursor, list(dict.fromkeys(jobs)), is_complete=None not in lists)

    def trim_changes(self) -> bool:
        page = {"age": KEPT_MS, "kept": KEPT, "limit": TRIMMED_AT_ONCE}
        with self.transaction():
            return len(self._rows("trim_changes", page)) >= TRIMMED_AT_ONCE

    def _standing(self) -> Standing:
        return Standing._make(self._rows("newest", {})[0])

    def _present(self, standing: Standing) -> Cursor:
        """Behind all that is there; what was drawn just before may still be under way."""
        cursor = Cursor(standing.change, standing.job, standing.era)
        if standing.ended is None:
            return cursor
        return cursor._replace(
            late_changes=self._under_way("changed", standing.change, standing),
            late_jobs=self._under_way("enqueued", standing.job, standing),
        )

    def _under_way(self, name: str, newest: int, standing: Standing) -> tuple[Late, ...]:
        now = self.clock.monotonic_ns()
        last = ranges((), max(newest - BEGUN_BACK, 0), newest, now)
        there = (row[0] for row in self._within(name, last, BEGUN_BACK))
        return still_late(missing(last, there), standing, now)

    def _within(self, name: str, looked: Sequence[Late], limit: int) -> list[Row]:
        """The rows whose number is in one of these ranges; one more than `limit` where there are more."""
        if not looked:
            return []
        pairs = json.dumps([(each.first, each.last) for each in looked])
        return list(self._rows(name, {"ranges": pairs, "limit": limit + 1}))

    # -- of whoever changes jobs

    def _tell_changes(self) -> None:
        """In the transaction that changed them, as its last statement."""
        if self._audience.has_news():
            asked = self.clock.boottime_ns()
            rows = self._rows("tell", {"jobs": self._audience.news()})
            self._heard_of(asked, rows)

    def _heard_of(self, asked_ns: int, rows: Iterable[Row]) -> None:
        self._audience.learn(asked_ns, followed=any(row[0] for row in rows))
