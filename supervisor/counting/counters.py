"""The shared memory of counters: a block of words for each place of the board, and one for the parent.

Anonymous memory made before the first fork, where `[web] enabled`. Each word has one writer at a time and
is only ever added to, so whoever reads may be a moment behind and never sees a number go down: what a
process had counted is there when it is dead, and who comes into its place goes on from it. A page that
nobody has written to takes no memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from struct import Struct

from jobvisor.supervisor.counting.layout import (
    BEFORE,
    BEFORE_OF,
    BLOCK_BYTES,
    BLOCK_WORDS,
    COUNTED,
    COUNTED_OF,
    FOREVER,
    HEAP_BYTES,
    NAME_MAX,
    NAMES_AT,
    PAIRS_MAX,
    USED,
)

Pair = tuple[str, str]
"""A task and a queue, by their names."""

_LENGTHS = Struct("=HH")


class Block:
    """The counters of one place: words, and the names of its pairs."""

    def __init__(self, memory: memoryview[int]) -> None:
        """`memory` is its bytes."""
        self.words: memoryview[int] = memory[: BLOCK_WORDS * 8].cast("q")
        self._names = memory[NAMES_AT : NAMES_AT + HEAP_BYTES]

    def add(self, word: int, number: int = 1) -> None:
        """For its writer."""
        self.words[word] += number

    def pairs(self) -> list[Pair]:
        """The pairs that have a row, in the order of their rows, which begin behind that of OTHER."""
        return self._walked()[0]

    def _walked(self) -> tuple[list[Pair], int]:
        """The same, and where the names of the next one begin."""
        found: list[Pair] = []
        at = 0
        names = self._names
        for _ in range(min(self.words[USED], PAIRS_MAX)):
            task, queue = _LENGTHS.unpack_from(names, at)
            at += _LENGTHS.size
            text = bytes(names[at : at + task + queue])
            found.append((text[:task].decode(), text[task:].decode()))
            at += task + queue
        return found, at

    def enter(self, pair: Pair) -> int:
        """For its writer: a row for a pair that has none yet; 0, that of OTHER, where there is no room.

        The names are written first and counted last, so that a reader finds them whole.
        """
        # A kill may have left names behind the last one that was counted.
        words, at = self.words, self._walked()[1]
        task, queue = (name.encode(errors="replace") for name in pair)
        ends = at + _LENGTHS.size + len(task) + len(queue)
        if words[USED] >= PAIRS_MAX or ends > HEAP_BYTES or len(task) + len(queue) > NAME_MAX:
            return 0
        _LENGTHS.pack_into(self._names, at, len(task), len(queue))
        self._names[at + _LENGTHS.size : ends] = task + queue
        words[USED] += 1
        return words[USED]


class Counters:
    """The blocks of one family."""

    def __init__(self, places: int) -> None:
        """One for each place of the board, and one for the parent."""
        self._places = places
        # A word for each block says whether it was ever used: to read an untouched one would take a page.
        self._begins = (8 * (places + 1) + 4095) & ~4095
        self._memory = mmap.mmap(-1, self._begins + (places + 1) * BLOCK_BYTES)
        self._used: memoryview[int] = memoryview(self._memory)[: 8 * (places + 1)].cast("q")

    def block(self, place: int) -> Block:
        """The block of one place, for its writer."""
        self._used[place] = 1
        return self._at(place)

    def parents(self) -> Block:
        """The block of the parent, for the parent."""
        return self.block(self._places)

    def of_place(self, place: int) -> Block | None:
        """The block of a place, to be read; None where nobody has counted there."""
        return self._at(place) if self._used[place] else None

    def counted(self, place: int, owner: int) -> int:
        """The last claim of this life all of whose runs are counted; of another life's all are."""
        if not self._used[place]:
            return 0
        words = self._at(place).words
        for life, claim in ((COUNTED_OF, COUNTED), (BEFORE_OF, BEFORE)):
            counted = words[claim]
            if words[life] == owner:
                return counted
        return FOREVER

    def used(self) -> Iterator[Block]:
        """Those in which somebody has counted."""
        return (self._at(place) for place, used in enumerate(self._used.tolist()) if used)

    def _at(self, place: int) -> Block:
        begins = self._begins + place * BLOCK_BYTES
        return Block(memoryview(self._memory)[begins : begins + BLOCK_BYTES])
