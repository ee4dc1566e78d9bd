"""`async def` tasks of a worker with several lanes: one loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
from asyncio import AbstractEventLoop, CancelledError, TimerHandle
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from traceback import StackSummary
from types import CoroutineType
from typing import Any

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import error_text
from jobvisor.jobs.execution import Begun
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import say
from jobvisor.jobs.loop import Run, called, caught, new_loop, note_generators, within
from jobvisor.jobs.outcome import Cancelled, Outcome
from jobvisor.jobs.task import Task
from jobvisor.supervisor.autopsy.frames import lane_of, of_task
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.several.backlog import Claim, Waiting
from jobvisor.supervisor.several.lane import LaneOfSeveral
from jobvisor.supervisor.several.lanes import Given
from jobvisor.supervisor.several.shared import Shared

BEAT_SECONDS = 0.25  # while a coroutine runs
AT_ONCE = 32  # jobs that are begun in a row, about half a millisecond
BLOCKED_NS = SECOND  # without a beat of the loop, before that is said
PROVEN_NS = SECOND // 2  # that one step of a job is seen to last, before it is held to be the cause
THREADS_LEAST = 32  # for `asyncio.to_thread`

TIMEOUT, CANCEL = "timeout", "cancel"


class JobRun(Run):
    """The run of one job."""

    __slots__ = ("asked", "claim", "coroutine", "has_ended", "job", "lane", "timer")

    def __init__(
        self,
        lane: LaneOfSeveral,
        job: Claimed,
        claim: Claim,
        coroutine: CoroutineType[Any, Any, Any] | None = None,
    ) -> None:
        """`coroutine` where the function was called already."""
        super().__init__(lane.own(within), lane.own(called))
        self.coroutine = coroutine
        self.lane = lane
        self.job = job
        self.claim = claim
        self.timer: TimerHandle | None = None
        self.asked = ""
        """Why it was asked to end: TIMEOUT or CANCEL."""
        self.has_ended = False

    def ask_to_end(self, why: str) -> None:
        """Cancel it, in the loop; the first reason counts, and none once its function has ended."""
        if not self.asked and not self.has_ended and self.main is not None:
            self.asked = why
            self.main.cancel()

    def function_has_ended(self) -> None:
        """It cannot be asked to end any more."""
        self.has_ended = True
        if self.timer is not None:
            self.timer.cancel()


class Coroutines:
    """What the loop does."""

    def __init__(
        self, shared: Shared, *, clock: Clock, grace_ms: int, beat: Callable[[int], None]
    ) -> None:
        """A job that was cancelled at its deadline has `grace_ms` to end.

        `beat` is told the time again and again while jobs run, and 0 when none does.
        """
        self._lanes = shared.lanes
        self._backlog = shared.backlog
        self._outcomes = shared.outcomes
        self._bell = shared.bell
        self._execution = shared.execution
        self.broken = shared.broken
        self._clock = clock
        self._grace_ns = grace_ms * 1_000_000
        self._beat = beat
        self._pid = os.getpid()
        self._loop: AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._running: dict[int, JobRun] = {}  # by lane
        self._beats = False
        self._beaten_ns = self._told_of = self._told_ns = 0
        self._blocker: int | None = None  # the lane that was seen in each look since then
        self._thread_id = 0

    # -- from any thread

    def give(self, given: list[Given]) -> None:
        """Let the loop begin these."""
        self._started().call_soon_threadsafe(self._begin_each, given)

    def take_over(self, run: JobRun, task: Task[..., Any], context: Context) -> None:
        """A job that has begun in a thread goes on in the loop: its function gave a coroutine."""
        self._started().call_soon_threadsafe(
            self._go_on, run, (task, task.function, [], {}), context
        )

    def attend(
        self, coroutine: Coroutine[Any, Any, Any], context: Context
    ) -> tuple[Any, BaseException | None]:
        """Wait for a coroutine of no job: what it returned, or what it raised; what it has left goes on."""
        loop = self._started()
        ended: Future[tuple[Any, BaseException | None]] = Future()

        def begin() -> None:
            task = asyncio.Task(caught(coroutine), loop=loop, context=context)
            task.add_done_callback(lambda task: ended.set_result(_result_of(task)))

        loop.call_soon_threadsafe(begin)
        return ended.result()

    def ask_to_end(self, lane: LaneOfSeveral, job: int, claim: int) -> None:
        """The job of a lane is to be cancelled, if it is the loop's and that one."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ask_to_end, lane, job, claim)

    def _started(self) -> AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = new_loop(max(THREADS_LEAST, self._lanes.count), ends_copies=True)
                thread = threading.Thread(target=self._live, name="loop", daemon=True)
                thread.start()
            return self._loop

    def note_blocked(self, now: int) -> None:
        """Say once where a job keeps the loop from going round."""
        beaten = self._beaten_ns
        if not beaten or now - beaten < BLOCKED_NS:
            return
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 -- documented so
        if frame is None or frame.f_code.co_filename == selectors.__file__:
            self._blocker = None  # it waits for something to do: this machine is slow, and no job
            return
        lane = lane_of(frame)
        if self._told_of == beaten:
            if lane != self._blocker:
                self._blocker = None  # each takes long, and nobody all of it
            return
        self._told_of, self._told_ns, self._blocker = beaten, now, lane
        run = self._running.get(lane) if lane is not None else None
        say(
            "loop_blocked",
            seconds=f"{(now - beaten) / SECOND:.1f}",
            job=run.job.id if run is not None else "unknown",
            task=run.job.task if run is not None else "unknown",
            trace="".join(
                StackSummary.extract((each, each.f_lineno) for each in of_task(frame)).format()
            ),
        )

    def blocker(self) -> int | None:
        """The lane whose job has kept the loop from going round, where one step of it took so long.

        A loop takes each of its tasks up once in a round: who was seen on its stack long ago in this round,
        and ever since, has not come back to it.
        """
        proven = (
            self._told_of == self._beaten_ns != 0
            and self._clock.monotonic_ns() - self._told_ns >= PROVEN_NS
        )
        return self._blocker if proven else None

    def tasks(self, lane: int) -> list[asyncio.Task[Any]]:
        """Of the coroutine that runs in a lane: its first task, then those that it has started."""
        run = self._running.get(lane)
        return [] if run is None or run.main is None else [run.main, *run.tasks]

    # -- in the loop

    def _live(self) -> None:
        loop = self._loop
        assert loop is not None
        self._thread_id = threading.get_ident()
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.call_soon(note_generators)
                loop.run_forever()  # until a user's callback stops it, or raises one of these
            except (SystemExit, KeyboardInterrupt) as error:
                self.leave_if_copy()
                say("callback_broken", error=error_text(error), trace=error)
            except BaseException as error:  # noqa: BLE001 -- the loop's own: closed, or without its descriptors
                self.leave_if_copy()
                self.broken(error)
                return

    def leave_if_copy(self) -> None:
        """A task has forked, and its copy found its way back to us: the loop is the original's."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _begin_each(self, given: list[Given]) -> None:
        try:
            for lane, waiting in given[:AT_ONCE]:
                self._begin(lane, waiting)
        except BaseException as error:  # noqa: BLE001 -- the border of a lane: the conductor ends the process
            self.broken(error)
        if len(given) > AT_ONCE:
            self._started().call_soon(self._begin_each, given[AT_ONCE:])

    def _begin(self, lane: LaneOfSeveral, waiting: Waiting | None) -> None:
        """Begin a lane's next job, after those that must not begin."""
        while waiting is not None:
            job, claim, is_coroutine = waiting
            if not is_coroutine:
                self._lanes.to_thread((lane, waiting))
                return
            if lane.start(job, claim.number, self._grace_ns):
                context, waited_ns = self._execution.context.copy(), lane.began_ns - claim.at_ns
                begun = context.run(self._execution.begin, job, lane.ends_ns, waited_ns, lane)
                self._run(JobRun(lane, job, claim), begun, context)
                return
            self._backlog.withdrew(job, claim)
            waiting = self._lanes.next(lane)

    def _go_on(self, run: JobRun, begun: Begun, context: Context) -> None:
        run.lane.prolong(self._grace_ns)
        self._run(run, begun, context)

    def _run(self, run: JobRun, begun: Begun | Outcome, context: Context) -> None:
        lane, loop = run.lane, self._loop
        assert loop is not None
        lane.measure_nothing()
        self._running[lane.number] = run
        if not self._beats:
            self._beat_on()
        if lane.ends_ns:
            run.timer = loop.call_at(lane.ends_ns / SECOND, run.ask_to_end, "timeout")
        run.begin(loop, lane.own(live)(self, run, begun), context)

    def outcome_of(
        self, run: JobRun, task: Task[..., Any], value: Any, failed: BaseException | None
    ) -> Outcome:
        """What its function has returned or raised, and why it was asked to end, as an outcome."""
        failed = run.broken_by or failed
        if failed is None:
            return self._execution.returned(value)
        if run.asked == TIMEOUT:
            return self._execution.timed_out(task, run.job, failed)
        if run.asked == CANCEL and isinstance(failed, CancelledError):
            failed = Cancelled("asked to end").with_traceback(failed.__traceback__)
        return self._execution.raised(task, run.job, failed)

    async def keep(self, run: JobRun, outcome: Outcome) -> None:
        """Keep an outcome, then go on with what the lane does next."""
        lane = run.lane
        del self._running[lane.number]
        entry = lane.end(run.job, outcome)
        if entry is not None:
            await self._settled(entry)
        lane.leave()
        following = self._lanes.next(lane)
        if self._bell.for_outcome:
            self._bell.ring()
        self._begin(lane, following)

    async def _settled(self, entry: Entry) -> None:
        """Wait until a turn has brought an outcome to the database, whoever cancels what meanwhile."""
        loop = asyncio.get_running_loop()
        settled = loop.create_future()
        self._outcomes.keep(entry, lambda: loop.call_soon_threadsafe(settled.set_result, None))
        while not settled.done():
            with suppress(CancelledError):
                await asyncio.wait([settled])

    def _ask_to_end(self, lane: LaneOfSeveral, job: int, claim: int) -> None:
        run = self._running.get(lane.number)
        if run is not None and (run.job.id, run.claim.number) == (job, claim):
            run.ask_to_end(CANCEL)

    def _beat_on(self) -> None:
        """As long as a coroutine runs, show that the loop goes round."""
        self._beats = bool(self._running)
        self._beaten_ns = self._clock.monotonic_ns() if self._beats else 0
        self._beat(self._beaten_ns)
        if self._beats:
            asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat_on)


async def live(loop: Coroutines, run: JobRun, begun: Begun | Outcome) -> None:
    """The outermost function of a job on the loop, from its first line to its outcome, kept.

    The coroutine of the task is awaited here and nowhere deeper: what is thrown in reaches it as it is.
    """
    try:
        if isinstance(begun, Outcome):
            outcome = begun
        else:
            task, function, args, kwargs = begun
            value, failed = None, None
            try:
                value = function(*args, **kwargs) if run.coroutine is None else run.coroutine
                if isinstance(value, CoroutineType):
                    value = await value
            except BaseException as error:  # noqa: BLE001 -- the border of an attempt: nothing a task raises passes
                failed = error
            loop.leave_if_copy()
            run.function_has_ended()
            if run.has_left:
                # Before the outcome is kept: or what it has left would go on beside its next run.
                await run.end()
            outcome = loop.outcome_of(run, task, value, failed)
        await loop.keep(run, outcome)
    except BaseException as error:  # noqa: BLE001 -- the border of a lane: the conductor ends the process
        loop.broken(error)


def _result_of(
    task: asyncio.Task[tuple[Any, BaseException | None]],
) -> tuple[Any, BaseException | None]:
    return (None, CancelledError()) if task.cancelled() else task.result()
