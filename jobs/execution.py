"""One claimed job to one outcome.

A page to read from top to bottom: is it still wanted, is the task known, do its arguments decode,
what did the function do, can its result be kept. Nothing here touches a database, and whatever the
function raises, down to BaseException, becomes an outcome.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from jobvisor.jobs.around import CODES
from jobvisor.jobs.clock import Clock
from jobvisor.jobs.context import Context, Port
from jobvisor.jobs.errors import PayloadError, shown
from jobvisor.jobs.headers import NONE, decode_headers
from jobvisor.jobs.job import Claimed, Job, Special
from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import (
    SUCCEEDED,
    Cancelled,
    Fail,
    Failure,
    Outcome,
    Release,
    Retry,
    Snooze,
    reason_of,
)
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.retry import policy_for
from jobvisor.jobs.running import Place, running
from jobvisor.jobs.task import Task
from jobvisor.jobs.units import duration_text

if TYPE_CHECKING:
    from jobvisor.jobs.held_loop import HeldLoop

UNKNOWN_FIRST_MS = 1_000  # a rolling deploy takes minutes: 1 s, 2 s, 4 s ...
UNKNOWN_CAP_MS = 300_000  # ... and then every five minutes
UNKNOWN_TOLD_NS = 10_000_000_000  # one line per task name in ten seconds, however many jobs it has

Begun = tuple[Task[..., Any], Callable[..., Any], list[Any], dict[str, Any]]
"""A task, its function with what goes on around it, and what that is called with."""


class Execution:
    """Runs claimed jobs in this process; one per worker, or per `run_one`."""

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Clock,
        port: Port,
        worker: str,
        defer_unknown: bool = True,
        payload: Payload | None = None,
        home: str = "",
        look: Callable[[int], Job] | None = None,
    ) -> None:
        """`home` names the tables that the jobs are from; `look` looks one up, else the default client.

        What stands in context variables by now each job finds there.
        """
        self._registry = registry
        self._arounds = registry.arounds
        self._payload = payload or Payload()
        self._clock = clock
        self._port = port
        self._place = Place(worker, clock, home, look=look)
        self.context = copy_context()
        """Copied for each job, so that none finds what another has left in context variables."""
        self._copied = self.context.copy  # looked up once, not for each job
        self._defer_unknown = defer_unknown
        self._pid = os.getpid()
        self._unknown_told: dict[str, int] = {}
        self._loop: HeldLoop | None = None

    def run(self, job: Claimed, ends_ns: int = 0, *, waited_ns: int = 0) -> Outcome:
        """The outcome of one run, begun so long after its claim.

        `ends_ns` is its deadline by the monotonic clock, 0 for none.
        """
        return self._copied().run(self._run, job, ends_ns, waited_ns)

    def _run(self, job: Claimed, ends_ns: int, waited_ns: int) -> Outcome:
        begun = self.begin(job, ends_ns, waited_ns, self._port)
        if isinstance(begun, Outcome):
            return begun
        task, function, args, kwargs = begun
        try:
            value = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 -- the border of an attempt: nothing a task raises passes
            self.leave_if_copy(1)
            return self.raised(task, job, error)
        if os.getpid() != self._pid:
            self.leave_if_copy(0)
        if value is None:  # the most common end: nothing more is asked of it
            return SUCCEEDED
        if isinstance(value, CoroutineType):
            value, failed = self.loop.run(value)
            if failed is not None:
                return self.raised(task, job, failed)
        return self.returned(value)

    @property
    def loop(self) -> HeldLoop:
        """Where `async def` tasks run, one after the other."""
        if self._loop is None:
            # 30 ms and 2 MB that a family without async tasks need not pay.
            from jobvisor.jobs.held_loop import HeldLoop  # noqa: PLC0415

            self._loop = HeldLoop()
        return self._loop

    @property
    def tasks(self) -> list[Any]:
        """The asyncio tasks of the coroutine that runs now: its first one, then those that it has started."""
        return [] if self._loop is None else self._loop.tasks

    @property
    def has_loop(self) -> bool:
        """Whether it has run a coroutine."""
        return self._loop is not None

    def close(self) -> None:
        """End what is left on its loop, if it has one."""
        if self._loop is not None:
            self._loop.close()

    def begin(self, job: Claimed, ends_ns: int, waited_ns: int, port: Port) -> Begun | Outcome:
        """What to call, and with what; or how the job ends without a call. In the context of the job."""
        if job.expires_in_ms is not None and waited_ns > job.expires_in_ms * 1_000_000:
            expired = Failure("expired", "it expired before a run could begin", "")
            return Outcome("cancel", failure=expired, kind="expired")
        if job.special and job.special & Special.LAST and waited_ns >= job.timeout_ms * 1_000_000:
            return _failed("deadline", "its deadline had passed before this run could begin")
        task = self._registry.get(job.task)
        if task is None:
            return self._unknown(job)
        try:
            args, kwargs = self._arguments(job)
            headers = NONE if job.headers is None else decode_headers(job.headers)
        except PayloadError as error:
            return Outcome("fail", failure=Failure.of(error), kind="payload")
        here = job, headers, ends_ns, port, self._place
        running.set(here)
        function = task.function
        if task.wants_context or self._arounds.found:
            context = Context(*here)
            if task.wants_context:
                args.insert(0, context)
            if self._arounds.found:
                function = self._arounds.within(function, context)
        return task, function, args, kwargs

    def returned(self, value: Any) -> Outcome:
        """The outcome of a call that returned this."""
        if value is None:
            return SUCCEEDED
        try:
            return Outcome("succeed", result=self._payload.encode(value))
        except PayloadError as error:
            # The work is done; doing it again would not make its result fit.
            return Outcome("fail", failure=Failure.of(error), kind="result")

    def _arguments(self, job: Claimed) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = [] if job.args == "[]" else _listed(self._payload.decode(job.args))
        kwargs: dict[str, Any] = (
            {} if job.kwargs == "{}" else _named(self._payload.decode(job.kwargs))
        )
        return args, kwargs

    def leave_if_copy(self, code: int) -> None:
        """The task forked, and its copy found its way back to us: the run is the original's."""
        if os.getpid() != self._pid:
            os._exit(code)

    def _unknown(self, job: Claimed) -> Outcome:
        if not self._defer_unknown:
            return _failed("unknown", self._no_such_task(job.task))
        delay = min(UNKNOWN_FIRST_MS << min(max(job.claims - 1, 0), 20), UNKNOWN_CAP_MS)
        now = self._clock.monotonic_ns()
        if now >= self._unknown_told.get(job.task, 0):
            if len(self._unknown_told) > 1000:
                self._unknown_told.clear()  # names come from rows; the memory of them is bounded
            self._unknown_told[job.task] = now + UNKNOWN_TOLD_NS
            say("unknown_task", task=job.task, job=job.id, delay=duration_text(delay))
        failure = Failure("unknown", self._no_such_task(job.task), "")
        return Outcome("snooze", delay_ms=delay, failure=failure, deferred="unknown")

    def _no_such_task(self, name: str) -> str:
        near = self._registry.nearest(name)
        hint = f"did you mean {near}?" if near else "import its module in [tasks] modules"
        return f"no module has the task {shown(name, 200)}; {hint}"

    def raised(self, task: Task[..., Any], job: Claimed, error: BaseException) -> Outcome:
        """The outcome of a call that raised this."""
        if isinstance(error, Snooze):
            return Outcome("snooze", delay_ms=error.delay_ms, deferred="snooze")
        if isinstance(error, Release):
            return Outcome("release")
        _from_its_function(error)
        if isinstance(error, Cancelled):
            return Outcome("cancel", failure=Failure.of(error), kind="cancelled")
        return self._tried(task, job, error, "error")

    def timed_out(self, task: Task[..., Any], job: Claimed, error: BaseException) -> Outcome:
        """The outcome of a call that was cancelled at its deadline, and raised this."""
        last = bool(job.special & Special.LAST)
        limit = "deadline" if last else f"timeout of {job.timeout_ms / 1000:g} s"
        told = TimeoutError(f"cancelled at its {limit}")
        told.__cause__ = _from_its_function(error)
        if last:
            return Outcome("fail", failure=Failure.of(told), kind="timeout")
        return self._tried(task, job, told, "timeout")

    def _tried(
        self, task: Task[..., Any], job: Claimed, error: BaseException, kind: str
    ) -> Outcome:
        delay_ms: int | None = None
        if not isinstance(error, Fail) and job.attempt < job.attempts_max:
            delay_ms = error.delay_ms if isinstance(error, Retry) else None
            if delay_ms is None:
                # Asked before the failure is described: a broken callable adds a note to the error.
                policy = policy_for(job.policy, task.options.retry)
                delay_ms = policy.delay_ms(job.attempt, reason_of(error))
        failure = Failure.of(error)
        if delay_ms is None:
            return Outcome("fail", failure=failure, kind=kind)
        return Outcome("retry", delay_ms=delay_ms, failure=failure, kind=kind, deferred="retry")


def _from_its_function(error: BaseException) -> BaseException:
    """Without our own frames, the outermost ones, which tell the user nothing."""
    trace = error.__traceback__
    if trace is not None:
        trace = trace.tb_next
        while trace is not None and trace.tb_frame.f_code in CODES:
            trace = trace.tb_next
        error.__traceback__ = trace
    return error


def _listed(args: Any) -> list[Any]:
    if type(args) is not list:
        raise PayloadError(f"args holds {type(args).__name__}; it must be a JSON list")
    return args


def _named(kwargs: Any) -> dict[str, Any]:
    if type(kwargs) is not dict:
        raise PayloadError(f"kwargs holds {type(kwargs).__name__}; it must be a JSON object")
    return kwargs


def _failed(kind: str, message: str) -> Outcome:
    return Outcome("fail", failure=Failure(kind, message, ""), kind=kind)
