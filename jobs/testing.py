"""Tests of code that enqueues: its jobs go into memory, and run in the test or at once.

    with testing.in_memory() as jobs:       # nothing runs until the test says so
        sign_up("a@b.c")
        assert [job.args for job in jobs.enqueued(send)] == [["a@b.c"]]
        jobs.run_all()

    with testing.inline():                  # each enqueue runs its job before it returns
        sign_up("a@b.c")

Within the block every client of this process plays in memory, whatever database it names, and
needs no configuration: `task.enqueue`, a `Client()` that was made long before, one made in the
block. Arguments and results go through the same JSON as in a family. What is `@around` a run is
around these too; hooks (`@on_start` and the like) are not called, a test calls those it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

from jobvisor.jobs.client import Client, use_client
from jobvisor.jobs.clock import Clock
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.errors import JobsError, UnknownTask
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed, Job
from jobvisor.jobs.limit import CONCURRENCY_MAX, limit_of
from jobvisor.jobs.outcome import Cancelled, Outcome, Release, Retry, Snooze
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import Registry, registry
from jobvisor.jobs.settings import Settings, use_settings
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.task import Task
from jobvisor.jobs.units import Duration, duration_ms

__all__ = ["MemoryQueue", "in_memory", "inline"]

P = ParamSpec("P")
R = TypeVar("R")

RUNS_MAX = 10_000
"""Runs of one `run_all`, unless it is told another limit: where jobs enqueue themselves for ever."""

LISTED_MAX = 100_000

_CHOSEN = (Retry, Snooze, Release, Cancelled)
"""What a task raises to choose its end, and no failure."""


class _Ahead(Clock):
    """The machine's clock, and what a test has let pass."""

    __slots__ = ("passed_ms",)

    def __init__(self) -> None:
        self.passed_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.passed_ms

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.passed_ms * 1_000_000


class _Execution(Execution):
    """Runs jobs, and keeps the exception that a run of one ended with."""

    def __init__(self, *args: Any, errors: dict[int, BaseException], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._errors = errors

    def raised(self, task: Task[..., Any], job: Claimed, error: BaseException) -> Outcome:
        if not isinstance(error, _CHOSEN):
            self._errors[job.id] = error
        return super().raised(task, job, error)


class _Runner(Client):
    """The client that runs the jobs of a queue in memory."""

    errors: dict[int, BaseException]

    def read_with(self, payload: Payload) -> None:
        """Read arguments as whoever has enqueued them wrote them."""
        self._payload = payload

    def _execution(self, port: Nobody) -> Execution:
        return _Execution(
            self._registry,
            clock=self._clock,
            port=port,
            worker="test",
            payload=self._payload,
            home=self.home,
            look=self.get,
            errors=self.errors,
        )


class MemoryQueue:
    """The jobs of a test.

    Attributes:
        client: A client of them, as any client within the block is.
    """

    def __init__(self, known: Registry, *, at_once: bool, raises: bool) -> None:
        self._clock = _Ahead()
        self.store: Store = open_store("memory://", clock=self._clock)
        self._runner = _Runner("memory://", registry=known, clock=self._clock)
        self._runner.errors = {}
        self.client: Client = self._runner
        self._at_once = at_once
        self._raises = raises

    @overload
    def enqueued(self, task: Task[P, R], /, *, state: str | None = None) -> list[Job[R]]: ...
    @overload
    def enqueued(self, task: str | None = None, /, *, state: str | None = None) -> list[Job]: ...
    def enqueued(
        self, task: Task[..., Any] | str | None = None, /, *, state: str | None = None
    ) -> list[Job]:
        """The jobs so far, or those of one task, in the order they were enqueued."""
        name = task.name if isinstance(task, Task) else task
        return self.client.list(task=name, state=state, limit=LISTED_MAX)[::-1]

    def run_all(self, *, raises: bool | None = None, limit: int = RUNS_MAX) -> list[Job]:
        """Run what is due, and what that enqueues, until nothing is; the jobs as their runs ended.

        What a task raised is raised here, after its job was settled; with `raises=False` it is only
        in the job's `state` and `error`, and a job that has attempts left is due again `after` its
        delay. UnknownTask where no task has a job's name: the test has not imported its module.
        """
        propagates = self._raises if raises is None else raises
        ran: list[Job] = []
        while (job := self._runner.run_one() or self._run_unlimited()) is not None:
            error = self._runner.errors.pop(job.id, None)
            if propagates and error is not None:
                raise error
            if job.deferred == "unknown":
                raise UnknownTask(f"no task is called {job.task!r}; import its module in the test")
            ran.append(job)
            if len(ran) >= limit:
                raise JobsError(f"still not done after {limit} runs; the last was of {job.task}")
        return ran

    def _run_unlimited(self) -> Job | None:
        """A job whose limit nobody has set here: a test need not say what a config would."""
        unknown = self.store.unknown_limits(LISTED_MAX)
        if not unknown:
            return None
        limits = [limit_of(name, concurrency=CONCURRENCY_MAX) for name in unknown]
        self.store.declare_limits(limits, missing=True)
        return self._runner.run_one()

    def after(self, duration: Duration) -> MemoryQueue:
        """The same queue so much later: `after("1h").run_all()` runs what was scheduled until then."""
        self._clock.passed_ms += duration_ms(duration)
        return self

    def enqueued_with(self, payload: Payload) -> None:
        """Jobs were stored by a client with this codec, which a family would have too."""
        self._runner.read_with(payload)
        if self._at_once:
            self.run_all()


class _Stage:
    """What stands in for the database of every client."""

    def __init__(self, queue: MemoryQueue) -> None:
        self.store = queue.store
        self.enqueued = queue.enqueued_with


@contextmanager
def in_memory(*, registry: Registry = registry) -> Iterator[MemoryQueue]:
    """Within the block jobs are only kept; `run_all` runs them.

    >>> from jobvisor import task
    >>> @task(name="docs:double")
    ... def double(n: int) -> int:
    ...     return 2 * n
    >>> with in_memory() as jobs:
    ...     job = double.enqueue(21)
    ...     [ran.result for ran in jobs.run_all()]
    [42]
    """
    with _playing(MemoryQueue(registry, at_once=False, raises=True)) as queue:
        yield queue


@contextmanager
def inline(*, registry: Registry = registry, raises: bool = True) -> Iterator[MemoryQueue]:
    """Within the block an enqueue runs its job before it returns, as `task.enqueue(...).result` shows.

    What the task raises comes out of the enqueue (with `raises=False` it is in the job). A job for
    later stays scheduled. An async task is enqueued by `await task.aenqueue(...)` where a loop runs.

    >>> from jobvisor import task
    >>> @task(name="docs:triple")
    ... def triple(n: int) -> int:
    ...     return 3 * n
    >>> with inline():
    ...     triple.enqueue(14).result
    42
    """
    with _playing(MemoryQueue(registry, at_once=True, raises=raises)) as queue:
        yield queue


@contextmanager
def _playing(queue: MemoryQueue) -> Iterator[MemoryQueue]:
    before, Client.stage = Client.stage, _Stage(queue)
    # The default client too: one that is made within the block must not outlive it.
    undo = (use_settings(Settings("memory://")), use_client(queue.client))
    try:
        yield queue
    finally:
        for step in undo:
            step()
        Client.stage = before
        queue.store.close()
