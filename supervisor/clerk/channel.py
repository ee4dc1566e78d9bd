"""Messages between two processes of ours, whole and in order, over one end of a socket pair each.

Both ends are the same code of the same process image, so pickle says it all. No class of a user's is
sent: the other end would import it. A message comes in pieces where it is larger than what the system keeps
for a socket.
"""

from __future__ import annotations

import io
import pickle
import select
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any

from jobvisor.jobs.errors import InvalidOption, shown

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
        self.send_packed(pickle.dumps(message, pickle.HIGHEST_PROTOCOL), wait)

    def send_packed(self, data: bytes, wait: Wait) -> None:
        """The same, of a message that is packed already."""
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


def packed(message: Any) -> bytes:
    """A message with values of a user's, for `send_packed`; InvalidOption where one of them cannot travel.

    Of a member of a StrEnum, or of another class made of a plain one, the plain value goes.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """Of classes it sends those alone that are ours or Python's own."""

    def reducer_override(self, value: Any) -> Any:
        """Called for whatever is not exactly of a plain type."""
        named = value if callable(value) else type(value)
        if str(named.__module__).partition(".")[0] in _KNOWN:
            return NotImplemented
        for plain, copied in _COPIED.items():
            if isinstance(value, plain):
                return plain, (copied(value),)
        raise InvalidOption(
            f"{shown(value)} is no plain value; the database takes text and numbers"
        )


#: Modules whose classes and functions both ends have.
_KNOWN = frozenset({"jobvisor", "builtins", "copyreg", "datetime"})

#: The plain value of an object whose class is made of this one, whatever else it does.
_COPIED: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
