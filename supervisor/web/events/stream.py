"""The answer to one reader: its messages as they come, until it leaves, is dropped, or all is over."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobvisor.supervisor.web.events.hub import Hub
from jobvisor.supervisor.web.events.reader import Reader

MEDIA_TYPE = "text/event-stream"


class Stream(Response):
    """An answer without an end of its own."""

    media_type = MEDIA_TYPE

    def __init__(self, hub: Hub, reader: Reader) -> None:
        # A proxy that keeps what it is sent until there is more would keep it for ever.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the framework, once."""
        del scope
        self._reader.task = asyncio.current_task()
        self._hub.enter(self._reader)
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._send(send)
        finally:
            watch.cancel()
            self._hub.leave(self._reader)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self._reader.messages():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, receive: Receive) -> None:
        """Until it has gone away: then nothing is waited for any more."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._hub.leave(self._reader)
