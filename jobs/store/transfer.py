"""Moving jobs to another database: whole rows out of one and into the other, under their ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from jobvisor.jobs.clock import iso, to_datetime
from jobvisor.jobs.errors import IllegalMove, PayloadError, UniqueTaken
from jobvisor.jobs.job import FINISHED, State
from jobvisor.jobs.store.base import AttemptRow, Imported, JobRow
from jobvisor.jobs.store.fairness import Fairness
from jobvisor.jobs.store.holding import Holding
from jobvisor.jobs.store.older import OlderFamilies

ON_TERMS = ("limit_key", "share", "debounce_ms", "deadline_at", "keep", "special")
IMPORTED_AT_ONCE = 500  # rows of an import in one statement,
IMPORTED_TEXT = 4 << 20  # or as many as hold so many characters, so that memory is bounded


class Transfer(Holding, Fairness):
    """The verbs of `export` and `import`."""

    _older: OlderFamilies

    def running(self) -> int:
        return int(self._rows("running", {})[0][0])

    def export(self, after: int, limit: int, *, finished: bool) -> list[JobRow]:
        with self.snapshot():
            page = {"after": after, "limit": limit, "finished": finished}
            rows = self._rows("export", page)
            histories: dict[int, list[AttemptRow]] = {}
            if rows:
                for job, *run in self._rows("export_attempts", _listed(row[0] for row in rows)):
                    histories.setdefault(job, []).append(AttemptRow._make(run))
            return self._with_held_keys(
                [_released(*row, histories.get(row[0], [])) for row in rows]
            )

    def import_(self, rows: Iterable[JobRow]) -> Imported:
        added = known = 0
        with self.transaction():
            for page in _pages(rows):
                fresh = self._not_known(page)
                known += len(page) - len(fresh)
                added += len(fresh)
                if fresh:
                    self._refuse_beside_older(fresh)
                    self._skip_ids(fresh[-1].id)
                    self._import_page(fresh)
                    self._audience.note_all(row.id for row in fresh)
                    self._pending_made = True
        return Imported(added, known)

    def _refuse_beside_older(self, page: list[JobRow]) -> None:
        for row in page:
            if (row.special or row.share is not None) and State(row.state) not in FINISHED:
                told = {name: getattr(row, name) for name in ON_TERMS}
                words = ", ".join(name for name, value in told.items() if value)
                self._older.refuse_stored(row.id, row.task, words, self._rows)

    def _not_known(self, page: list[JobRow]) -> list[JobRow]:
        found = {row[0]: row[1:] for row in self._rows("known", _listed(row.id for row in page))}
        for row in page:
            if row.id in found and found[row.id] != (row.task, row.created_at):
                task, created_at = found[row.id]
                raise IllegalMove(
                    f"job {row.id} ({row.task}) cannot be imported: here another job has this id, "
                    f"{task} of {iso(to_datetime(created_at))}"
                )
        return [row for row in page if row.id not in found]

    def _import_page(self, page: list[JobRow]) -> None:
        _, refused = self._attempted(self._import_all, page)
        if refused is None:
            return
        # One of them: each by itself tells which.
        for row in page:
            _, refused = self._attempted(self._import_all, [row])
            if refused is not None:
                raise self._not_imported(row, refused)

    def _import_all(self, page: list[JobRow]) -> None:
        self._change_many("import", [_values(row) for row in page])
        self._import_keys(page)
        # Turns are of one database: here these jobs come behind those of their share.
        self._give_turns(row.id for row in page if row.share is not None)
        runs = [{"job": row.id, **run._asdict()} for row in page for run in row.attempts]
        if runs:
            self._change_many("import_attempt", runs)

    def _not_imported(self, row: JobRow, refused: str) -> Exception:
        rows: list[tuple[Any, ...]] = []
        if row.unique_key is not None and State(row.state) not in FINISHED:
            rows = self._attempted(self._rows, "holder", {"unique_key": row.unique_key})[0] or []
        if not rows:
            return PayloadError(f"job {row.id} cannot be imported: {refused}")
        return UniqueTaken(
            f"job {row.id} cannot be imported: job {rows[0][0]} holds its unique key "
            f"{row.unique_key!r}",
            holder=rows[0][0],
        )

    def _skip_ids(self, greatest: int) -> None:
        """Give out no id up to this one any more; SQLite's AUTOINCREMENT sees to it by itself."""


def _released(*told: Any) -> JobRow:
    """A row with its history, as the release of its run leaves it."""
    *columns, now, history = told
    row = JobRow._make((*columns, tuple(history)))
    if row.state != State.RUNNING:
        return row
    row = row._replace(attempt=max(row.attempt - 1, 0), started_at=None, limit_place=None)
    if row.cancel_requested:
        return row._replace(state=State.CANCELLED.value, finished_at=now)
    return row._replace(state=State.PENDING.value)


def _listed(ids: Iterable[int]) -> dict[str, str]:
    """Any number of ids as one parameter of either dialect."""
    return {"jobs": json.dumps(list(ids))}


def _pages(rows: Iterable[JobRow]) -> Iterator[list[JobRow]]:
    """A bounded number of rows at a time, and of text."""
    page: list[JobRow] = []
    size = 0
    for row in rows:
        page.append(row)
        size += _size(row) + sum(map(_size, row.attempts))
        if len(page) >= IMPORTED_AT_ONCE or size >= IMPORTED_TEXT:
            yield page
            page, size = [], 0
    if page:
        yield page


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if isinstance(value, str))


def _values(row: JobRow) -> dict[str, Any]:
    values = row._asdict()
    del values["attempts"]
    return values | {"turn": 0}
