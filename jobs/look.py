"""What an application sees of its jobs: one, many, pages, counts, and one that it waits for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.errors import InvalidOption, WaitTimeout, shown
from jobvisor.jobs.filter import Filter, state_of
from jobvisor.jobs.found import Count, Failures, Page, Tally
from jobvisor.jobs.job import FINISHED, Attempt, Job
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import EVERY
from jobvisor.jobs.store.base import Ids as PageOfIds
from jobvisor.jobs.task import check_key
from jobvisor.jobs.units import Duration, duration_ms
from jobvisor.jobs.watch import POLL, Watch

__all__ = ["Look"]

R = TypeVar("R")

Jobs = list[Job]
Ids = list[int]
Attempts = list[Attempt]
Names = list[str]

WAIT_LONGEST = 3600.0  # seconds that a wait without a limit looks ahead; it goes on after them
IDS_AT_ONCE = 10_000
LOOKED_TIMES = 3  # a look at many jobs is followed by a pause of so many times its length
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

    def holder(self, key: str) -> int | None:
        """The id of the job that holds a unique key now; None: it is free."""
        with self._store() as store:
            return store.holder(check_key("key", key))

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
        which: Filter | None = None,
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

        Which ones is said by a Filter, or by these few words of one; `within="1h"` is its `since`.
        It looks from the newest job on until it has enough, as many pages as that takes; see `page`.
        """
        wanted = _filter(which, state=state, queue=queue, task=task, error=error, since=within)
        with self._store() as store:
            return store.find(wanted, limit=limit, before=before)

    def page(
        self, which: Filter | None = None, *, limit: int = 50, before: int | None = None
    ) -> Page:
        """Some of the newest jobs that match, in a bounded time: for whoever is asked in a request.

        The answer has the jobs, how many were looked at, and `before`: where the next page begins, None
        where there is none. An index has the pending, scheduled, blocked, failed and cancelled ones in
        this order; where more is said, or another state, jobs are looked at from
        `before` on, at most 50,000 of them or for 25 ms. So a page of what is rare may be short, or
        empty, though another one follows.

        >>> from jobvisor import Client, Filter
        >>> with Client("memory://") as client:
        ...     _ = client.enqueue_many(client.call("app.mail:send", n) for n in range(3))
        ...     page = client.page(Filter(state="pending", text="2"))
        ...     [job.args for job in page.jobs], page.before
        ([[2]], None)
        """
        with self._store() as store:
            return store.page(_filter(which), limit=limit, before=before)

    def ids(
        self,
        state: str | Filter,
        *,
        queue: str | None = None,
        task: str | None = None,
        error: str | None = None,
        within: Duration | None = None,
    ) -> Iterator[int]:
        """The ids of all jobs in one state, or of a Filter, narrowed as `list` is; the oldest first.

        They are read in pages. A job that comes to match behind the page that is being read is not told.
        """
        if isinstance(state, Filter):
            wanted = _filter(state, queue=queue, task=task, error=error, since=within)
        else:
            wanted = Filter(
                state=state_of(state), queue=queue, task=task, error=error, since=within
            )
        after: int | None = 0
        while after is not None:
            page = self._page_of_ids(wanted, after)
            yield from page.found
            after = page.after

    def _page_of_ids(self, wanted: Filter, after: int) -> PageOfIds:
        with self._store() as store:
            return store.ids_page(wanted, limit=IDS_AT_ONCE, after=after)

    def count(self, which: Filter | None = None, *, most: int = 10_000) -> Count:
        """How many jobs match, counted up to `most`; bounded as `page` is, and it says whether that ended it.

        >>> from jobvisor import Client
        >>> with Client("memory://") as client:
        ...     _ = client.enqueue_many(client.call("app.mail:send", n) for n in range(3))
        ...     client.count(), str(client.count(most=2))
        (Count(number=3, at_least=False), '2+')
        """
        with self._store() as store:
            return store.count(_filter(which), most=most)

    def tally(self, *, most: int = 2_000) -> Tally:
        """How many jobs of each queue are in each state, as `counts` tells, in a bounded time.

        Of each state `most` jobs are counted, of the pending at least a hundred of each queue; the
        answer names the states that have more.
        """
        with self._store() as store:
            return store.tally(most=most)

    def failures(self, *, since: datetime | Duration | None = None, limit: int = 100) -> Failures:
        """The failed jobs by task and type of error, at most `limit` groups, the one that failed last first.

        `since` a moment, or so long ago, leaves out what failed before. A group is told with how many
        there are (20,000 are counted for all groups together), when the first and the last failed, and
        the last one's id and error. `Filter(state="failed", task=group.task,
        error_type=group.error_type)` finds its jobs. It costs a step of an index for each group.
        """
        since_ms = None if since is None else self._moment_of(since)
        with self._store() as store:
            return store.failures(since_ms=since_ms, limit=limit)

    def _moment_of(self, since: datetime | Duration) -> int:
        """In UTC milliseconds; of a duration by this machine's clock."""
        if isinstance(since, datetime):
            return from_datetime(since)
        return self._clock.now_ms() - duration_ms(since)

    def task_names(self) -> Names:
        """The names of the tasks that any job is of, at most 1,000; reads the whole table."""
        with self._store() as store:
            return store.task_names(TASK_NAMES_MAX)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs of each queue are in each state; reads the whole table (`tally` does not).

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
        """For each queue with pending jobs: seconds the longest waiting one has been due.

        Reads all that is pending (`latencies` does not).
        """
        with self._store() as store:
            return {queue: max(0, ms) / 1000 for queue, ms in store.oldest_pending().items()}

    def latencies(self, *, most: int = 200) -> dict[str, float]:
        """For each queue with pending jobs: seconds the longest waiting of those claimed next has been due.

        Of each queue a hundred jobs are read, of `most` queues: whatever waits, it takes no longer.
        """
        with self._store() as store:
            return {queue: ms / 1000 for queue, ms in store.waiting(most).items()}

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

    def watch(
        self, wanted: Callable[[], Sequence[int]], ended: Callable[[int, Job | None], None]
    ) -> None:
        """Call `ended` with each wanted job once it is finished, with None once it is gone.

        `wanted` is asked for ids before each look; it goes on until that names none.
        """
        watch = self._own_watch()
        with self._store() as store, watch.waiting(store.watcher):
            since = self._clock.monotonic_ns()
            while ids := wanted():
                seen, began = watch.changes, self._clock.monotonic_ns()
                over = _over(store, ids)
                for job, found in over.items():
                    ended(job, found)
                self._rest()
                now = self._clock.monotonic_ns()
                since = now if over else since
                watch.sleep(seen, (now - since) / 1e9, POLL)
                self._clock.sleep(LOOKED_TIMES * (now - began) / 1e9)

    def _own_watch(self) -> Watch:
        with self._lock:
            if self._watch_of is None or self._watch_of[0] != os.getpid():
                self._watch_of = (os.getpid(), Watch(self._clock))
            return self._watch_of[1]


def _filter(which: Filter | None, **words: Any) -> Filter:
    """A Filter that was given, or what these words say."""
    said = {name: value for name, value in words.items() if value is not None}
    if which is None:
        return Filter(**said) if said else EVERY
    if not isinstance(which, Filter):
        raise InvalidOption(f"{shown(which)} is no Filter; write Filter(state=...) or so")
    if said:
        raise InvalidOption(f"{', '.join(said)}: say it in the Filter, or leave the Filter out")
    return which


def _over(store: Store, ids: Sequence[int]) -> dict[int, Job | None]:
    """Those of these jobs that are finished, and None for those that are gone."""
    states = {each.id: each.state for each in store.summaries(ids)}
    finished = store.get_many(job for job, state in states.items() if state in FINISHED)
    gone = [job for job in ids if job not in states]
    return {**finished, **dict.fromkeys(gone)}


def _seconds(timeout: Duration | None) -> float | None:
    """A number is taken as it is: what is left of somebody's own time may be below zero, or infinite."""
    if timeout is None or isinstance(timeout, int | float):
        return timeout
    return duration_ms(timeout) / 1000
