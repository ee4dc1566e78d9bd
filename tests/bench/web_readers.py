"""Many readers of a site's events in one process: each remembers the last state of every job it was told."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Mapping
from functools import lru_cache

from jobvisor.jobs.clock import SYSTEM

HOST = "127.0.0.1"
PATH = "/api/v1/events?family=false"
LARGE = 1 << 18


def asked(port: int, *, buffer: int = 0) -> socket.socket:
    """A connection on which the stream was asked for; with a `buffer` the system keeps no more for it."""
    made = socket.socket()
    if buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.connect((HOST, port))
    made.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
    return made


class _Reader:
    """One stream."""

    def __init__(self, port: int) -> None:
        self.socket = asked(port)
        self.socket.setblocking(False)
        self.states: dict[int, str] = {}
        self.resets = 0
        self.bytes = 0
        self._kept = b""
        self._head = True

    def take(self) -> bool:
        """What has come; whether the stream goes on."""
        try:
            data = self.socket.recv(LARGE)
        except BlockingIOError:
            return True
        self.bytes += len(data)
        self._kept += data
        if self._head:
            head, found, rest = self._kept.partition(b"\r\n\r\n")
            if not found:
                return bool(data)
            assert b" 200 " in head, head
            self._head, self._kept = False, rest
        while (chunk := self._chunk()) is not None:
            states, resets = _parsed(chunk)
            self.states.update(states)
            self.resets += resets
        return bool(data)

    def _chunk(self) -> bytes | None:
        size, found, rest = self._kept.partition(b"\r\n")
        length = int(size, 16) if found else 0
        if not found or len(rest) < length + 2:
            return None
        self._kept = rest[length + 2 :]
        return rest[:length]


@lru_cache(maxsize=256)
def _parsed(chunk: bytes) -> tuple[Mapping[int, str], int]:
    """The states that a chunk tells, and how many resets: parsed once for all who are sent the same."""
    states: dict[int, str] = {}
    resets = 0
    for block in chunk.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if lines.get("event") == "jobs":
            states |= {job["id"]: job["state"] for job in json.loads(lines["data"])["jobs"]}
        resets += lines.get("event") == "reset"
    return states, resets


class Readers:
    """All of them, read in turn by one thread."""

    def __init__(self, port: int, number: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.all = [_Reader(port) for _ in range(number)]
        for reader in self.all:
            self._selector.register(reader.socket, selectors.EVENT_READ, reader)

    def read(self, seconds: float) -> None:
        """What comes within so many seconds."""
        ends = SYSTEM.monotonic_ns() + int(seconds * 1e9)
        while (left := ends - SYSTEM.monotonic_ns()) > 0:
            for key, _events in self._selector.select(left / 1e9):
                if not key.data.take():
                    self._selector.unregister(key.fileobj)

    def close(self) -> None:
        """All go away."""
        for reader in self.all:
            reader.socket.close()
        self._selector.close()
