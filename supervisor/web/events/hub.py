"""All readers in one event loop, and the looks that are made for them: ten a second while there is one.

The looks are made in a thread, one after the other; everything else happens in the loop, so nothing
here is locked. Without readers there is no look, no timer and no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.supervisor.web.events.bulletin import Bulletin
from jobvisor.supervisor.web.events.family_word import FamilyWord
from jobvisor.supervisor.web.events.lookout import BEGINS, Lookout, Seen
from jobvisor.supervisor.web.events.message import message
from jobvisor.supervisor.web.events.reader import Reader
from jobvisor.supervisor.web.events.stopping import server_stops

T = TypeVar("T")

GAP_NS = SECOND // 10
"""From the beginning of one look to that of the next at the least."""
REST = 4
"""A pause is so many times as long as the look before it: looks take a fifth of a processor at most."""
PAUSE_MOST_NS = SECOND
BEAT_NS = 15 * SECOND
"""Between two signs of life: what is in between forgets a connection after half a minute or later."""
STALLED_NS = 45 * SECOND
"""A reader that has not taken what it was sent for so long is dropped; our own server does it earlier."""
SWEEP_S = 1.0
"""While a look takes long the readers are seen to so often."""

PARTING_S = 2.0
"""For the end of a connection: a database that is away must not hold up the end of the server."""

STOPS = "the server stops"
BROKEN = "the server has met an error of its own"


class Found(NamedTuple):
    """What one look has found, in the database and beside it."""

    seen: Seen
    family: str | None


class Hub:
    """The readers of one loop."""

    def __init__(self, lookout: Lookout, family: FamilyWord, clock: Clock = SYSTEM) -> None:
        self.bulletin = Bulletin()
        self.readers: set[Reader] = set()
        self.looks = 0
        """How often it has looked."""
        self._lookout = lookout
        self._family = family
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """That one, and one that has no reader any more and closes its connection."""
        self._one_at_a_time = CapacityLimiter(1)
        self._beaten = clock.monotonic_ns()

    def where(self, place: str | None) -> tuple[int | None, str | None]:
        """The position of a reader that brings this back, and why it is to look at everything first."""
        number = self.bulletin.number(place)
        if number is None and self._lookout.is_sure:
            return None, BEGINS
        return number, None  # where it is not sure the word comes in a moment, to all

    def enter(self, reader: Reader) -> None:
        """One more; the first one has it begin."""
        self.readers.add(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
            self._task.add_done_callback(_tell_error)

    def leave(self, reader: Reader) -> None:
        """One less."""
        reader.leave()
        self.readers.discard(reader)
        self.bulletin.wake()

    def end(self, reason: str = STOPS) -> None:
        """All of them are told, and their streams end."""
        for reader in self.readers:
            reader.end(reason)
        self.bulletin.wake()

    async def _run(self) -> None:
        try:
            while self.readers:
                began = self._clock.monotonic_ns()
                self._publish(await self._find())
                self._sweep()
                took = self._clock.monotonic_ns() - began
                pause = min(max(GAP_NS - took, REST * took), PAUSE_MOST_NS)
                await asyncio.sleep(pause / SECOND)
        finally:
            self._task = None
            self.end(BROKEN)  # there is none, but where this has failed
            with suppress(TimeoutError):
                async with asyncio.timeout(PARTING_S):
                    await self._in_thread(self._lookout.rest)

    async def _find(self) -> Found:
        """A look; the readers are seen to meanwhile."""
        jobs = frozenset[int]().union(*(reader.wanted.jobs for reader in self.readers))
        look = asyncio.ensure_future(self._in_thread(partial(self._look, jobs)))
        try:
            while not look.done():
                await asyncio.wait({look}, timeout=SWEEP_S)
                self._sweep()
        finally:
            look.cancel()
        return look.result()

    def _look(self, jobs: frozenset[int]) -> Found:
        """In the thread."""
        self.looks += 1
        return Found(self._lookout.look(jobs), self._family.fresh())

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await to_thread.run_sync(act, limiter=self._one_at_a_time, abandon_on_cancel=True)

    def _publish(self, found: Found) -> None:
        told, seen = self.bulletin, found.seen
        if seen.began:
            told.ring.add(reset=BEGINS)
            for reader in self.readers:  # who begins now has missed nothing
                if reader.is_new:
                    reader.position = told.ring.newest
        if seen.told or seen.reset:
            told.ring.add(seen.told, seen.reset)
        if found.family is not None:
            told.family = message("family", found.family)
            told.families += 1
        is_new = seen.began or seen.told or seen.reset or found.family
        if is_new or seen.trouble != told.trouble:
            told.trouble = seen.trouble
            told.wake()

    def _sweep(self) -> None:
        """What time brings: a sign of life, the end of those that take nothing, the end of the server."""
        now = self._clock.monotonic_ns()
        if now - self._beaten >= BEAT_NS:
            self._beaten = now
            self.bulletin.beats += 1
            self.bulletin.wake()
        for reader in self.readers:
            if reader.sending_ns and now - reader.sending_ns > STALLED_NS and reader.task:
                reader.task.cancel()
        if server_stops():
            self.end()


def _tell_error(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        told = {"message": "the looks for /api/v1/events have failed", "exception": error}
        task.get_loop().call_exception_handler(told)
