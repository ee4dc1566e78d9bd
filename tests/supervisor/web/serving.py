"""An application that is served as users serve it, and a reader of its events that speaks HTTP itself."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import uvicorn
from starlette.types import ASGIApp

from tests.waiting import LIMIT, eventually

HOST = "127.0.0.1"


@contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[int]:
    """The port on which uvicorn serves this, in a thread, until the block ends."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # What the system keeps for whoever does not read is soon full.
    door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
    door.bind((HOST, 0))
    door.listen(256)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", **options))
    thread = threading.Thread(target=server.run, args=([door],), name="uvicorn")
    thread.start()
    try:
        eventually(lambda: server.started, what="uvicorn serves")
        yield int(door.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(LIMIT)
        assert not thread.is_alive(), "uvicorn waits for a stream"


class Event(NamedTuple):
    """One message."""

    name: str
    data: Any
    place: str | None


class Listener:
    """One stream of events, read from its socket when a test asks for the next."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=LIMIT)
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = dict(self._header(line) for line in iter(self._file.readline, b"\r\n"))
        self._text = ""
        self.place: str | None = None
        """The id of the last message."""
        self.heartbeats = 0
        self.jobs: dict[int, str] = {}
        """The last state of each job that was told."""

    def _header(self, line: bytes) -> tuple[str, str]:
        name, _, value = line.decode().partition(":")
        return name.lower(), value.strip()

    def document(self) -> Any:
        """The answer that is no stream."""
        return json.loads(self._file.read(int(self.headers["content-length"])))

    def next(self) -> Event | None:
        """The next message; None at the end of a stream that was ended as it should be."""
        while (block := self._block()) is not None:
            event = self._event(block)
            if event is not None:
                return event
        return None

    def until_beat(self) -> None:
        """Read on to the first sign of life."""
        while not self.heartbeats:
            block = self._block()
            assert block is not None
            self._event(block)

    def _block(self) -> str | None:
        while "\n\n" not in self._text:
            chunk = self._chunk()
            if chunk is None:
                return None
            self._text += chunk
        block, _, self._text = self._text.partition("\n\n")
        return block

    def _chunk(self) -> str | None:
        size = int(self._file.readline(), 16)  # fails where the stream was cut
        text = self._file.read(size).decode()
        self._file.readline()
        return text if size else None

    def _event(self, block: str) -> Event | None:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        self.place = fields.get("id", self.place)
        if "event" not in fields:
            self.heartbeats += ": beat" in block
            return None
        event = Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
        if event.name == "jobs":
            self.jobs.update({job["id"]: job["state"] for job in event.data["jobs"]})
        return event

    def until(self, name: str) -> Event:
        """The next message of this name."""
        return self.until_is(lambda event: event.name == name)

    def until_is(self, wanted: Callable[[Event], bool]) -> Event:
        """The next message that a condition holds for."""
        while (event := self.next()) is not None:
            if wanted(event):
                return event
        raise AssertionError("the stream has ended before that message")

    def until_told(self, job: int, state: str) -> None:
        """Until a message has told this state of a job."""
        while self.jobs.get(job) != state:
            assert self.next() is not None, f"the stream has ended; told: {self.jobs}"

    def close(self) -> None:
        """Go away."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
