"""Calls that wait, rest between two runs, and run on threads of this process; what a LocalQueue holds.

The threads know this and not the queue, so that a queue nobody refers to any more is closed. They are
daemons, because nothing else lets a program end while a call rests for an hour; what runs or waits when
it ends is waited for.
"""

from __future__ import annotations

import atexit
import heapq
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import QueueFull, error_text
from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import Cancelled, Fail, Release, Retry, Snooze, reason_of
from jobvisor.jobs.retry import Policy
from jobvisor.jobs.run_future import RunFuture, settle

CLOSED = (
    "cannot schedule new futures after shutdown"  # as the executors of the standard library say
)


class FailedCall(NamedTuple):
    """A call that failed for good."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    error: BaseException
    attempts: int
    """How often it ran."""


@dataclass(slots=True, eq=False)
class Call:
    """One call, until it has ended."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    future: RunFuture[Any]
    attempt: int = 0
    error: BaseException | None = None
    """What its last run raised."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How calls are run."""

    threads: int
    size: int | None
    patience_s: float | None
    retries: int
    policy: Policy
    on_failure: Callable[[FailedCall], object] | None
    name: str


@dataclass(order=True, slots=True)
class _Resting:
    due_ns: int
    number: int
    call: Call = field(compare=False)


class LocalCalls:
    """All calls of one queue, and their threads."""

    _all: ClassVar[WeakSet[LocalCalls]] = WeakSet()

    def __init__(self, manner: Manner, clock: Clock) -> None:
        self.pid = os.getpid()
        self.threads: set[threading.Thread] = set()
        """All that were begun; they leave when it is closed."""
        self.is_closed = False
        self._manner = manner
        self._clock = clock
        # One lock that its thread may take again: a queue is closed by the end of the last reference to
        # it, which may come at any moment.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._change = threading.Condition(self._lock)
        self._waiting: deque[Call] = deque()
        self._resting: list[_Resting] = []
        self._numbers = 0
        self._running = 0
        self._idle = 0
        self._is_ending = False
        self._all.add(self)

    # -- of whoever calls

    def put(self, call: Call) -> None:
        """One more to run; QueueFull where there is no room for it in time, RuntimeError after the end."""
        with self._lock:
            self._await_room()
            if self._idle <= len(self._waiting) and len(self.threads) < self._manner.threads:
                self._begin_thread()
            self._waiting.append(call)
            self._work.notify()

    def _await_room(self) -> None:
        if not self._has_room():
            full = f"the queue is full: {self._manner.size} calls wait"
            if self.is_mine():  # all threads might wait for each other
                raise QueueFull(f"{full}, and one that runs is not kept waiting for room")
            if not self._change.wait_for(self._has_room, self._manner.patience_s):
                raise QueueFull(f"{full}, still after {self._manner.patience_s:g} s")
        if self.is_closed:
            raise RuntimeError(CLOSED)

    def _has_room(self) -> bool:
        held = len(self._waiting) + len(self._resting)
        return self.is_closed or self._manner.size is None or held < self._manner.size

    def _begin_thread(self) -> None:
        name = f"{self._manner.name}_{len(self.threads)}"
        thread = threading.Thread(target=self._live, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self.threads:
                raise  # nobody would run it
        else:
            self.threads.add(thread)

    def withdraw(self, future: RunFuture[Any]) -> bool:
        """Whether its call was resting, and will not run again."""
        with self._lock:
            found = [each for each in self._resting if each.call.future is future]
            if not found:
                return False
            self._resting.remove(found[0])
            heapq.heapify(self._resting)
            self._work.notify_all()  # who sleeps until it is due need not, perhaps
            self._change.notify_all()
            return True

    def join(self, timeout_s: float | None) -> bool:
        """Until no call waits, rests or runs; False where that is not so in time."""
        with self._lock:
            return self._change.wait_for(self._is_done, timeout_s)

    def _is_done(self) -> bool:
        return not (self._waiting or self._resting or self._running)

    def close(self, *, cancels: bool = False) -> None:
        """No further call is taken. What waits or rests is run, or cancelled."""
        if self.pid != os.getpid():
            return  # a copy: its lock may be as somebody held it in the original
        with self._lock:
            self.is_closed = True
            given_up = [*self._waiting, *(each.call for each in self._resting)] if cancels else []
            if cancels:
                self._waiting.clear()
                self._resting.clear()
            self._work.notify_all()
            self._change.notify_all()
        for call in given_up:  # outside the lock: it calls what users want to hear
            call.future.end_cancelled()

    def is_mine(self) -> bool:
        """Whether this thread runs one of its calls."""
        return threading.current_thread() in self.threads

    def leave(self, timeout_s: float | None = None) -> None:
        """Until all its threads have left, once it is closed."""
        for thread in tuple(self.threads):
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    def end_with_program(self) -> None:
        """What waits is run; what rests has failed with its last error: nobody waits an hour for it."""
        with self._lock:
            self.is_closed = self._is_ending = True
            given_up = [each.call for each in self._resting]
            self._resting.clear()
        for call in given_up:
            self._fail(call, call.error)
        self.close()
        self.leave()

    @classmethod
    def end_all(cls) -> None:
        """Called at the end of the program."""
        for each in tuple(cls._all):
            if each.pid == os.getpid():
                each.end_with_program()

    # -- of its threads

    def _live(self) -> None:
        while (call := self._take()) is not None:
            try:
                self._run(call)
            except BaseException as error:  # noqa: BLE001 -- the border of a thread: others wait for it
                # Of a policy, a callback or a handler, which are not the call itself.
                settle(call.future, error=error)
                say("local_call_broken", error=error_text(error))
            finally:
                del call
                with self._lock:
                    self._running -= 1
                    self._change.notify_all()

    def _take(self) -> Call | None:
        """The next one to run; None where there will be none."""
        with self._lock:
            while True:
                self._rouse()
                if self._waiting:
                    self._running += 1
                    self._change.notify_all()
                    return self._waiting.popleft()
                if self.is_closed and not self._resting:
                    return None
                self._idle += 1
                self._work.wait(self._nap())
                self._idle -= 1

    def _rouse(self) -> None:
        """Let those wait whose rest is over."""
        now = self._clock.monotonic_ns()
        while self._resting and self._resting[0].due_ns <= now:
            self._waiting.append(heapq.heappop(self._resting).call)

    def _nap(self) -> float | None:
        if not self._resting:
            return None
        return max(0, self._resting[0].due_ns - self._clock.monotonic_ns()) / SECOND

    def _run(self, call: Call) -> None:
        if not call.future.running() and not call.future.set_running_or_notify_cancel():
            return
        call.attempt += 1
        try:
            value = call.function(*call.args, **call.kwargs)
        except BaseException as error:  # noqa: BLE001 -- the border of an attempt: its future has it
            self._raised(call, error)
        else:
            settle(call.future, value)
        finally:
            del call  # or the traceback, which the future keeps, would keep the arguments

    def _raised(self, call: Call, error: BaseException) -> None:
        call.error = error
        if isinstance(error, Cancelled):
            call.future.end_cancelled()
            return
        delay_ms = self._delay_ms(call, error)
        if delay_ms is None or not self._rest(call, delay_ms):
            self._fail(call, error)

    def _delay_ms(self, call: Call, error: BaseException) -> int | None:
        """When to run it again; None for never."""
        if isinstance(error, (Snooze, Release)):
            call.attempt -= 1  # given back
            return error.delay_ms if isinstance(error, Snooze) else 0
        if isinstance(error, Fail) or not isinstance(error, Exception):
            return None
        if call.attempt > self._manner.retries:
            return None
        asked = error.delay_ms if isinstance(error, Retry) else None
        return (
            self._manner.policy.delay_ms(call.attempt, reason_of(error)) if asked is None else asked
        )

    def _rest(self, call: Call, delay_ms: int) -> bool:
        """Whether there is a later for it."""
        with self._lock:
            if self._is_ending:
                return False
            self._numbers += 1
            due = self._clock.monotonic_ns() + delay_ms * 1_000_000
            heapq.heappush(self._resting, _Resting(due, self._numbers, call))
            self._work.notify()
            return True

    def _fail(self, call: Call, error: BaseException | None) -> None:
        told = error or RuntimeError("the program ends")
        call.error = None
        settle(call.future, error=told)
        if self._manner.on_failure is None:
            return
        failed = FailedCall(call.function, call.args, call.kwargs, told, call.attempt)
        try:
            self._manner.on_failure(failed)
        except Exception as broken:  # noqa: BLE001 -- somebody else's code, and the call has its end
            say("failure_handler_broken", error=error_text(broken))


atexit.register(LocalCalls.end_all)
