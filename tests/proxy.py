"""A stretch of network between clients and a server that a test can cut, freeze and slow down."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

CHUNK = 1 << 16
QUEUED = 64  # chunks under way in one direction
LIMIT_SECONDS = 20.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: a close is a reset
READY = re.compile(rb"Z\x00\x00\x00\x05[ITE]")  # PostgreSQL's ReadyForQuery: the answer is complete

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Pattern:
    text: bytes
    arrives: bool


class _AnsweredError(Exception):
    """The server has answered what its client shall hear nothing of."""


class _Link:
    """One connection of a client and its other half to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.server.setblocking(False)
        self.lost = False  # something that was sent never arrived
        self.sent = self.answered = b""  # the ends of what went by, for what lies across two chunks
        self.deaf = False  # the client is to hear nothing more

    def close(self, *, reset: bool) -> None:
        for end in (self.client, self.server):
            if reset:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.close()


class Proxy:
    """Forwards TCP from a port of its own to one server, in a thread."""

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.1") -> None:
        self.host = listen
        self.port = 0
        #: How often the pattern of a `drop_before` or `drop_after` has come by.
        self.met = 0
        self._server = (host, port)
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._frozen = False
        self._delay = 0.0
        self._pattern: _Pattern | None = None
        self._door: asyncio.Task[None] | None = None
        self._held: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._open())

    def url(self, url: str) -> str:
        """The same database, reached through here."""
        parts = urlsplit(url)
        user, at, _place = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{self.host}:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    # -- what may befall it

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until `restore`."""
        self._do(self._cut())

    def freeze(self) -> None:
        """Half-open until `restore`: whatever is sent, on old and new connections, never arrives."""
        self._do(self._become(frozen=True))

    def delay(self, seconds: float) -> None:
        """Everything takes this much longer, each way."""
        self._do(self._become(delay=seconds))

    def drop_before(self, text: bytes) -> None:
        """The next message that has this never reaches the server; its connection is reset."""
        self._do(self._become(pattern=_Pattern(text, arrives=False)))

    def drop_after(self, text: bytes) -> None:
        """The next message that has this is done by the server; in place of the answer is a reset."""
        self._do(self._become(pattern=_Pattern(text, arrives=True)))

    def restore(self) -> None:
        """A sound network; connections that have lost data in a freeze are reset."""
        self._do(self._restore())

    def close(self) -> None:
        """Reset every connection, and end."""
        if self._thread.is_alive():
            self._do(self._cut())
            if self._held is not None:
                self._held.close()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LIMIT_SECONDS)
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- in the thread

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_SECONDS)

    async def _open(self) -> None:
        if self._door is not None:
            return
        door = self._held or self._bound()
        self._held = None
        door.listen(128)
        self._door = self._loop.create_task(self._accept(door))

    def _bound(self) -> socket.socket:
        """A socket on our port that refuses, since it does not listen; nobody else can have the port."""
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.setblocking(False)
        door.bind((self.host, self.port))
        self.port = door.getsockname()[1]
        return door

    async def _cut(self) -> None:
        if self._door is not None:
            self._door.cancel()
            await asyncio.wait([self._door])
            self._door = None
            self._held = self._bound()
        await self._reset(set(self._links))

    async def _become(
        self,
        *,
        frozen: bool | None = None,
        delay: float | None = None,
        pattern: _Pattern | None = None,
    ) -> None:
        self._frozen = self._frozen if frozen is None else frozen
        self._delay = self._delay if delay is None else delay
        self._pattern = pattern or self._pattern

    async def _restore(self) -> None:
        self._frozen, self._delay, self._pattern = False, 0.0, None
        await self._reset({task for task, link in self._links.items() if link.lost})
        await self._open()

    async def _reset(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _accept(self, door: socket.socket) -> None:
        with door:
            while True:
                client, _address = await self._loop.sock_accept(door)
                client.setblocking(False)
                link = _Link(client)
                task = self._loop.create_task(self._serve(link))
                self._links[task] = link
                task.add_done_callback(self._links.pop)

    async def _serve(self, link: _Link) -> None:
        reset = True
        try:
            if self._frozen:
                link.lost = True
                await asyncio.Event().wait()
            await self._loop.sock_connect(link.server, self._server)
            async with asyncio.TaskGroup() as group:
                for way in (self._up, self._down):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED)
                    source = link.client if way == self._up else link.server
                    group.create_task(self._take(source, queue))
                    group.create_task(way(link, queue))
            reset = False
        except* _AnsweredError:
            # What it was sent is the server's: after a reset it would throw away the unread.
            await self._bid_farewell(link.server)
        except* OSError:
            reset = True  # as one end did, so the other
        finally:
            link.close(reset=reset)

    async def _take(self, source: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"something"
        while data:
            data = await self._loop.sock_recv(source, CHUNK)
            await queue.put((self._loop.time() + self._delay, data))

    async def _arrived(self, link: _Link, queue: asyncio.Queue[tuple[float, bytes]]) -> bytes:
        """What comes out at the other end; after a loss nothing does, not even the end."""
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            link.lost = link.lost or self._frozen
            if not link.lost:
                return data

    async def _up(self, link: _Link, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while data := await self._arrived(link, queue):
            if self._pattern is not None:
                self._watch(self._pattern, link, data)
            await self._loop.sock_sendall(link.server, data)
        link.server.shutdown(socket.SHUT_WR)

    async def _down(self, link: _Link, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while data := await self._arrived(link, queue):
            if link.deaf:
                link.answered = link.answered[-len("Z....") :] + data
                if READY.search(link.answered):
                    raise _AnsweredError
            else:
                await self._loop.sock_sendall(link.client, data)
        if link.deaf:
            raise _AnsweredError
        link.client.shutdown(socket.SHUT_WR)

    def _watch(self, pattern: _Pattern, link: _Link, data: bytes) -> None:
        link.sent = link.sent[1 - len(pattern.text) :] + data
        if pattern.text not in link.sent:
            return
        self._pattern = None
        self.met += 1
        if not pattern.arrives:
            raise ConnectionResetError
        link.deaf = True

    async def _bid_farewell(self, server: socket.socket) -> None:
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(server, CHUNK):
                pass
