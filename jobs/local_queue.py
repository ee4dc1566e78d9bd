"""Plain callables on threads of this process, with the retries of jobs: before one needs a table."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ClassVar, ParamSpec, TypeVar

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import InvalidOption, JobsError, shown
from jobvisor.jobs.local_calls import Call, FailedCall, LocalCalls, Manner
from jobvisor.jobs.retry import Answer, Exponential, Policy, as_policy
from jobvisor.jobs.run_future import RunFuture
from jobvisor.jobs.task import RETRIES_MAX, check_number
from jobvisor.jobs.units import Duration, duration_ms

__all__ = ["FailedCall", "LocalQueue"]

P = ParamSpec("P")
R = TypeVar("R")

THREADS_MAX = 1_000
SIZE_MAX = 100_000_000


class LocalQueue(Executor):
    """Runs calls on a few threads, tries those that raise again, and keeps nothing when it ends.

    `retry` is a policy as tasks have it: `Exponential`, `Fixed`, `DecorrelatedJitter`, a duration, or a
    function `(attempt, error)`. `initial`, `multiplier` and `cap` are the words for an exponential one.
    What a task raises to choose its end does the same here: `Retry`, `Snooze`, `Fail`, `Release`,
    `Cancelled`. What is no Exception (`SystemExit`) is not tried again.

    `size` bounds how many calls wait or rest between two runs; `submit` then waits `patience` for room
    (None: for ever, 0: not at all) and raises QueueFull. `on_failure` is called, in the thread that ran it,
    with each call that failed for good.

    >>> def divide(a, b):
    ...     return a / b
    >>> with LocalQueue(threads=2, retries=1, retry="1ms") as queue:
    ...     good, bad = queue.submit(divide, 6, 3), queue.submit(divide, 1, 0)
    >>> good.result(), bad.exception()
    (2.0, ZeroDivisionError('division by zero'))
    """

    _numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(
        self,
        threads: int = 4,
        *,
        size: int | None = None,
        patience: Duration | None = None,
        retries: int = 0,
        retry: Policy | Duration | Answer | None = None,
        initial: Duration | None = None,
        multiplier: float | None = None,
        cap: Duration | None = None,
        on_failure: Callable[[FailedCall], object] | None = None,
        name: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._manner = Manner(
            threads=check_number("threads", threads, 1, THREADS_MAX),
            size=None if size is None else check_number("size", size, 1, SIZE_MAX),
            patience_s=None if patience is None else duration_ms(patience) / 1_000,
            retries=check_number("retries", retries, 0, RETRIES_MAX),
            policy=_policy(retry, initial, multiplier, cap),
            on_failure=on_failure,
            name=name or f"LocalQueue-{next(self._numbers)}",
        )
        self._clock = clock
        self._calls = self._begin()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have it called; the future has what it returns, or what its last run raised.

        RuntimeError after `shutdown`, QueueFull where there is no room in time.
        """
        if not callable(fn):
            raise InvalidOption(f"{shown(fn)} cannot be called")
        calls = self._here()
        future: RunFuture[R] = RunFuture(calls.withdraw)
        calls.put(Call(fn, args, kwargs, future))
        return future

    def join(self, timeout: Duration | None = None) -> bool:
        """Until every call has ended, also those that rest; False where they have not after `timeout`."""
        calls = self._here()
        if calls.is_mine():
            raise JobsError("a call cannot wait for the end of all calls: it is one of them")
        return calls.join(None if timeout is None else duration_ms(timeout) / 1_000)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call. What waits or rests is run to its end, or cancelled; what runs goes on."""
        calls = self._here()
        calls.close(cancels=cancel_futures)
        if wait:
            calls.leave()

    def _here(self) -> LocalCalls:
        # A copy of this process has none of the threads, and the lock perhaps as somebody held it. What
        # was submitted before the fork is run by the original alone.
        if self._calls.pid != os.getpid():
            self._calls = self._begin()
        return self._calls

    def _begin(self) -> LocalCalls:
        calls = LocalCalls(self._manner, self._clock)
        weakref.finalize(self, calls.close).atexit = False
        return calls


def _policy(
    retry: Policy | Duration | Answer | None,
    initial: Duration | None,
    multiplier: float | None,
    cap: Duration | None,
) -> Policy:
    given = {"first": initial, "factor": multiplier, "cap": cap}
    words = {name: value for name, value in given.items() if value is not None}
    if retry is not None and words:
        raise InvalidOption("retry says it all; leave out initial, multiplier and cap")
    return as_policy(retry) if not words else Exponential(**words)  # type: ignore[arg-type]
