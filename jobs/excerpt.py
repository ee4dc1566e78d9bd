"""A text cut to what is kept of it, without what no database column, terminal or log line should meet."""

from __future__ import annotations

import re

# NUL, other controls but tab and newline, lone surrogates.
_UNCLEAN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def clean(text: str) -> str:
    r"""The text, with a mark in the place of each character that would do harm.

    >>> clean("one\ntwo\x1b[31m\0")
    'one\ntwo�[31m�'
    """
    return _UNCLEAN.sub("\ufffd", text)


def first_part(text: str, limit: int) -> str:
    """Of a clean text the beginning, in at most so many bytes of UTF-8.

    >>> first_part("stack", 3)
    'sta'
    """
    data = clean(text).encode()
    return data[:limit].decode(errors="ignore")


def last_part(text: str, limit: int) -> str:
    """Of a clean text the end, in at most so many bytes of UTF-8.

    >>> last_part("first line, last line", 9)
    'last line'
    """
    data = clean(text).encode()
    return data[-limit:].decode(errors="ignore")


def both_ends(text: str, limit: int) -> str:
    r"""Of a clean text the beginning and the end, in at most so many bytes of UTF-8.

    >>> both_ends("x" * 1_000, 200)[45:108]
    'xxxxx\n... 864 bytes left out ...\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
    """
    data = text.encode()
    if len(data) <= limit:
        return text
    # The end tells what happened, the beginning where it came from: three quarters and one, less
    # the room for the note.
    head, tail = limit // 4, limit * 3 // 4 - 64
    note = f"\n... {len(data) - head - tail} bytes left out ...\n"
    return data[:head].decode(errors="ignore") + note + data[-tail:].decode(errors="ignore")
