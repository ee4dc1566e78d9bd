"""How the threads of one client hear that something changed: one waker for all of them that wait."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.store.base import Waker

POLL = 0.1  # seconds between two looks at the most: a waker is a hint, never the only way
GAP_FIRST = 0.002  # and at the least: what is heard of is visible by then
GAP_PART = 20  # later this part of the time waited: who waited a minute does not mind 100 ms


class Watch:
    """One waker while anybody waits; one of the waiting threads listens, and tells the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = threading.Condition()
        self._waker: Waker | None = None
        self._waiting = 0
        self._led = False  # one thread listens
        self._changes = 0

    @contextmanager
    def waiting(self, make: Callable[[], Waker]) -> Iterator[None]:
        """Within it this thread may `sleep`; the first one makes the waker, the last one closes it."""
        with self._told:
            if self._waker is None:
                self._waker = make()
            self._waiting += 1
        try:
            yield
        finally:
            with self._told:
                self._waiting -= 1
                if not self._waiting:
                    self._waker.close()
                    self._waker = None

    @property
    def changes(self) -> int:
        """How many were heard of: taken before a look, for the sleep that follows the look."""
        return self._changes

    def sleep(self, seen: int, waited: float, longest: float) -> None:
        """Until something may have changed since `seen`; `longest` and `waited` in seconds.

        Every write of anybody is a change, so that who has waited long looks only now and then.
        """
        gap = min(max(GAP_FIRST, waited / GAP_PART), POLL)
        if self._waker is not None and self._waker.fileno() is not None:
            self._await_change(seen, min(longest, POLL))
        self._clock.sleep(min(gap, longest))

    def _await_change(self, seen: int, seconds: float) -> None:
        ends = self._clock.monotonic_ns() + int(seconds * 1e9)
        while True:
            with self._told:
                left = (ends - self._clock.monotonic_ns()) / 1e9
                if self._changes != seen or left <= 0:
                    return
                if self._led:
                    self._told.wait(left)
                    continue
                self._led = True
            self._lead(left)

    def _lead(self, seconds: float) -> None:
        heard = False
        try:
            heard = self._listen(seconds)
        finally:
            with self._told:
                self._led = False
                self._changes += heard
                self._told.notify_all()  # that something changed, or that somebody else must listen

    def _listen(self, seconds: float) -> bool:
        # Closed by the last who waits, and this thread waits.
        waker = self._waker
        descriptor = None if waker is None else waker.fileno()
        if waker is None or descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(int(seconds * 1000) + 1)
        return waker.drain() is not None
