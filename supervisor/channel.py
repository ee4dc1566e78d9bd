"""Messages between two processes of ours, whole and in order, over one end of a socket pair each.

Both ends are the same code of the same process image, and neither sends a value of a user's: so pickle
says it all. A message comes in pieces where it is larger than what the system keeps for a socket.
"""

from __future__ import annotations

import pickle
import select
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any

MESSAGE_MAX = (
    1 << 32
)  # bytes: a turn of 500 jobs with the largest arguments has one, doubled by escapes
CHUNK = 1 << 20  # bytes that are asked of the system at once

_LENGTH = Struct("=Q")
# A reader that is gone is an error, also where a task gave SIGPIPE its default again, which is death.
_QUIET = getattr(socket, "MSG_NOSIGNAL", 0)

#: Wait until a descriptor is ready for these events of `select.poll`, or for a moment.
Wait = Callable[[int, int], None]


class ClosedError(Exception):
    """The other end is gone, or what it sent is no message."""


class Channel:
    """One end. It waits for nobody by itself: whoever uses it says how."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._received = bytearray()
        self._wanted = _LENGTH.size

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends of one channel; OSError where the system has no descriptors left."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """To be polled; -1 once it is closed."""
        return self._end.fileno()

    def send(self, message: Any, wait: Wait) -> None:
        """Send one message, however long that takes; `wait` is called while the other end reads."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if len(data) > MESSAGE_MAX:
            raise ClosedError(f"a message of {len(data)} bytes is longer than {MESSAGE_MAX}")
        rest = memoryview(_LENGTH.pack(len(data)) + data)
        while rest:
            try:
                rest = rest[self._end.send(rest, _QUIET) :]
            except BlockingIOError:
                wait(self.fileno(), select.POLLOUT)
            except OSError as error:
                raise ClosedError(error.strerror) from error

    def receive(self) -> Any:
        """The next message, None while it has not come as a whole."""
        while len(self._received) < self._wanted:
            try:
                piece = self._end.recv(min(self._wanted - len(self._received), CHUNK))
            except BlockingIOError:
                return None
            except OSError as error:
                raise ClosedError(error.strerror) from error
            if not piece:
                raise ClosedError("end of file")
            self._received += piece
            if self._wanted == len(self._received) == _LENGTH.size:
                self._begin()
        data, self._received, self._wanted = self._received, bytearray(), _LENGTH.size
        return pickle.loads(memoryview(data)[_LENGTH.size :])  # noqa: S301 -- from our own code alone

    def _begin(self) -> None:
        (length,) = _LENGTH.unpack(self._received)
        if not 0 < length <= MESSAGE_MAX:
            raise ClosedError(f"a message of {length} bytes cannot be")
        self._wanted += length

    def close(self) -> None:
        """The other end reads an end of file, once every copy of this one is closed."""
        self._end.close()
