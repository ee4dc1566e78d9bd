"""What a client has beside the jobs: who did what, sums by the minute, the tasks and families there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jobvisor.jobs.annals import MINUTE_MS, Action, Family, FamilyLife, KnownTask, Sums
from jobvisor.jobs.change import Moves, moved_each
from jobvisor.jobs.clock import from_datetime, to_datetime
from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.errors import IllegalMove
from jobvisor.jobs.job import Job
from jobvisor.jobs.running import sent_along
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import FamilyRow, Life
from jobvisor.jobs.units import Duration, duration_ms

__all__ = ["Beside"]

STATS_MOST = 10_000


class Beside(Door):
    """The verbs of the tables `actions`, `stats`, `tasks` and `families`, and two more about one job."""

    # -- one job

    def copy(
        self,
        job: int | Job,
        *,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Job:
        """Store a job like this one, pending at once, with other arguments where they are given.

        It has the queue, priority, attempts, retry policy, limits and headers of that one. Not its
        unique key, nor a time at which it expires.
        """
        number = id_of(job)
        self._load_codec()
        texts = self._payload.encode_call(
            () if args is None else tuple(args), {} if kwargs is None else dict(kwargs)
        )
        with self._store() as store:
            made = store.repeat(
                number,
                args=None if args is None else texts[0],
                kwargs=None if kwargs is None else texts[1],
                parent=sent_along(None, self.home)[1],
            )
        if self.stage is not None:
            self.stage.enqueued(self._payload)
        return made

    def delete(self, job: int | Job) -> None:
        """Remove a finished job with its history for good; IllegalMove if it is not finished."""
        number = id_of(job)
        with self._store() as store, store.transaction():
            _removed(store, number)

    def delete_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`delete` of each in one transaction, as `cancel_many` cancels: `removed`, or `refused`."""
        numbers = [id_of(job) for job in jobs]
        with self._store() as store, store.transaction():
            return moved_each(store, numbers, _removed)

    # -- who did what

    def note_action(self, who: str, verb: str, what: str, number: int | None = None) -> None:
        """Note that somebody has done something to so many jobs; the newest 100,000 notes are kept.

        `who` is cut to 200 bytes, `what` to 2,000. Whoever offers verbs to people calls it, after they
        were done; no verb of a client does by itself.
        """
        with self._store() as store:
            store.note_action(who, verb, what, number)

    def actions(self, *, limit: int = 50, before: int | None = None) -> list[Action]:
        """What was done, the newest first, at most 1,000; `before` an action's id pages on."""
        with self._store() as store:
            return store.actions(limit=limit, before=before)

    # -- sums by the minute

    def add_stats(self, rows: Iterable[Sums]) -> None:
        """Add these to the sums of their minutes and queues; at most a thousand rows."""
        with self._store() as store:
            store.add_stats(rows)

    def stats(
        self,
        since: datetime | Duration,
        *,
        until: datetime | None = None,
        step: Duration = "1m",
        queue: str | None = None,
        by_queue: bool = False,
    ) -> list[Sums]:
        """The sums since a moment, or since so long ago, the oldest first; of all queues together.

        One for each `step` (whole minutes) in which something was noted; with `by_queue` one for each
        queue, with `queue` those of one; at most 10,000. They are kept for 90 days.
        """
        now = self._clock.now_ms()
        start = from_datetime(since) if isinstance(since, datetime) else now - duration_ms(since)
        end = now + MINUTE_MS if until is None else from_datetime(until)
        step_ms = max(MINUTE_MS, duration_ms(step))
        start = start // step_ms * step_ms
        with self._store() as store:
            if queue is None and not by_queue:
                return store.stats_of_all(start, end, step_ms=step_ms, limit=STATS_MOST)
            return store.stats(start, end, step_ms=step_ms, queue=queue, limit=STATS_MOST)

    # -- tasks and families

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Note that a worker has these tasks, by name with what it tells of each (JSON, up to 64 KiB)."""
        told = {name: _as_text(each) for name, each in tasks.items()}
        with self._store() as store:
            store.note_tasks(told)

    def tasks(self, *, limit: int = 1_000, after: str = "") -> list[KnownTask]:
        """The tasks that workers have registered in the last 30 days, by name; `after` a name pages on."""
        with self._store() as store:
            return store.tasks(limit=limit, after=after)

    def families(self) -> list[Family]:
        """The families on this database, with the processes that may hold jobs."""
        with self._store() as store, store.snapshot():
            now = self._clock.now_ms()
            return [_family(row, store.owners(row.id), now) for row in store.families()]


def _as_text(told: Mapping[str, Any]) -> str:
    """It as JSON; where it has half of a letter, which no database holds, that is escaped."""
    text = json.dumps(told, ensure_ascii=False)
    return text if _is_whole(text) else json.dumps(told)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _family(row: FamilyRow, lives: Iterable[Life], now: int) -> Family:
    return Family(
        id=row.id,
        name=row.name,
        host=row.host,
        pid=row.pid,
        version=row.version,
        state_dir=row.state_dir,
        started_at=to_datetime(row.started_at),
        heartbeat_at=to_datetime(row.heartbeat_at),
        silent=max(0, row.silent_ms) / 1000,
        dead_after=row.dead_after_ms / 1000,
        died=row.died,
        lives=tuple(
            FamilyLife(life.owner, life.name, life.host, life.pid, to_datetime(now - life.age_ms))
            for life in lives
        ),
    )


def _removed(store: Store, job: int) -> str:
    if not store.delete([job]):
        raise IllegalMove(
            f"job {job} is {store.get(job).state}; only a finished job can be removed"
        )
    return "removed"
