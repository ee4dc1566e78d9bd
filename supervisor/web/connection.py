"""One connection to the site: nobody keeps a place by being slow, or by not reading.

uvicorn waits for ever for the head of a request, and for whoever does not read its answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["Connection", "Places"]

HEAD_SECONDS: Final = 10.0
"""For the whole head of a request, from its first byte or the beginning of the connection."""
READ_SECONDS: Final = 30.0
"""For a client that has stopped reading, while an answer is sent to it."""


class Places:
    """How many connections there may be; a further one takes the place of the oldest that asks nothing."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._asking_nothing: OrderedDict[Connection, None] = OrderedDict()

    def waits(self, connection: Connection) -> None:
        """This one has no request under way."""
        self._asking_nothing[connection] = None

    def asks(self, connection: Connection) -> None:
        """This one has a request under way, or is gone."""
        self._asking_nothing.pop(connection, None)

    def make_room(self, count: int) -> bool:
        """Whether there is room for the newest of so many."""
        while count > self.most and len(self._asking_nothing) > 1:
            oldest, _ = self._asking_nothing.popitem(last=False)
            oldest.transport.abort()
            count -= 1
        return count <= self.most


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
        self.places.waits(self)
        if not self.places.make_room(len(self.connections)):
            self.transport.abort()
            return
        self._mind_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.places.asks(self)
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
            self.places.asks(self)
            if self._head is not None:
                self._head.cancel()
                self._head = None
            return
        self.places.waits(self)
        if self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Called by the transport: the client does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by the transport: it does."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
