"""One stream: what it wants, how far it has come in the ring, and what else it has been told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.supervisor.web.events.bulletin import Bulletin
from jobvisor.supervisor.web.events.message import OPENING, as_text, heartbeat, message
from jobvisor.supervisor.web.events.wanted import Wanted

CHUNK_MOST = 2 << 20
"""Bytes that are sent at once: one that is further behind reads too slowly."""

TOO_SLOW = "it reads too slowly"


class Reader:
    """Somebody who follows until he leaves, or is dropped."""

    def __init__(
        self,
        bulletin: Bulletin,
        wanted: Wanted,
        position: int | None,
        reset: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """It goes on from a position, or begins now; `reset` is why it is to look at everything first."""
        self.wanted = wanted
        self.is_new = position is None
        """It has no past here."""
        self.position = bulletin.ring.newest if position is None else position
        self.sending_ns = 0
        """Since when it has not taken what it was sent; 0 while it waits for more."""
        self.task: asyncio.Task[Any] | None = None
        """What sends to it."""
        self.has_left = False
        self._bulletin = bulletin
        self._clock = clock
        self._reset = reset
        self._end: str | None = None
        self._end_place: str | None = None
        self._beats = bulletin.beats
        self._families = 0
        self._trouble: str | None = None

    def end(self, reason: str) -> None:
        """It is told the reason, and its stream ends."""
        self._end = self._end or reason

    def leave(self) -> None:
        """It is not there any more."""
        self.has_left = True

    async def messages(self) -> AsyncIterator[bytes]:
        """What is to be sent, one piece after the other, until it ends."""
        self.sending_ns = self._clock.monotonic_ns()
        yield OPENING
        while not self.has_left:
            version = self._bulletin.version
            async for chunk in self._chunks():
                self.sending_ns = self._clock.monotonic_ns()
                yield chunk
            self.sending_ns = 0
            if self._end is not None:
                yield message("end", as_text({"reason": self._end}), self._end_place)
                return
            await self._bulletin.news(version, self._patience())

    async def _chunks(self) -> AsyncIterator[bytes]:
        """What there is for it now."""
        if chunk := self._of_trouble() + self._of_jobs() + self._of_family():
            yield chunk
        if (beat := self._of_beat()) and not chunk:
            yield beat

    def _patience(self) -> float | None:
        """Seconds after which it looks for more, also without news."""
        return None

    def _of_beat(self) -> bytes:
        before, self._beats = self._beats, self._bulletin.beats
        is_due = self._beats != before
        return heartbeat(self._bulletin.place(self.position)) if is_due else b""

    def _of_trouble(self) -> bytes:
        before, self._trouble = self._trouble, self._bulletin.trouble
        if self._trouble is None or self._trouble == before:
            return b""
        return message("trouble", as_text({"error": self._trouble}))

    def _of_jobs(self) -> bytes:
        ring = self._bulletin.ring
        if self.position == ring.newest and self._reset is None:
            return b""
        reset, self._reset = self._reset, None
        reached = ring.reaches(self.position)
        chunk = self._bulletin.jobs_after(self.position, self.wanted, reset) if reached else b""
        if not reached or len(chunk) > CHUNK_MOST:
            # It may come back, and go on from here: it is to look at everything first.
            self.end(TOO_SLOW)
            self.position = ring.newest
            return message(
                "reset", as_text({"reason": TOO_SLOW}), self._bulletin.place(ring.newest)
            )
        self.position = ring.newest
        self.is_new = False
        return chunk

    def _of_family(self) -> bytes:
        told = self._bulletin
        if not self.wanted.family or told.family is None or self._families == told.families:
            return b""
        self._families = told.families
        return told.family
