"""All streams of one application: how many there may be, in which loop, and their common end."""

from __future__ import annotations

import asyncio

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.supervisor.web.events.family_word import FamilyWord
from jobvisor.supervisor.web.events.hub import STOPS, Hub
from jobvisor.supervisor.web.events.lookout import Lookout
from jobvisor.supervisor.web.events.message import Shown
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.site import Site

READERS_MOST = 500

RETRY_AFTER = {"Retry-After": "5"}


class Live:
    """The hubs of an application: one, unless somebody serves it in several event loops."""

    def __init__(
        self, site: Site, shown: Shown, *, most: int = READERS_MOST, clock: Clock = SYSTEM
    ) -> None:
        """`most` is how many readers there may be."""
        self._site = site
        self.shown = shown
        """Hides of a job's document what is not for everybody's eyes."""
        self._most = most
        self._clock = clock
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._is_closed = False

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(len(hub.readers) for hub in tuple(self._hubs.values()))

    @property
    def looks(self) -> int:
        """How often the database has been asked what changed."""
        return sum(hub.looks for hub in tuple(self._hubs.values()))

    def here(self) -> Hub:
        """The hub of the loop that this is called in.

        Raises Problem: 503 where there are as many readers as there may be, or the end has come.
        """
        if self._is_closed:
            raise Problem(503, STOPS, error="Stopping", headers=RETRY_AFTER)
        if self.readers >= self._most:
            raise Problem(
                503,
                f"{self._most} readers follow already; close some, or ask for pages instead",
                error="TooManyReaders",
                headers=RETRY_AFTER,
            )
        loop = asyncio.get_running_loop()
        for old in [each for each in self._hubs if each.is_closed()]:
            del self._hubs[old]
        if loop not in self._hubs:
            lookout = Lookout(self._site.client, self.shown, self._clock)
            word = FamilyWord(self._site.state, self._clock)
            self._hubs[loop] = Hub(lookout, word, self._clock)
        return self._hubs[loop]

    def close(self) -> None:
        """End all streams, and begin no other; from any thread. A server that is to stop waits for them."""
        self._is_closed = True
        for loop, hub in tuple(self._hubs.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(hub.end)
