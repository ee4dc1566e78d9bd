r"""What a command writes: its end is kept, and all of it goes where a task's own prints go.

Bytes that are no UTF-8, and control characters, are shown as `\xff`.
"""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

KEEP_MAX = 64 * 1024
"""Bytes: shown, with each as four characters and both streams, it fits a result."""

_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0))}
del _SHOWN[9], _SHOWN[10], _SHOWN[13]  # tab, and the ends of lines


def shown_text(data: bytes) -> str:
    r"""Bytes as text that database, terminal and page can have.

    >>> shown_text(b"caf\xc3\xa9\x1b[0m \xff\n")
    'café\\x1b[0m \\xff\n'
    """
    return data.decode(errors="backslashreplace").translate(_SHOWN)


class Output:
    """One of the two streams of a command: read as it comes, without waiting."""

    def __init__(self, descriptor: int, stream: str, keep: int) -> None:
        """`stream` is the name in `sys` of the stream of ours that it is passed on to."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.count = 0
        """How many bytes there were in all."""
        self.at_end = False
        self._stream = stream
        self._keep = keep
        self._end = bytearray()
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def read(self) -> bool:
        """Take what is there; False at its end, or where there is nothing now."""
        if self.at_end:
            return False
        try:
            data = os.read(self.descriptor, 65_536)
        except BlockingIOError:
            return False
        self.at_end = not data
        self.count += len(data)
        self._end += data
        if len(self._end) > self._keep:
            del self._end[: len(self._end) - self._keep]
        self._pass_on(self._decode(data, final=not data))
        return bool(data)

    def _pass_on(self, text: str) -> None:
        if text:
            with suppress(OSError, ValueError, AttributeError):  # closed, full, or taken away
                getattr(sys, self._stream).write(text.translate(_SHOWN))

    @property
    def text(self) -> str:
        """The end of it; a character that was cut is left out."""
        data = bytes(self._end)
        if self.count > len(data):
            begin = next((n for n in range(min(4, len(data))) if data[n] & 0xC0 != 0x80), 0)
            data = data[begin:]
        return shown_text(data)
