"""What is kept beside the jobs: sums by the minute, who did what, and the tasks that workers have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobvisor.jobs.annals import MINUTE_MS, Action, KnownTask, Sums
from jobvisor.jobs.errors import InvalidOption, StoreUnavailable, shown
from jobvisor.jobs.excerpt import first_part
from jobvisor.jobs.filter import ID_MAX
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.enqueueing import MOVES_MET
from jobvisor.jobs.store.rows import Row, moment_of

DAY_MS = 86_400_000
STATS_KEPT_MS = 90 * DAY_MS
STATS_AT_ONCE = 1_000  # rows that are added, or trimmed, in one statement
STATS_MOST = 100_000  # rows of one answer
QUEUE_MAX = 400  # characters, as the table has it
SUM_MAX = 2**53

ACTIONS_KEPT = 100_000
ACTIONS_MOST = 1_000  # of one answer
WHO_MAX, VERB_MAX, WHAT_MAX = 200, 100, 2_000  # bytes

REQUESTS_KEPT_MS = DAY_MS
REQUESTS_AT_ONCE = 100  # that are trimmed by each new one

TASKS_KEPT = 10_000
TASKS_KEPT_MS = 30 * DAY_MS
TASK_NAME_MAX = 1_600  # bytes
TOLD_MAX = 64 * 1024  # bytes


class Annals(Dialect):
    """The verbs of the tables `stats`, `actions` and `tasks`."""

    def add_stats(self, rows: Iterable[Sums]) -> None:
        merged = merge(rows)
        if len(merged) > STATS_AT_ONCE:
            raise InvalidOption(
                f"{len(merged)} rows of sums are added at once; at most {STATS_AT_ONCE}"
            )
        if merged:
            with self.transaction():
                self._change("add_stats", {"rows": json.dumps(merged)})

    def stats(
        self, from_ms: int, to_ms: int, *, step_ms: int, queue: str | None = None, limit: int
    ) -> list[Sums]:
        asked = _between(from_ms, to_ms, step_ms, limit)
        return [Sums._make(row) for row in self._rows("stats", {**asked, "queue": queue})]

    def stats_of_all(self, from_ms: int, to_ms: int, *, step_ms: int, limit: int) -> list[Sums]:
        asked = _between(from_ms, to_ms, step_ms, limit)
        return [Sums._make(row) for row in self._rows("stats_of_all", asked)]

    def trim_stats(self) -> bool:
        page = {"age": STATS_KEPT_MS, "limit": STATS_AT_ONCE}
        with self.transaction():
            return len(self._rows("trim_stats", page)) >= STATS_AT_ONCE

    def note_action(self, who: str, verb: str, what: str, number: int | None) -> int:
        told = {
            "who": first_part(who, WHO_MAX),
            "verb": first_part(verb, VERB_MAX),
            "what": first_part(what, WHAT_MAX),
            "number": None if number is None else max(min(number, ID_MAX), -ID_MAX),
        }
        with self.transaction():
            noted = int(self._rows("note_action", told)[0][0])
            self._change("trim_actions", {"kept": ACTIONS_KEPT})
        return noted

    def grow_action(self, action: int, more: int) -> None:
        self._change("grow_action", {"id": action, "more": more})

    def actions(self, *, limit: int = 50, before: int | None = None) -> list[Action]:
        asked = {
            "limit": max(0, min(limit, ACTIONS_MOST)),
            "before": ID_MAX if before is None else max(0, min(before, ID_MAX)),
        }
        return [_action(row) for row in self._rows("actions", asked)]

    def note_request(self, key: str, digest: str) -> tuple[str, list[int]] | None:
        with self.transaction():
            page = {"key": key, "age": REQUESTS_KEPT_MS, "limit": REQUESTS_AT_ONCE}
            self._change("trim_requests", page)
            for _ in range(MOVES_MET):
                if self._rows("note_request", {"key": key, "digest": digest}):
                    return None
                for first, jobs in self._rows("request", {"key": key}):
                    return first, _numbers(jobs)
                # It became too old, and somebody else removed it between the two statements.
        raise StoreUnavailable(
            f"the key of this request was taken and freed {MOVES_MET} times meanwhile; try again"
        )

    def answer_request(self, key: str, jobs: Iterable[int]) -> None:
        with self.transaction():
            self._change("answer_request", {"key": key, "jobs": json.dumps(list(jobs))})

    def note_tasks(self, tasks: Mapping[str, str]) -> None:
        rows = sorted((first_part(name, TASK_NAME_MAX), told) for name, told in tasks.items())
        for name, told in rows:
            if len(told.encode()) > TOLD_MAX:
                raise InvalidOption(
                    f"what is told of the task {shown(name)} is above {TOLD_MAX} bytes"
                )
        with self.transaction():
            self._change("note_tasks", {"rows": json.dumps(list(dict(rows).items()))})
            self._change("trim_tasks", {"age": TASKS_KEPT_MS, "kept": TASKS_KEPT})

    def tasks(self, *, limit: int = 1_000, after: str = "") -> list[KnownTask]:
        asked = {"limit": max(0, min(limit, TASKS_KEPT)), "after_name": after}
        return [_task(row) for row in self._rows("tasks", asked)]

    def known_task(self, name: str) -> KnownTask | None:
        rows = self._rows("known_task", {"name": name})
        return _task(rows[0]) if rows else None


def merge(rows: Iterable[Sums]) -> list[tuple[Any, ...]]:
    """One row for each minute and queue, in the order of the columns; each number within its bounds.

    >>> merge([Sums(61_000, "a", succeeded=2), Sums(60_000, "a", succeeded=1, depth=3)])
    [(60000, 'a', 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, None)]
    """
    found: dict[tuple[int, str], list[Any]] = {}
    for row in rows:
        minute = row.at_ms // MINUTE_MS * MINUTE_MS
        queue = first_part(row.queue, QUEUE_MAX)
        known = found.setdefault((minute, queue), [0] * 9 + [None, None])
        for place, value in enumerate(row[2:]):
            known[place] = _merged(place, known[place], value)
    return [(*key, *found[key]) for key in sorted(found)]


def _merged(place: int, known: int | None, value: int | None) -> int | None:
    """A sum, or of the last three the greatest."""
    if known is None or value is None:
        both = value if known is None else known
    else:
        both = known + value if place < _GREATEST else max(known, value)
    return both if both is None else max(0, min(both, SUM_MAX))


_GREATEST = Sums._fields.index("wait_max_ms") - 2


def _between(from_ms: int, to_ms: int, step_ms: int, limit: int) -> dict[str, int]:
    step = max(MINUTE_MS, step_ms // MINUTE_MS * MINUTE_MS)
    return {"from": from_ms, "to": to_ms, "step": step, "limit": max(0, min(limit, STATS_MOST))}


def _action(row: Row) -> Action:
    number, at, *told = row
    return Action(number, moment_of(at), *told)


def _task(row: Row) -> KnownTask:
    name, told, seen_at = row
    return KnownTask(name, _told(told), moment_of(seen_at))


def _numbers(text: str) -> list[int]:
    """A stranger may have written anything there."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, int)] if isinstance(found, list) else []


def _told(text: str) -> Mapping[str, Any]:
    """A stranger may have written anything there; that must not hide the others."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
