"""Connections of the task `http`: to addresses that are allowed, and with one end for all they do.

A name is looked up once, and what was looked up is what is judged and connected to; so is each redirect. No
proxy is used: it would connect to something else.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import httpcore
import httpx

from jobvisor.jobs.builtin.public import is_public
from jobvisor.jobs.clock import SECOND, SYSTEM

T = TypeVar("T")

LookUp = Callable[..., list[tuple[Any, ...]]]
"""What `socket.getaddrinfo` is."""

ADDRESSES_MAX = 8  # of one name are tried
PIECE_BYTES = 65_536
LOOK_SECONDS = 0.5  # between two looks whether the job is cancelled


class Refused(Exception):  # noqa: N818 -- `raise Refused` is a sentence
    """No connection is made to what was asked for."""


class Wire(httpcore.NetworkBackend):
    """Makes connections, for one run of a job."""

    def __init__(
        self,
        ends_ns: int,
        check: Callable[[], None],
        *,
        allow_private: bool,
        look_up: LookUp = socket.getaddrinfo,
    ) -> None:
        """All is over at `ends_ns` by the monotonic clock; `check` raises where the job is to end before."""
        self._ends_ns = ends_ns
        self._look_up = look_up
        self._check = check
        self._allow_private = allow_private
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first address of a name that is allowed and answers."""
        del timeout
        failed: Exception | None = None
        allowed = self._allowed(host, port)
        for number, address in enumerate(allowed):
            try:  # one that does not answer leaves time for those behind it
                left = self.left(httpcore.ConnectTimeout) / (len(allowed) - number)
                stream = self.beside(
                    partial(
                        self._backend.connect_tcp,
                        address,
                        port,
                        left,
                        local_address,
                        socket_options,
                    ),
                    undo=lambda made: made.close(),
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return Timed(stream, self)
        raise failed or httpcore.ConnectError(f"{host} has no address")

    def _allowed(self, host: str, port: int) -> list[str]:
        try:
            found = self.beside(partial(self._look_up, host, port, type=socket.SOCK_STREAM))
        except socket.gaierror as error:
            raise httpcore.ConnectError(f"{host} is not known: {error.strerror}") from error
        except (UnicodeError, OverflowError) as error:
            raise Refused(f"{host!r} is no name of a machine") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))[:ADDRESSES_MAX]
        allowed = [each for each in addresses if self._allow_private or is_public(each)]
        if addresses and not allowed:
            raise Refused(
                f"{host} is {', '.join(addresses)}, which is no address of the internet; "
                "allow_private=True allows it"
            )
        return allowed

    def beside(self, act: Callable[[], T], undo: Callable[[T], object] = lambda _made: None) -> T:
        """What this answers, in a thread: the system lets nobody break off what it does meanwhile.

        Where the time is over, or the job is to end, nobody waits for it: what it makes then is undone.
        """
        done = _Done(act, undo)
        thread = threading.Thread(target=done.run, name="http", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(min(self.left(httpcore.ConnectTimeout), LOOK_SECONDS))
        except BaseException:
            done.abandon()
            raise
        return done.answer()

    def left(self, late: type[httpcore.TimeoutException]) -> float:
        """The seconds that are left; `late` where none is."""
        self._check()
        seconds = (self._ends_ns - SYSTEM.monotonic_ns()) / SECOND
        if seconds <= 0:
            raise late("the time is over")
        return seconds


class _Done(Generic[T]):
    """What is done in another thread, and whether anybody still waits for it."""

    def __init__(self, act: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._act, self._undo = act, undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._made: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            made = self._act()
        except BaseException as error:  # noqa: BLE001 -- the border of a thread: raised by who waits
            self._error = error
            return
        with self._lock:
            if not self._abandoned:
                self._made.append(made)
                return
        self._undo(made)

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
        for made in self._made:
            self._undo(made)

    def answer(self) -> T:
        if self._error is not None:
            raise self._error
        return self._made[0]


class Timed(httpcore.NetworkStream):
    """A connection on which nothing goes on when the time is over, however slowly the other side sends."""

    def __init__(self, stream: httpcore.NetworkStream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What comes next, b"" at the end."""
        del timeout
        while True:
            left = self._wire.left(httpcore.ReadTimeout)
            try:
                return self._stream.read(max_bytes, min(left, LOOK_SECONDS))
            except httpcore.ReadTimeout:
                continue  # and `left` says whether there is time to go on

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of it."""
        del timeout
        for at in range(0, len(buffer), PIECE_BYTES):
            left = self._wire.left(httpcore.WriteTimeout)
            self._stream.write(buffer[at : at + PIECE_BYTES], left)

    def close(self) -> None:
        """End it."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Go on encrypted; the certificate is that of the name, not of the address."""
        del timeout
        left = self._wire.left(httpcore.ConnectTimeout)
        act = partial(self._stream.start_tls, ssl_context, server_hostname, left)
        return Timed(self._wire.beside(act, undo=lambda made: made.close()), self._wire)

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection."""
        return self._stream.get_extra_info(info)


class Transport(httpx.BaseTransport):
    """How a client of httpx sends its requests: over such connections."""

    def __init__(self, wire: Wire, trust: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=trust, max_connections=1, network_backend=wire
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its response is read by who asked."""
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
