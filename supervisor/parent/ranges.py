"""Which lanes of the board are whose: ranges, given out and taken back."""

from __future__ import annotations

from typing import NamedTuple

from jobvisor.jobs.keys import LANES_MAX


class Range(NamedTuple):
    """Lanes of the board that stand side by side."""

    first: int
    length: int


NONE = Range(0, 0)


class Ranges:
    """The free lanes, in pieces that never touch."""

    def __init__(self, lanes: int = LANES_MAX) -> None:
        self._free = [Range(0, lanes)]

    def take(self, count: int) -> Range:
        """The first piece with so many, else the largest there is, which has fewer."""
        if not count or not self._free:
            return NONE
        enough = [piece for piece in self._free if piece.length >= count]
        piece = enough[0] if enough else max(self._free, key=lambda each: each.length)
        taken = Range(piece.first, min(count, piece.length))
        self._free.remove(piece)
        if piece.length > taken.length:
            self._put(Range(piece.first + taken.length, piece.length - taken.length))
        return taken

    def give_back(self, taken: Range) -> None:
        """They are free, and one piece with those beside them."""
        if taken.length:
            self._put(taken)

    def _put(self, piece: Range) -> None:
        joined: list[Range] = []
        for each in sorted([*self._free, piece]):
            last = joined[-1] if joined else None
            if last is not None and last.first + last.length == each.first:
                joined[-1] = Range(last.first, last.length + each.length)
            else:
                joined.append(each)
        self._free = joined
