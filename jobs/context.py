"""What a running task may ask: which attempt it is, how much time is left, whether to stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol

from jobvisor.jobs.clock import SYSTEM, to_datetime
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.headers import NONE, SCHEDULED_FOR
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Cancelled, Release
from jobvisor.jobs.running import Place, running
from jobvisor.jobs.task import Injected
from jobvisor.jobs.units import Duration, duration_ms

NOTE_MAX = 200  # characters
PROGRESS_MAX = 480  # bytes of JSON: a progress fits into the ledger's header

_log = logging.getLogger("jobvisor.task")


class Port(Protocol):
    """Where a context's questions and words go; a worker answers for a family."""

    def progress(self, job: int, text: str, /) -> None:
        """Show how far a job has come (JSON); heard of the current one only."""

    def cancelled(self, job: int, /) -> bool:
        """Whether somebody asked a job to end."""

    def stopping(self) -> bool:
        """Whether this worker is to leave."""


class Nobody:
    """The port of a job run outside a family: nothing asks it to end."""

    def __init__(self) -> None:
        self.last: str | None = None
        """Its last progress (JSON), which belongs to its outcome."""

    def progress(self, _job: int, text: str, /) -> None:
        """Keep it; nobody looks while the job runs."""
        self.last = text

    def cancelled(self, _job: int, /) -> bool:
        """Never: there is nobody who could."""
        return False

    def stopping(self) -> bool:
        """Never: there is no worker."""
        return False


class Context(Injected):
    """Injected as the first parameter of a task that annotates it `Context`.

    Attributes:
        job: The id of the job.
        task: The name of its task.
        queue: Its queue.
        attempt: This run, counted from 1.
        attempts_max: How many runs it has in all.
        headers: What whoever enqueued it sent along beside the arguments, such as its `trace`.
        place: The number of its place in its limit, from 0, which no other running job of the same key
            has: a GPU, a port, a licence. None without a limit that has a `concurrency`.
        deadline: When the run will be killed (aware UTC), None where it has no timeout.
        worker: The name of the worker, such as `worker 2`.
        log: A logger whose lines carry the job's id, task and attempt.
        state: A dictionary that lives as long as the worker process, for what is dear to make.
    """

    __slots__ = (
        "_clock", "_ends_ns", "_port", "attempt", "attempts_max", "headers", "job", "log", "place",
        "queue", "state", "task", "worker",
    )  # fmt: skip

    def __init__(
        self, job: Claimed, headers: Mapping[str, Any], ends_ns: int, port: Port, place: Place
    ) -> None:
        self.job = job.id
        self.task = job.task
        self.queue = job.queue
        self.attempt = job.attempt
        self.attempts_max = job.attempts_max
        self.headers = headers
        self.place = job.place
        self.worker = place.worker
        self.state = place.state
        fields = {"job": job.id, "task": job.task, "attempt": job.attempt}
        self.log = logging.LoggerAdapter(_log, {"fields": fields})
        self._ends_ns = ends_ns
        self._port = port
        self._clock = place.clock

    @staticmethod
    def for_test(
        *,
        job: int = 1,
        task: str = "test",
        queue: str = "default",
        attempt: int = 1,
        attempts_max: int = 1,
        timeout: Duration | None = None,
        worker: str = "test",
        state: MutableMapping[str, Any] | None = None,
        headers: Mapping[str, Any] = NONE,
        place: int | None = None,
    ) -> ContextForTest:
        """A context to call a task with in a unit test; nothing is stored and nobody enforces anything.

        >>> ctx = Context.for_test(attempt=2, attempts_max=3)
        >>> ctx.progress(1, total=3)
        >>> ctx.attempt, ctx.told
        (2, [{'done': 1, 'total': 3}])
        >>> ctx.ask_to_cancel()
        >>> ctx.cancelled
        True
        """
        claimed = Claimed(
            job, task, "[]", "{}", attempt, attempts_max, attempt, None, 0, 0, None, queue, 0
        )
        ends_ns = SYSTEM.monotonic_ns() + duration_ms(timeout) * 1_000_000 if timeout else 0
        where = Place(worker, SYSTEM, state={} if state is None else state)
        return ContextForTest(claimed._replace(place=place), headers, ends_ns, Rehearsal(), where)

    @property
    def deadline(self) -> datetime | None:
        """When the run will be killed, None for never."""
        if not self._ends_ns:
            return None
        ahead_ms = (self._ends_ns - self._clock.monotonic_ns()) // 1_000_000
        return to_datetime(self._clock.now_ms() + ahead_ms)

    @property
    def scheduled_for(self) -> datetime | None:
        """The tick of a schedule that this job was made for (aware UTC); None where there was none."""
        found = self.headers.get(SCHEDULED_FOR)
        try:
            moment = datetime.fromisoformat(found) if isinstance(found, str) else None
            known = moment is not None and moment.utcoffset() is not None
            return moment.astimezone(UTC) if moment is not None and known else None
        except (ValueError, OverflowError):  # whoever enqueued it by hand may have written anything
            return None

    @property
    def remaining(self) -> float | None:
        """Seconds until the run will be killed, None for never."""
        if not self._ends_ns:
            return None
        return max(0.0, (self._ends_ns - self._clock.monotonic_ns()) / 1e9)

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked this job to end; after `cancel_grace` it is killed."""
        return self._port.cancelled(self.job)

    @property
    def stopping(self) -> bool:
        """Whether the worker is to leave soon; after `stop_timeout` it is killed, the job uncharged.

        One that may finish its jobs first, in a reload or because there are to be fewer workers, is to
        leave soon when no more than `stop_timeout` is left of its time.
        """
        return self._port.stopping()

    def check(self) -> None:
        """Raise Cancelled or Release if the job should end now, for loops without a better place."""
        if self._port.cancelled(self.job):
            raise Cancelled("asked to end")
        if self._port.stopping():
            raise Release

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Show how far the job has come; written to the row within about a second, the last one wins.

        `note` is cut to 200 characters.
        """
        told: dict[str, Any] = {"done": done}
        if total is not None:
            told["total"] = total
        if note:
            told["note"] = note[:NOTE_MAX]
        try:
            text = _short(told)
        except (ValueError, TypeError) as error:
            raise InvalidOption(
                f"progress: {shown(done)} of {shown(total)} is not a finite number that JSON has; "
                "give an int or a float"
            ) from error
        self._port.progress(self.job, text)


def current() -> Context | None:
    """The Context of the job that runs here, None outside of one.

    At any depth of its calls, in its asynchronous tasks, and in threads that were started with a copy of
    its context (`asyncio.to_thread`, `contextvars.copy_context().run`); not in other threads.

    >>> print(current())
    None
    """
    found = running.get()
    return None if found is None else Context(*found)


class Rehearsal:
    """The port of a context that a test made: it does what the test says."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.cancel = False
        self.stop = False

    def progress(self, _job: int, text: str, /) -> None:
        """Keep all that was shown."""
        self.told.append(json.loads(text))

    def cancelled(self, _job: int, /) -> bool:
        """What the test said."""
        return self.cancel

    def stopping(self) -> bool:
        """What the test said."""
        return self.stop


class ContextForTest(Context):
    """What `Context.for_test` makes: a context that a test asks and steers."""

    __slots__ = ()

    _port: Rehearsal

    @property
    def told(self) -> list[dict[str, Any]]:
        """Every progress that the task has shown, in order."""
        return self._port.told

    def ask_to_cancel(self) -> None:
        """From now on the job is asked to end: `cancelled` is true, `check` raises Cancelled."""
        self._port.cancel = True

    def ask_to_stop(self) -> None:
        """From now on the worker is to leave: `stopping` is true, `check` raises Release."""
        self._port.stop = True


def _short(told: dict[str, Any]) -> str:
    """The JSON of a progress, its note shortened until it fits."""
    text = json.dumps(told, allow_nan=False, ensure_ascii=False)
    while len(text.encode(errors="replace")) > PROGRESS_MAX:
        if not told.get("note"):
            raise ValueError(text)
        told["note"] = told["note"][: len(told["note"]) * 3 // 4]
        text = json.dumps(told, allow_nan=False, ensure_ascii=False)
    return text.encode(errors="replace").decode()
