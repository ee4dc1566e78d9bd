"""The tables `schedules` and `ticks`: what is to be enqueued when, and for which moments that was done."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jobvisor.jobs.errors import ScheduleNotFound, ScheduleTaken
from jobvisor.jobs.schedule import (
    ADDED,
    CODE,
    CONFIG,
    Declared,
    Plan,
    ScheduleRow,
    Seen,
    Upcoming,
)
from jobvisor.jobs.store.base import Imported
from jobvisor.jobs.store.dialect import Dialect

SCHEDULES_MOST = 10_000  # of one answer
TICKS_KEPT_MS = 35 * 86_400_000
TICKS_KEPT = 100_000  # of one schedule
TICKS_AT_ONCE = 1_000  # that are trimmed in one statement


class Schedules(Dialect):
    """Their verbs. Rows are locked in the order of their names; who ticks passes over locked ones."""

    def has_schedules(self) -> bool:
        return bool(self._rows("has_schedules", {})[0][0])

    def schedules(self, *, limit: int = 1_000, after: str = "") -> list[Seen]:
        page = {"limit": max(0, min(limit, SCHEDULES_MOST)), "after_name": after}
        return [_seen(row) for row in self._rows("schedules", page)]

    def upcoming_schedules(self, *, limit: int = 1_000, after: str = "") -> list[Upcoming]:
        page = {"limit": max(0, min(limit, SCHEDULES_MOST)), "after_name": after}
        return [Upcoming._make(row) for row in self._rows("upcoming", page)]

    def schedule(self, name: str) -> Seen:
        rows = self._rows("schedule", {"name": name})
        if not rows:
            raise ScheduleNotFound(f"there is no schedule {name!r}")
        return _seen(rows[0])

    def hold_schedule(self, name: str) -> Seen | None:
        rows = self._rows("hold_schedule", {"name": name})
        return _seen(rows[0]) if rows else None

    def declare_schedules(
        self, source: str, family: str, by: int, plans: Iterable[Plan]
    ) -> Declared:
        told = Declared([], [], {})
        with self._alone_with_schedules():
            living = {row.id for row in self.families() if not row.died} - {by}
            before = self._rows("schedules_of", {"source": source, "family_name": family})
            known = {seen.row.name: seen.row for seen in map(_seen, before)}
            named = {plan.name: plan for plan in plans}
            for name, wanted in sorted(named.items()):
                row = known.get(name) or self._other(name)
                plan = _with_known_keys(wanted, row)
                holder = _holder(row, source, family, by, living)
                if holder is not None:
                    told.refused[name] = holder
                    continue
                of_this = row is not None and (row.source, row.family) == (source, family)
                declarers = _declarers(row, living) if row is not None and of_this else set()
                self._store_plan(plan, source, family, {*declarers, by})
                if row is None or not of_this or _differs(row, plan):
                    told.changed.append(name)
            for name in sorted(known.keys() - named.keys()):
                declarers = _declarers(known[name], living)
                if declarers:
                    declared_by = _told(declarers)
                    self._change("redeclare_schedule", {"name": name, "declared_by": declared_by})
                else:
                    self._change("remove_schedule", {"name": name})
                    told.removed.append(name)
        return told

    def sweep_schedules(self, source: str, family: str, by: int) -> list[str]:
        living = {row.id for row in self.families() if not row.died} | {by}
        removed: list[str] = []
        of = {"source": source, "family_name": family}
        # Looked at without a lock first: there is seldom one, and who ticks passes over those that are held.
        if all(_living_of(told, living) for (told,) in self._rows("declared_by", of)):
            return removed
        with self._alone_with_schedules():
            living = {row.id for row in self.families() if not row.died} | {by}
            of_family = self._rows("schedules_of", of)
            for row in (seen.row for seen in map(_seen, of_family)):
                if not _declarers(row, living):
                    self._change("remove_schedule", {"name": row.name})
                    removed.append(row.name)
        return removed

    @contextmanager
    def _alone_with_schedules(self) -> Iterator[None]:
        """A transaction that one at a time is in of those who declare, add, sweep and remove.

        A name that is not there yet has no row to hold; and which families live is asked when nobody
        else can declare any more, or one that has just done so would count as gone.
        """
        with self.transaction():
            self._rows("hold_schedules", {})
            yield

    def _other(self, name: str) -> ScheduleRow | None:
        """Of another source; held, so that it stays what it is."""
        rows = self._rows("lock_schedule", {"name": name})
        return _seen(rows[0]).row if rows else None

    def _store_plan(
        self, plan: Plan, source: str, family: str | None, declarers: Collection[int]
    ) -> None:
        values = plan._asdict() | {
            "paused": int(plan.paused),
            "source": source,
            "family_name": family,
            "declared_by": _told(declarers),
        }
        self._change("store_schedule", values)

    def add_schedule(self, plan: Plan, *, replace: bool = False) -> None:
        with self._alone_with_schedules():
            row = self._other(plan.name)
            if row is not None and row.source != ADDED:
                raise ScheduleTaken(
                    f"the schedule {plan.name!r} is declared {_where(row)}; give this one another name"
                )
            if row is not None and not replace:
                raise ScheduleTaken(
                    f"there is a schedule {plan.name!r}; replace changes it, or give another name"
                )
            self._store_plan(plan._replace(paused=False), ADDED, None, ())
            if plan.paused:
                self._change("pause_schedule", {"name": plan.name})

    def remove_schedule(self, name: str) -> None:
        with self._alone_with_schedules():
            row = self._other(name)
            if row is None:
                raise ScheduleNotFound(f"there is no schedule {name!r}")
            living = {family.id for family in self.families() if not family.died}
            if row.source != ADDED and _declarers(row, living):
                raise ScheduleTaken(
                    f"the schedule {name!r} is declared {_where(row)}, so it would come again: remove it "
                    "there, or pause it"
                )
            self._change("remove_schedule", {"name": name})

    def pause_schedule(self, name: str) -> bool:
        return self._switch("pause_schedule", name)

    def resume_schedule(self, name: str) -> bool:
        return self._switch("resume_schedule", name)

    def _switch(self, verb: str, name: str) -> bool:
        with self.transaction():
            self.schedule(name)
            return bool(self._change(verb, {"name": name}))

    def move_schedule(self, name: str, last_tick: int, last_job: int | None = None) -> None:
        moved = {"name": name, "last_tick": last_tick, "last_job": last_job}
        with self.transaction():
            self._change("move_schedule", moved)

    def looked_after(self, schedule: str, until_ms: int) -> int | None:
        rows = self._rows("looked_after", {"schedule": schedule, "until": until_ms})
        return rows[0][0] if rows else None

    def has_tick(self, schedule: str, tick: int) -> bool:
        return bool(self._rows("has_tick", {"schedule": schedule, "tick": tick}))

    def add_tick(self, schedule: str, tick: int, job: int) -> None:
        with self.transaction():
            self._change("add_tick", {"schedule": schedule, "tick": tick, "job": job})

    def trim_ticks(self) -> bool:
        """Along the names, since a schedule may be gone, and its ticks not."""
        page = {"age": TICKS_KEPT_MS, "kept": TICKS_KEPT, "limit": TICKS_AT_ONCE}
        with self.transaction():
            return self._change("trim_ticks", page) >= TICKS_AT_ONCE

    def import_schedules(self, rows: Iterable[ScheduleRow]) -> Imported:
        added = known = 0
        with self.transaction():
            for row in sorted(rows):
                values = {**row._asdict(), "declared_by": "[]", "family_name": row.family}
                changed = self._change("import_schedule", values)
                added, known = added + changed, known + (not changed)
        return Imported(added, known)


def _seen(columns: tuple[Any, ...]) -> Seen:
    now_ms, made_ms, *row = columns
    return Seen(now_ms, made_ms, ScheduleRow._make(row))


def _declarers(row: ScheduleRow, living: Collection[int]) -> set[int]:
    return _living_of(row.declared_by, living)


def _living_of(declared_by: str, living: Collection[int]) -> set[int]:
    """The living families that declare it; a stranger may have written anything there."""
    try:
        found = json.loads(declared_by)
        return {int(each) for each in found} & set(living)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return set()


def _told(families: Collection[int]) -> str:
    return json.dumps([str(each) for each in sorted(families)])


def _holder(
    row: ScheduleRow | None, source: str, family: str, by: int, living: Collection[int]
) -> str | None:
    """Who keeps this name from being declared by this source; None where nobody does."""
    if row is None or (row.source, row.family) == (source, family):
        return None
    if row.source == ADDED:
        return _where(row)
    if row.family == family:
        # What the configuration says of a task that has a schedule in its code, counts.
        is_theirs = (row.source, source) == (CONFIG, CODE) and _declarers(row, {*living, by})
        return _where(row) if is_theirs else None
    return _where(row) if _declarers(row, living) else None


def _where(row: ScheduleRow) -> str:
    if row.source == ADDED:
        return "at run time"
    by = "in the configuration" if row.source == CONFIG else "in the code"
    return f"{by} of family {row.family}"


def _with_known_keys(plan: Plan, row: ScheduleRow | None) -> Plan:
    """Of the same call a worker may know more keys than who declares it without the code."""
    if row is None or (row.task, row.args, row.kwargs) != (plan.task, plan.args, plan.kwargs):
        return plan
    try:
        return plan._replace(keys=json.dumps({**json.loads(row.keys), **json.loads(plan.keys)}))
    except (ValueError, TypeError, RecursionError):  # a stranger may have written anything there
        return plan


def _differs(row: ScheduleRow, plan: Plan) -> bool:
    stored = row._asdict() | {"paused": bool(row.paused_config)}
    return any(stored[name] != value for name, value in plan._asdict().items() if name != "keys")
