"""What an application sees of its jobs: one, many, pages, counts, and one that it waits for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from jobvisor.jobs.door import Door, id_of, state_of
from jobvisor.jobs.errors import WaitTimeout
from jobvisor.jobs.job import Attempt, Job, State
from jobvisor.jobs.units import Duration, duration_ms
from jobvisor.jobs.watch import Watch

__all__ = ["Look"]

R = TypeVar("R")

Jobs = list[Job]
Ids = list[int]
Attempts = list[Attempt]
Names = list[str]

WAIT_LONGEST = 3600.0  # seconds that a wait without a limit looks ahead; it goes on after them
IDS_AT_ONCE = 100_000  # of finished jobs each page is a sort of all of that state
TASK_NAMES_MAX = 1000


class Look(Door):
    """The verbs that change nothing."""

    _watch_of: tuple[int, Watch] | None = None

    @overload
    def get(self, job: Job[R]) -> Job[R]: ...
    @overload
    def get(self, job: int) -> Job: ...
    def get(self, job: int | Job) -> Job:
        """One job as it is now, by its id or as a Job; JobNotFound if there is none any more."""
        number = id_of(job)
        with self._store() as store:
            return store.get(number)

    def get_many(self, jobs: Iterable[int | Job]) -> dict[int, Job]:
        """Those of these jobs that there are, by their ids, in the order asked.

        Any number of them: more than 500 are read in several statements, each as of its moment.
        """
        numbers = [id_of(job) for job in jobs]
        with self._store() as store:
            return store.get_many(numbers)

    def attempts(self, job: int | Job) -> Attempts:
        """The unsuccessful runs of a job, oldest first."""
        number = id_of(job)
        with self._store() as store:
            store.get(number)
            return store.attempts(number)

    def attempts_of(self, jobs: Iterable[int | Job]) -> dict[int, Attempts]:
        """The same of many jobs in one call, by their ids; an empty list where there are none."""
        numbers = [id_of(job) for job in jobs]
        with self._store() as store:
            return store.attempts_of(numbers)

    def list(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        task: str | None = None,
        error: str | None = None,
        within: Duration | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Jobs:
        """The newest jobs, at most `limit`; `before` an id shows the page after it.

        `error` is a part of the error's text, in any case (on SQLite of the letters a to z).
        `within="1h"` leaves out what ended (of a running job: began; of another: was due) longer ago.

        It reads from the newest on until it has enough. Where few match a task, a queue or an error,
        that is the whole table, or with a `state` all of that state: of a million finished jobs 0.3 s
        on SQLite and 1 s on PostgreSQL. No other process waits for it.
        """
        wanted = None if state is None else state_of(state)
        within_ms = None if within is None else duration_ms(within)
        with self._store() as store:
            return store.find(
                state=wanted,
                queue=queue,
                task=task,
                error=error,
                within_ms=within_ms,
                limit=limit,
                before=before,
            )

    def ids(
        self,
        state: str,
        *,
        queue: str | None = None,
        task: str | None = None,
        error: str | None = None,
        within: Duration | None = None,
    ) -> Iterator[int]:
        """The ids of all jobs in one state, narrowed as `list` is; the oldest first, in pages."""
        within_ms = None if within is None else duration_ms(within)
        page: Ids = []
        while page := self._page_of_ids(
            state_of(state),
            queue=queue,
            task=task,
            error=error,
            within_ms=within_ms,
            after=page[-1] if page else 0,
        ):
            yield from page

    def _page_of_ids(self, state: State, **narrowed: Any) -> Ids:
        with self._store() as store:
            return store.find_ids(state, limit=IDS_AT_ONCE, **narrowed)

    def task_names(self) -> Names:
        """The names of the tasks that any job is of, at most 1,000; reads the whole table."""
        with self._store() as store:
            return store.task_names(TASK_NAMES_MAX)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs of each queue are in each state; reads the whole table.

        A queue without jobs is not in it, nor a state that none of its jobs is in, so read it by
        `get`: `client.counts().get("mail", {}).get("failed", 0)`. The states are plain texts:
        scheduled, pending, blocked, running, succeeded, failed, cancelled.

        >>> from jobvisor import Client
        >>> with Client("memory://") as client:
        ...     _ = client.enqueue("app.mail:send", "a@b.c")
        ...     client.counts()
        {'default': {'pending': 1}}
        """
        with self._store() as store:
            return store.counts()

    def oldest_pending(self) -> dict[str, float]:
        """For each queue with pending jobs: seconds the longest waiting one has been due."""
        with self._store() as store:
            return {queue: max(0, ms) / 1000 for queue, ms in store.oldest_pending().items()}

    @overload
    def wait(self, job: Job[R], timeout: Duration | None = None) -> Job[R]: ...
    @overload
    def wait(self, job: int, timeout: Duration | None = None) -> Job: ...
    def wait(self, job: int | Job, timeout: Duration | None = None) -> Job:
        """The job once it is finished; WaitTimeout after `timeout`, "30s" or seconds (None: for ever).

        Finished may be failed or cancelled: look at its `state` before you use its `result`.
        """
        job = id_of(job)
        longest = _seconds(timeout)
        began = self._clock.monotonic_ns()
        with self._store() as store, self._own_watch().waiting(store.watcher):
            while True:
                seen = self._own_watch().changes
                found = store.get(job)
                if found.finished:
                    return found
                waited = (self._clock.monotonic_ns() - began) / 1e9
                left = WAIT_LONGEST if longest is None else longest - waited
                if left <= 0:
                    raise WaitTimeout(
                        f"job {job} is still {found.state} after {longest:g} s; it goes on"
                    )
                self._rest()
                self._own_watch().sleep(seen, waited, left)

    def _own_watch(self) -> Watch:
        with self._lock:
            if self._watch_of is None or self._watch_of[0] != os.getpid():
                self._watch_of = (os.getpid(), Watch(self._clock))
            return self._watch_of[1]


def _seconds(timeout: Duration | None) -> float | None:
    """A number is taken as it is: what is left of somebody's own time may be below zero, or infinite."""
    if timeout is None or isinstance(timeout, int | float):
        return timeout
    return duration_ms(timeout) / 1000
