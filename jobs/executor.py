"""Jobs as futures: an Executor whose calls are jobs of a database, run by whatever family serves it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import (
    IllegalMove,
    JobFailed,
    JobNotFound,
    JobsError,
    QueueFull,
    StoreUnavailable,
)
from jobvisor.jobs.job import Job, State
from jobvisor.jobs.run_future import RunFuture, settle
from jobvisor.jobs.task import Call

__all__ = ["JobExecutor", "JobFuture"]

T = TypeVar("T")

MOST = 100_000
"""Futures that are not done, of one executor."""
AGAIN_S = 1.0
"""Until the database is asked again, where it did not answer."""

CLOSED = (
    "cannot schedule new futures after shutdown"  # as the executors of the standard library say
)


class Door(Protocol):
    """What it needs of a client."""

    def enqueue(self, target: Any, /, *args: Any, **kwargs: Any) -> Job:
        """Store a job."""

    def enqueue_many(self, calls: Iterable[Call]) -> list[int]:
        """Store many."""

    def cancel(self, job: int | Job) -> str:
        """Cancel one."""

    def watch(
        self, wanted: Callable[[], Sequence[int]], ended: Callable[[int, Job | None], None]
    ) -> None:
        """Call `ended` with each wanted job once it is finished, or gone."""


class JobFuture(RunFuture[T]):
    """The future of one job."""

    def __init__(self, job: int, withdraw: Callable[[Any], bool]) -> None:
        super().__init__(withdraw)
        self.job = job
        """Its id."""

    def cancel(self) -> bool:
        """Cancel the job: True where it had not begun. One that runs is asked to, and tells how it ended."""
        if not self.done() and self._withdraw is not None:
            self._withdraw(self)
        return self.cancelled()


class JobExecutor(Executor):
    """What `Client.executor()` makes.

    The jobs outlive it: a program that ends does not wait for them, unless it leaves a `with` or calls
    `shutdown`, and they run nevertheless. One thread looks for what has finished, of all futures.
    """

    def __init__(
        self,
        client: Door,
        call_of: Callable[[Any, tuple[Any, ...]], Call],
        *,
        most: int = MOST,
        clock: Clock = SYSTEM,
    ) -> None:
        """`call_of` makes a call of a task or a name; `most` is how many futures may be not done."""
        self._client = client
        self._call_of = call_of
        self._most = most
        self._clock = clock
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._news = threading.Condition()
        self._open: dict[int, list[JobFuture[Any]]] = {}
        """By the ids of the jobs; two of them are about one job where a unique key was taken."""
        self._number = 0
        self._watcher: threading.Thread | None = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Enqueue a job; its future has the result, or JobFailed with its error."""
        self._admit(1)
        return self._future(self._client.enqueue(fn, *args, **kwargs).id)

    def map(
        self,
        fn: Any,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Enqueue a job for each row of arguments, all in one transaction; their results, in order.

        What is not finished when the results are given up is cancelled.
        """
        del chunksize  # jobs are claimed in batches anyway
        ends = None if timeout is None else self._clock.monotonic_ns() + int(timeout * 1e9)
        calls = [self._call_of(fn, row) for row in zip(*iterables, strict=False)]
        self._admit(len(calls))
        futures = [self._future(job) for job in self._client.enqueue_many(calls)]
        return self._results(futures[::-1], ends)

    def _results(self, futures: list[JobFuture[Any]], ends: int | None) -> Iterator[Any]:
        try:
            while futures:
                left = None if ends is None else (ends - self._clock.monotonic_ns()) / 1e9
                yield futures.pop().result(left)  # taken out, so that nothing here keeps the result
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call; wait for the jobs, or cancel those that have not begun."""
        with self._here():
            self._is_closed = True
            futures = [each for them in self._open.values() for each in them]
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            with self._news:
                self._news.wait_for(lambda: not self._open)

    # -- futures

    def _here(self) -> threading.Condition:
        """What all is changed under. A copy of this process has no watcher, and begins without futures."""
        if self._pid != os.getpid():
            self._begin()
        return self._news

    def _admit(self, number: int) -> None:
        with self._here():
            if self._is_closed:
                raise RuntimeError(CLOSED)
            if self._number + number > self._most:
                raise QueueFull(
                    f"{self._number} futures of this executor are not done, and it keeps {self._most}; "
                    "wait for some, or use enqueue_many"
                )

    def _future(self, job: int) -> JobFuture[Any]:
        future: JobFuture[Any] = JobFuture(job, self._withdraw)
        with self._news:
            if self._watcher is None:
                watcher = threading.Thread(target=self._watch, name="jobvisor futures", daemon=True)
                watcher.start()  # it waits for this lock, and for nobody where that raises
                self._watcher = watcher
            self._open.setdefault(job, []).append(future)
            self._number += 1
        return future

    def _withdraw(self, future: JobFuture[Any]) -> bool:
        try:
            outcome = self._client.cancel(future.job)
        except (IllegalMove, JobNotFound):
            return False  # it has ended, which is told in a moment
        if outcome != "cancelled":
            return False
        self._end(future.job, None, is_cancelled=True)
        return True

    # -- of the thread that watches

    def _watch(self) -> None:
        while True:
            try:
                self._client.watch(self._wanted, self._ended)
            except StoreUnavailable:
                self._clock.sleep(AGAIN_S)
                continue
            except BaseException as error:  # noqa: BLE001 -- nobody would ever hear of the jobs again
                self._give_up(error)
            with self._news:
                if not self._open:
                    self._watcher = None
                    return

    def _wanted(self) -> list[int]:
        with self._news:
            return list(self._open)

    def _ended(self, job: int, found: Job | None) -> None:
        """It is finished, or gone."""
        if found is None:
            gone = f"job {job} is gone: its result is not kept ([retention]), or it was pruned"
            self._end(job, JobNotFound(gone))
        elif found.state is State.SUCCEEDED:
            self._end(job, None, found.result)
        elif found.state is State.CANCELLED:
            self._end(job, None, is_cancelled=True)
        else:
            self._end(job, JobFailed(found.error or f"job {job} has failed", job=job))

    def _end(
        self,
        job: int,
        error: BaseException | None,
        value: Any = None,
        *,
        is_cancelled: bool = False,
    ) -> None:
        with self._news:
            futures = self._open.pop(job, [])
            self._number -= len(futures)
        for future in futures:  # outside the lock: it calls what users want to hear
            if is_cancelled:
                future.end_cancelled()
            else:
                settle(future, value, error)
        with self._news:
            self._news.notify_all()

    def _give_up(self, error: BaseException) -> None:
        told = error if isinstance(error, JobsError) else JobsError(f"nobody watches: {error!r}")
        for job in self._wanted():
            self._end(job, told)
