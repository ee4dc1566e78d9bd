"""uvicorn's protocol on sockets of ours: no signal is handled here, and nothing wakes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from email.utils import formatdate
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from jobvisor.supervisor.web.connection import CONNECTIONS_MAX, Connection, Limits, Places
from jobvisor.supervisor.web.gate import HEAD_BYTES_MAX

__all__ = ["Server", "ServerError", "listening_sockets"]

KEEP_ALIVE_S: Final = 5
DESCRIPTORS_KEPT: Final = 64
"""For the database, the log and all else; the rest may be connections."""
CONNECTIONS_LEAST: Final = 16
BACKLOG: Final = 256
ANSWER_S: Final = 0.3
"""For the answers that are being sent, when the server is closed."""
LEAVE_S: Final = 1.0
"""And then for what makes them."""
RESOLVE_S: Final = 5.0


class ServerError(Exception):
    """It cannot listen, for the reason this says."""


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on each address that this host has.

    Raises ServerError.
    """
    where = f"{_shown(host)}:{port}"
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise ServerError(
            f"the web role cannot listen on {where}: the name cannot be looked up ({reason})"
        ) from error
    addresses = list(dict.fromkeys((each[0], each[4]) for each in found))
    made: list[socket.socket] = []
    try:
        for family, address in addresses if port else addresses[:1]:
            made.append(_bound(family, address, alone=len(addresses) == 1))
    except OSError as error:
        for each in made:
            each.close()
        raise ServerError(f"the web role cannot listen on {where}: {_reason(error)}") from error
    return made


def _bound(family: int, address: tuple[str | int | bytes, ...], *, alone: bool) -> socket.socket:
    # By its protocol: of any other socket asyncio leaves Nagle's algorithm on, and as uvicorn sends head and
    # body apart, each answer waited 40 ms for the client to acknowledge its head.
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _reason(error: OSError) -> str:
    said = error.strerror or str(error)
    remedies = {
        errno.EADDRINUSE: "another program has the port; end it, or set [web] port",
        errno.EACCES: "this user may not have the port; set [web] port to one above 1023",
        errno.EADDRNOTAVAIL: "this machine has no such address; set [web] host",
        errno.EMFILE: "the process has no descriptor left; raise its limit (ulimit -n)",
    }
    return f"{said}; {remedies[error.errno]}" if error.errno in remedies else said


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Server:
    """An application that is served on sockets which listen already."""

    def __init__(self, app: ASGIApp, limits: Limits | None = None) -> None:
        self._config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=2 * HEAD_BYTES_MAX,
        )
        self._state = ServerState()
        self._places = Places(limits or Limits(_connections_most()))
        self._listeners: list[asyncio.Server] = []

    async def begin(self) -> None:
        """Start what the application starts with; ServerError where that fails."""
        self._config.load()
        self._lifespan = self._config.lifespan_class(self._config)
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise ServerError("the application of the web role cannot start; see the log")
        self.tick()

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Serve on these."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            made = await loop.create_server(self._connection, sock=each, backlog=BACKLOG)
            self._listeners.append(made)

    def _connection(self) -> Connection:
        return Connection(self._config, self._state, self._lifespan.state, places=self._places)

    def tick(self) -> None:
        """To be called each second, for the date in the answers."""
        date = formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]

    @property
    def requests(self) -> int:
        """How many are being answered now."""
        return len(self._state.tasks)

    @property
    def url(self) -> str:
        """Where it listens, "" while it does not."""
        if not self._listeners:
            return ""
        host, port = self._listeners[0].sockets[0].getsockname()[:2]
        return f"http://{_shown(host)}:{port}"

    async def close(self) -> None:
        """Listen no longer; who is being answered has a moment for it, streams are cut."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._tasks_end(ANSWER_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._tasks_end(LEAVE_S)  # a stream hears that nobody is there
        for task in self._state.tasks:
            task.cancel()
        await self._tasks_end(ANSWER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._lifespan.shutdown()

    async def _tasks_end(self, seconds: float) -> None:
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=seconds)


def _connections_most() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else soft - DESCRIPTORS_KEPT
    with contextlib.suppress(OSError):
        free -= len(os.listdir("/proc/self/fd"))
    return max(CONNECTIONS_LEAST, min(CONNECTIONS_MAX, free))
