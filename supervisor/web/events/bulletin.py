"""What all readers are told: the ring of looks, the trouble there is, the family's word, and a beat.

One writer, the hub; any number of readers. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from jobvisor.supervisor.web.events.message import as_text, message
from jobvisor.supervisor.web.events.ring import Ring
from jobvisor.supervisor.web.events.wanted import Wanted

MADE_MOST = 8 << 20
"""Bytes of messages that are kept for further readers."""


class Bulletin:
    """Everything that is kept for them."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.trouble: str | None = None
        """Why nothing is seen now."""
        self.family: bytes | None = None
        """The message with the family's last word,"""
        self.families = 0
        """and its number."""
        self.beats = 0
        """Each is a sign of life to whom nothing else was sent since the one before."""
        self._era = secrets.token_hex(4)  # numbers of another process mean nothing here
        self.version = 0
        """Another one after each piece of news."""
        self._news = asyncio.Event()
        self._made: dict[tuple[int, Wanted, str | None], bytes] = {}
        self._made_at = 0
        self._made_bytes = 0

    def place(self, number: int) -> str:
        """A number of the ring as readers know it."""
        return f"{self._era}-{number}"

    def number(self, place: str | None) -> int | None:
        """The number that a reader brings back, where it is one of ours that the ring still reaches."""
        era, _, digits = (place or "").partition("-")
        if era != self._era or not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            return None
        number = int(digits)
        return number if self.ring.reaches(number) else None

    def jobs_after(self, number: int, wanted: Wanted, reset: str | None) -> bytes:
        """What happened after a number, as messages: made once for all who want the same."""
        if self._made_at != self.ring.newest:
            self._made_at = self.ring.newest
            self._made = {}
            self._made_bytes = 0
        key = (number, wanted, reset)
        found = self._made.get(key)
        if found is None:
            found = self._make(number, wanted, reset)
            # Whoever comes back with a place of his own is nearly alone with it; all others share one.
            if self._made_bytes + len(found) <= MADE_MOST:
                self._made[key] = found
                self._made_bytes += len(found)
        return found

    def _make(self, number: int, wanted: Wanted, reset: str | None) -> bytes:
        since = self.ring.since(number)
        reset = since.reset or reset
        place = self.place(self.ring.newest)
        texts = [each.text for each in since.told if wanted.wants(each)]
        made = b"" if reset is None else message("reset", as_text({"reason": reset}), place)
        if texts:
            made += message("jobs", f'{{"jobs":[{",".join(texts)}]}}', place)
        return made

    def wake(self) -> None:
        """There is something new."""
        self.version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def news(self, version: int, seconds: float | None = None) -> None:
        """Until there is something newer than that version, or so many seconds are over."""
        if self.version == version:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
