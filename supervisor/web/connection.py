"""One connection to the site: nobody keeps a place by being slow, or by not reading.

uvicorn waits for ever for the head of a request, and for whoever does not read its answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["CONNECTIONS_MAX", "Connection", "Limits", "Places"]

CONNECTIONS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take."""

    connections: int = CONNECTIONS_MAX
    head_s: float = 10.0
    """For the whole head of a request, from its first byte or the beginning of the connection."""
    read_s: float = 30.0
    """For a client that has stopped reading, while an answer is sent to it."""


class Places:
    """How many connections there may be; a further one takes the place of the oldest that asks nothing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._all: set[Connection] = set()
        self._asking_nothing: OrderedDict[Connection, None] = OrderedDict()

    def enter(self, connection: Connection) -> bool:
        """Whether there is a place for this one; it asks nothing yet."""
        while len(self._all) >= self.limits.connections:
            if not self._asking_nothing:
                return False
            oldest, _ = self._asking_nothing.popitem(last=False)
            self._all.discard(oldest)  # at once: the loop tells it later
            oldest.transport.abort()
        self._all.add(connection)
        self._asking_nothing[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """It is gone."""
        self._all.discard(connection)
        self._asking_nothing.pop(connection, None)

    def note(self, connection: Connection, *, asks: bool) -> None:
        """Whether it has a request under way; where it has had one before, it is the newest again."""
        if asks:
            self._asking_nothing.pop(connection, None)
        elif connection in self._all:
            self._asking_nothing.setdefault(connection)


class Connection(H11Protocol):
    """uvicorn's, with an end to each wait."""

    def __init__(self, *args: Any, places: Places) -> None:
        super().__init__(*args)
        self.places = places
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the loop: the first byte has its time, too."""
        super().connection_made(transport)
        if self.places.enter(self):
            self._mind_head()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.places.leave(self)
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        super().data_received(data)
        self._mind_head()

    def on_response_complete(self) -> None:
        """Called when an answer is sent."""
        super().on_response_complete()
        self._mind_head()

    def _mind_head(self) -> None:
        """Between two requests the clock runs, unless it is uvicorn's own of an idle connection."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.places.note(self, asks=True)
            if self._head is not None:
                self._head.cancel()
                self._head = None
            return
        self.places.note(self, asks=False)
        if self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(self.places.limits.head_s, self.transport.abort)

    def pause_writing(self) -> None:
        """Called by the transport: the client does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.places.limits.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by the transport: it does."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
