"""What a terminal sends when a key is pressed, as the name of that key."""

from __future__ import annotations

import codecs
import re

__all__ = ["Keys"]

ESCAPE = "\x1b"

_NAMES = {
    "\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace",
    "\x03": "interrupt", "\x0c": "redraw", "\x15": "clear", ESCAPE: "escape",
}  # fmt: skip

_SEQUENCES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "Z": "backtab",
    "1~": "home", "4~": "end", "5~": "page up", "6~": "page down", "7~": "home", "8~": "end",
}  # fmt: skip

# CSI with its parameters, or SS3 with its letter: what follows an escape when a key sends more than one byte.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")

BEGUN_MAX = 64
"""Letters of a sequence that has not ended: more are none of a key."""


class Keys:
    r"""Bytes to keys: a letter is itself, everything else has a name.

    >>> Keys().read(b"q\x1b[A\r\xc3\xa9")
    ['q', 'up', 'enter', 'é']
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    @property
    def unfinished(self) -> bool:
        """Whether a sequence has begun and may go on; a lone Escape looks so."""
        return bool(self._rest)

    def read(self, data: bytes) -> list[str]:
        """The keys that these bytes complete."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        found: list[str] = []
        while text:
            sequence = _SEQUENCE.match(text)
            if sequence is not None:
                found += _named(sequence[0])
                text = text[sequence.end() :]
            elif len(text) < BEGUN_MAX and _BEGUN.fullmatch(text):
                self._rest, text = text, ""
            else:
                found += _letter(text[0])
                text = text[1:]
        return found

    def end(self) -> list[str]:
        """What had begun has not gone on: it was Escape, and perhaps letters after it."""
        rest, self._rest = self._rest, ""
        return [key for letter in rest for key in _letter(letter)]


def _named(sequence: str) -> list[str]:
    """The key of a whole sequence; none for one that is of no use here, such as F5."""
    end = sequence.lstrip(f"{ESCAPE}[O")
    name = _SEQUENCES.get(end) or _SEQUENCES.get(end[-1:] if ";" in end else "")
    return [name] if name else []


def _letter(letter: str) -> list[str]:
    if letter in _NAMES:
        return [_NAMES[letter]]
    return [letter] if letter.isprintable() else []
