"""An HTTP server of one thread per connection that does what a test says, well or badly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

Does = Callable[[socket.socket], None]


@dataclass
class Call:
    """What a client has sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> Does:
    """An answer as it should be."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    names.setdefault("Content-Length", str(len(body)))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in names.items())]
    text = "\r\n".join([*lines, "", ""]).encode()
    return lambda connection: connection.sendall(text + body)


@dataclass
class Server:
    """Listens on this machine; each call takes the next of `does`, the last one again and again."""

    does: list[Does]
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    calls: list[Call] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        self._open: list[socket.socket] = []
        self._leave = threading.Event()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.bind((self.address, 0))
        self._socket.listen(50)
        self.port = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Of a path here."""
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    def stall(self, _connection: socket.socket) -> None:
        """Say nothing until the test is over."""
        self._leave.wait()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            call = _read(connection)
            does = self.does[min(len(self.calls), len(self.does) - 1)]
            self.calls.append(call)
            does(connection)
            connection.close()


def _read(connection: socket.socket) -> Call:
    file = connection.makefile("rb")
    method, target, _ = file.readline().decode().split(" ", 2)
    headers = {}
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return Call(method, target, headers, file.read(int(headers.get("content-length", 0))))
