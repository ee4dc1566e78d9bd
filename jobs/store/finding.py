"""Finding jobs among a million: by an index where one fits, else along the ids, so many at a time."""

from __future__ import annotations

import json
from typing import Any

from jobvisor.jobs.clock import Clock, from_datetime
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.filter import ID_MAX, Filter
from jobvisor.jobs.found import Count, Failures, Group, Page, Tally
from jobvisor.jobs.job import State
from jobvisor.jobs.store.base import PAGE_MAX, Ids
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.rows import Row, job_of, moment_of
from jobvisor.jobs.store.statements import of
from jobvisor.jobs.units import duration_ms

FEW = 5_000  # rows: so many are read and sorted for one page, more are walked along
FIRST_LOOK = 200  # rows of the first window of a walk; a page of a common kind is full by then
LOOKED_AT_ONCE = 8_000  # rows of one statement
LOOKED_MOST = 50_000  # of one page
PATIENCE_NS = 25_000_000  # of one page: what a row costs to be looked at depends on how large it is
KINDS_MOST = 100  # queues and priorities of pending jobs that are looked at for a page,
KINDS_LIMIT = 1_000  # of so many jobs
GROUPS_MOST = 1_000  # of failures, and of queues
LATENCY_OF = 100  # rows of a queue: 0.4 ms, where a million take 190 (measured)
COUNTED_MOST = 50_000  # rows that are counted for all queues together,
FAILED_MOST = 20_000  # or for all groups of failures: on PostgreSQL each of these is looked up


class Finding(Dialect):
    """The verbs that look for jobs. None of them locks anything, or reads a whole table in one statement."""

    def page(self, which: Filter, *, limit: int = 50, before: int | None = None) -> Page:
        limit = _number("limit", limit, 0, PAGE_MAX)
        start = ID_MAX if before is None else _id("before", before)
        wanted = _wanted(which)
        if wanted is None or limit == 0:
            return Page([], None, 0)
        wanted["limit"] = limit
        if which.numbers is not None:
            rows = self._rows("find_these", {**wanted, "before": start})
            return self._full(rows, limit, len(which.numbers))
        rows, after, looked = self._down(wanted, along_of(which), start, FIRST_LOOK)
        if len(rows) < limit and after:
            found = self._by_index(which, wanted, start)
            if found is not None:
                return found
        return self._walked(wanted, which, rows, after, looked)

    def _by_index(self, which: Filter, wanted: dict[str, Any], before: int) -> Page | None:
        """The page from an index that has all that is meant, without a walk; None where there is none."""
        source, limit = source_of(which), wanted["limit"]
        if source is None or source in _LISTED:  # these are walked along by an index
            return None
        if (
            set(which.said()) <= SOURCES["pending_of_queue"]
            and which.states == (State.PENDING,)
            and limit <= KINDS_LIMIT
        ):
            newest = self._newest_pending(wanted, before)
            if newest is not None:
                return newest
        few = self._few(source, wanted)
        if few is None:
            return None
        rows = self._rows(of("find_few", source), {**wanted, "before": before})
        return self._full(rows, limit, few)

    def _newest_pending(self, wanted: dict[str, Any], before: int) -> Page | None:
        kinds = self._rows("pending_kinds", {"queue": wanted["queue"], "limit": KINDS_MOST + 1})
        if len(kinds) > KINDS_MOST or any(turn for _queue, _priority, turn in kinds):
            return None  # in a fair queue the index has no order of ids
        limit = wanted["limit"]
        asked = {"kinds": json.dumps(kinds), "before": before, "limit": limit}
        ids = [row[0] for row in self._rows("newest_pending", asked)]
        # But those that were claimed since then.
        jobs = [job for job in self.get_many(ids).values() if job.state is State.PENDING]
        return Page(jobs, ids[-1] if len(ids) == limit else None, len(ids))

    def _full(self, rows: list[Row], limit: int, looked: int) -> Page:
        """A page behind which there is another one only where it is full."""
        jobs = [job_of(row, self.payload) for row in rows]
        return Page(jobs, jobs[-1].id if len(jobs) == limit else None, looked)

    def _down(
        self, wanted: dict[str, Any], along: str, before: int, rows: int
    ) -> tuple[list[Row], int, int]:
        """What so many rows have; behind which id nobody has looked (0: nothing is left); how many rows."""
        looked, after = self._below(along, wanted, before, rows)
        found = self._rows(of("find", along), {**wanted, "before": before, "after": after})
        return found, after, looked

    def _below(self, along: str, wanted: dict[str, Any], before: int, rows: int) -> tuple[int, int]:
        """How many rows are in a window before an id, and the id before it; 0 where it has the last one."""
        asked = {"state": wanted["state"], "before": before, "after": 0, "most": rows}
        ((number, last),) = self._rows(of("below", along), asked)
        return number, last - 1 if number == rows else 0

    def _walked(
        self, wanted: dict[str, Any], which: Filter, rows: list[Row], after: int, looked: int
    ) -> Page:
        """On from what was found, until there are enough, or so many were looked at, or it has taken long."""
        limit, along = wanted["limit"], along_of(which)
        rows, stride = list(rows), Stride(self.clock)
        while len(rows) < limit and after and looked < LOOKED_MOST and stride.goes_on():
            asked = {**wanted, "limit": limit - len(rows)}
            more, after, at = self._down(asked, along, after + 1, stride.rows)
            rows += more
            looked += at
        jobs = [job_of(row, self.payload) for row in rows]
        if len(jobs) == limit:
            return Page(jobs, jobs[-1].id, looked)
        return Page(jobs, after + 1 if after else None, looked)

    # -- only their ids

    def ids_page(self, which: Filter, *, limit: int, after: int = 0) -> Ids:
        limit = _number("limit", limit, 1, PAGE_MAX)
        wanted = _wanted(which)
        if wanted is None:
            return Ids([], None)
        wanted |= {"limit": limit, "after": _id("after", after), "before": ID_MAX}
        if which.numbers is not None:
            return _full_ids(self._rows("ids_these", wanted), limit)
        source = source_of(which)
        if source is not None and self._few(source, wanted) is not None:
            return _full_ids(self._rows(of("ids_few", source), wanted), limit)
        along = along_of(which)
        ((looked, last),) = self._rows(of("above", along), {**wanted, "most": LOOKED_AT_ONCE})
        if looked == LOOKED_AT_ONCE:
            wanted["before"] = last + 1
        found = [row[0] for row in self._rows(of("ids", along), wanted)]
        if len(found) == limit:
            return Ids(found, found[-1])
        return Ids(found, last if looked == LOOKED_AT_ONCE else None)

    def hold(self, which: Filter) -> list[int]:
        wanted = _wanted(which)
        if wanted is None:
            return []
        wanted |= {"limit": PAGE_MAX, "after": 0, "before": ID_MAX}
        return [row[0] for row in self._rows("hold_these", wanted)]

    def newest_id(self) -> int:
        return int(self._rows("newest_id", {})[0][0] or 0)

    # -- how many

    def count(self, which: Filter, *, most: int = 10_000) -> Count:
        most = _number("most", most, 1, 10_000_000)
        wanted = _wanted(which)
        if wanted is None:
            return Count(0, at_least=False)
        wanted["most"] = most + 1
        if which.numbers is not None:
            everything = {**wanted, "limit": len(which.numbers), "after": 0, "before": ID_MAX}
            return _count(len(self._rows("ids_these", everything)), most)
        source = source_of(which)
        if source is not None:
            if set(which.said()) <= SOURCES[source]:
                return _count(self._rows(of("count_all", source), wanted)[0][0], most)
            if self._few(source, wanted) is not None:
                return _count(self._rows(of("count_few", source), wanted)[0][0], most)
        return self._counted(wanted, along_of(which), most)

    def _counted(self, wanted: dict[str, Any], along: str, most: int) -> Count:
        stride, number, looked, before = Stride(self.clock), 0, 0, ID_MAX
        while stride.goes_on() and looked < LOOKED_MOST:
            at, after = self._below(along, wanted, before, stride.rows)
            window = {**wanted, "before": before, "after": after, "most": most + 1 - number}
            number += self._rows(of("count", along), window)[0][0]
            looked += at
            if number > most or not after:
                return _count(number, most)
            before = after + 1
        return Count(number, at_least=True)

    def _few(self, source: str, wanted: dict[str, Any]) -> int | None:
        """How many rows an index has of these; None where they are many."""
        number = self._rows(of("count_all", source), {**wanted, "most": FEW + 1})[0][0]
        return number if number <= FEW else None

    def tally(self, *, most: int = 2_000) -> Tally:
        most = _number("most", most, 1, 1_000_000)
        queues: dict[str, dict[str, int]] = {}
        more: set[str] = set()
        for state in State:
            counted, at_least = self._tallied(state, most)
            for queue, number in counted:
                queues.setdefault(queue, {})[state.value] = number
            if at_least:
                more.add(state.value)
        return Tally(queues, frozenset(more))

    def _tallied(self, state: State, most: int) -> tuple[list[Row], bool]:
        if state is not State.PENDING:
            counted = self._rows(of("queues", state.value), {"most": most + 1})
            return counted, sum(row[1] for row in counted) > most
        names = self._rows("pending_queues", {"limit": GROUPS_MOST + 1})
        each = max(100, COUNTED_MOST // max(len(names), 1))
        counted = self._rows("pending_counts", {"limit": GROUPS_MOST, "most": each + 1})
        at_least = len(names) > GROUPS_MOST or any(number > each for _queue, number in counted)
        return [(queue, min(number, each)) for queue, number in counted], at_least

    def waiting(self, limit: int) -> dict[str, int]:
        asked = {"most": LATENCY_OF, "limit": limit}
        return {queue: max(0, ms or 0) for queue, ms in self._rows("waiting", asked)}

    # -- failures

    def failures(self, *, since_ms: int | None = None, limit: int = 100) -> Failures:
        limit = _number("limit", limit, 1, GROUPS_MOST)
        found = self._rows("failure_groups", {"limit": GROUPS_MOST + 1})
        since = -(1 << 45) if since_ms is None else since_ms
        recent = [row for row in found[:GROUPS_MOST] if row[2] is not None and row[2] >= since]
        recent.sort(key=lambda row: (-row[2], row[0], row[1]))
        most = FAILED_MOST // max(1, min(len(recent), limit))
        last = {(task, error_type): at for task, error_type, at in recent[:limit]}
        asked = {"groups": json.dumps(list(last)), "from": since, "most": most + 1}
        groups = [
            Group(
                task, error_type, _count(number, most), moment_of(first),
                moment_of(last[task, error_type]), example, None,
            )
            for task, error_type, number, first, example in self._rows("failures", asked)
            if example is not None  # else all of them were requeued meanwhile
        ]  # fmt: skip
        # Those that failed last in one millisecond stand in the same order at each look.
        groups.sort(
            key=lambda g: (-last[g.task, g.error_type], -g.jobs.number, g.task, g.error_type)
        )
        return Failures(
            self._with_messages(groups), at_least=len(found) > GROUPS_MOST or len(recent) > limit
        )

    def _with_messages(self, groups: list[Group]) -> list[Group]:
        jobs = self.get_many(group.example for group in groups)
        return [
            group._replace(message=jobs[group.example].error if group.example in jobs else None)
            for group in groups
        ]


class Stride:
    """How many rows of a walk are looked at next, by the time that those before took; and whether to go on.

    A row of SQLite that has a megabyte of arguments costs a thousand times what a small one does.
    """

    def __init__(self, clock: Clock) -> None:
        self.rows = 0
        self._clock = clock
        self._last = clock.monotonic_ns()
        self._left = PATIENCE_NS

    def goes_on(self) -> bool:
        """Whether there is time for the next rows; call it before each look."""
        now = self._clock.monotonic_ns()
        took, self._last = now - self._last, now
        self._left -= took
        if not self.rows:
            self.rows = FIRST_LOOK
        elif 4 * took < self._left:
            self.rows = min(4 * self.rows, LOOKED_AT_ONCE)
        return took < self._left


#: Where jobs are found by an index of their own: the name of each, and what a Filter may say to be all of it.
SOURCES: dict[str, set[str]] = {
    **{state.value: {"state"} for state in State},
    "pending_of_queue": {"state", "queue"},
    "failed_of_task": {"state", "task"},
    "failed_of_type": {"state", "task", "error_type"},
}


def source_of(which: Filter) -> str | None:
    """The narrowest index that has all that is meant; None where more than one would be needed."""
    if len(which.states) != 1:
        return None
    (state,) = which.states
    if state is State.PENDING and which.queue is not None:
        return "pending_of_queue"
    if state is State.FAILED and len(which.tasks) == 1:
        return "failed_of_task" if which.error_type is None else "failed_of_type"
    return state.value


def along_of(which: Filter) -> str:
    """Along what the rows are walked."""
    return "listed" if len(which.states) == 1 and which.states[0] in _LISTED else "all"


_LISTED = frozenset({State.SCHEDULED, State.BLOCKED, State.FAILED, State.CANCELLED})


def _wanted(which: Filter) -> dict[str, Any] | None:
    """The parameters that a Filter stands for; None where nothing can match: what no database holds."""
    texts = (which.queue, which.error, which.error_type, which.text, *which.tasks)
    if not all(_is_text(text or "") for text in texts):
        return None
    since, since_ago = _moment(which.since)
    until, until_ago = _moment(which.until)
    states, tasks = which.states, which.tasks
    return {
        "states": json.dumps(states) if states else None,
        "state": states[0].value if len(states) == 1 else None,
        "queue": which.queue,
        "tasks": json.dumps(tasks) if tasks else None,
        "task": tasks[0] if len(tasks) == 1 else None,
        "error": which.error,
        "error_type": which.error_type,
        "text": which.text,
        # As it stands in a text of JSON: a quotation mark has a backslash before it there.
        "text_in_json": None
        if which.text is None or not which.in_arguments
        else json.dumps(which.text, ensure_ascii=False)[1:-1],
        "since": since,
        "since_ago": since_ago,
        "until": until,
        "until_ago": until_ago,
        "ids": None if which.numbers is None else json.dumps(which.numbers),
    }


def _moment(value: Any) -> tuple[int | None, int | None]:
    """As a moment, or as so long ago."""
    if value is None:
        return None, None
    if hasattr(value, "utcoffset"):
        return from_datetime(value), None
    return None, duration_ms(value)


def _is_text(text: str) -> bool:
    """Whether a database could hold it: one has no NUL, and no half of a letter."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _number(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(f"{name}={shown(value)} must be a whole number from {low} to {high}")
    return value


def _id(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{name}={shown(value)} is no id of a job, which is a whole number")
    return max(min(value, ID_MAX), 0)


def _count(number: int, most: int) -> Count:
    return Count(min(number, most), at_least=number > most)


def _full_ids(rows: list[Row], limit: int) -> Ids:
    """A page behind which there is another one only where it is full."""
    found = [row[0] for row in rows]
    return Ids(found, found[-1] if len(found) == limit else None)
