"""Unique keys that are held by a row of `uniques`: after they were taken, and until that row goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobvisor.jobs.errors import UniqueTaken
from jobvisor.jobs.job import FINISHED, Special, State
from jobvisor.jobs.store.base import JobRow, Life, Turn
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.rows import Changed, any_special

NOT_DELAYED = {"delays": False, "expires": False, "ends": False}
"""Of a job that is due when it says already."""
UNIQUES_AT_ONCE = 2_000  # rows of one look for those that are of no use any more


class Holding(Dialect):
    """What is done to such keys, but by enqueueing."""

    _trimmed_to = ""
    """The key that the last page of `trim_uniques` ended with."""

    def holder(self, key: str) -> int | None:
        rows = self._rows("holder", {"unique_key": key})
        return int(rows[0][0]) if rows else None

    def trim_uniques(self) -> bool:
        page = {"after_key": self._trimmed_to, "limit": UNIQUES_AT_ONCE}
        rows = self._rows("uniques_page", page)
        self._trimmed_to = rows[-1][0] if len(rows) == UNIQUES_AT_ONCE else ""
        useless = [(key, job) for key, job, is_useless in rows if is_useless]
        if useless:
            with self.transaction():
                self._rows("trim_uniques", {"rows": json.dumps(useless)})
        return len(useless) > UNIQUES_AT_ONCE // 2

    # -- debounced jobs

    def _without_superseded(self, life: Life, claim: int, turn: Turn) -> Turn:
        """A claim without the debounced jobs that have lost their keys: they are cancelled.

        One comes back from `running` while somebody who has found it there enqueues the next; neither
        sees the other. So it is looked at once more before it begins.
        """
        if not any_special(turn.jobs):
            return turn
        debounced = [job.id for job in turn.jobs if job.special & Special.DEBOUNCED]
        if not debounced:
            return turn
        asked = {"jobs": json.dumps(debounced), "owner": life.owner, "claim": claim}
        with self.transaction():
            gone = {row[0]: Changed._make(row[1:]) for row in self._rows("supersede", asked)}
            for number, row in gone.items():
                self._moved("cancel", number, row, kind="superseded")
        if not gone:
            return turn
        return turn._replace(jobs=[job for job in turn.jobs if job.id not in gone])

    def _hold_again(self, job: int) -> None:
        """A debounced job is to run once more: UniqueTaken where another one waits under its key."""
        _, refused = self._attempted(self._rows, "hold_again", {"job": job})
        key = self.get(job).unique or ""
        told: dict[str, Any] = {"unique_key": key, "job": job, "held_ms": None, **NOT_DELAYED}
        if refused is not None or not self._rows("take_key", told):
            other = self._other_holder(key, job)
            raise UniqueTaken(
                f"job {job} cannot be requeued: job {other} holds its unique key {key!r}",
                holder=other or 0,
            )
        self._rows("hold_apart", told)

    def _check_not_held_apart(self, keys: Mapping[int, str], verb: str) -> None:
        """Unfinished jobs came back under their keys: UniqueTaken where a row of `uniques` holds one.

        After they have: whoever takes such a key then has waited for them, or they for him.
        """
        by_key = {key: job for job, key in keys.items()}
        rows = self._rows("held_keys", {"keys": json.dumps(list(by_key))}) if keys else []
        for key in (key for key, holds in rows if holds):
            job = by_key[key]
            other = self._other_holder(key, job)
            raise UniqueTaken(
                f"job {job} cannot be {verb}: job {other} holds its unique key {key!r}",
                holder=other or 0,
            )
        if rows:
            self._change("free_keys", {"keys": json.dumps([key for key, _holds in rows])})

    def _other_holder(self, key: str, job: int) -> int | None:
        rows = self._rows("holder", {"unique_key": key})
        return next((row[0] for row in rows if row[0] != job), None)

    # -- moved to another database

    def _with_held_keys(self, rows: list[JobRow]) -> list[JobRow]:
        """Rows to export: those that had held a key, and do not any more, without it."""
        asked = [row.id for row in rows if row.held_key is not None]
        if not asked:
            return rows
        held = {row[0] for row in self._rows("held_by", {"jobs": json.dumps(asked)})}
        return [
            row
            if row.held_key is None or row.id in held
            else row._replace(
                held_key=None,
                held_until=None,
                special=row.special & ~Special.DEBOUNCED,
                debounce_ms=None,
            )
            for row in rows
        ]

    def _import_keys(self, rows: Iterable[JobRow]) -> None:
        """Hold the keys of imported rows, each of which held its key when it was exported."""
        now, rows = self.clock.now_ms(), list(rows)
        self._check_not_held_apart(
            {
                row.id: row.unique_key
                for row in rows
                if row.unique_key is not None and State(row.state) not in FINISHED
            },
            "imported",
        )
        for row in rows:
            if row.held_key is None or (row.held_until is not None and row.held_until <= now):
                continue
            other = self._other_holder(row.held_key, row.id)
            if other is not None or not self._rows("import_key", {"job": row.id}):
                raise UniqueTaken(
                    f"job {row.id} cannot be imported: job {other} holds its unique key "
                    f"{row.held_key!r}",
                    holder=other or 0,
                )
