"""What a family has counted so far: all blocks summed, for whoever shows or keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from operator import add

from jobvisor.supervisor.counting.counters import Block, Counters, Pair
from jobvisor.supervisor.counting.layout import (
    HEAD_WORDS,
    OTHER,
    PAIR_WORDS,
    PAIRS_AT,
    PAIRS_MAX,
)

OTHERS: Pair = (OTHER, OTHER)

Words = list[int]


class Totals:
    """The words of all blocks, word by word; of each pair, too."""

    def __init__(self, head: Words, pairs: dict[Pair, Words]) -> None:
        self.head = head
        """Of the blocks themselves; what names a life or a place means nothing here."""
        self.pairs = pairs
        """At most PAIRS_MAX of them, and OTHERS."""


class Reader:
    """Sums the blocks. It remembers which pairs it has told by name, so that none becomes another one's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._named: dict[Pair, Pair] = {OTHERS: OTHERS}

    def read(self) -> Totals:
        """As of now; a block that is being written to may be told a moment later."""
        head: Words = [0] * HEAD_WORDS
        pairs: dict[Pair, Words] = {}
        for block in self._counters.used():
            head = list(map(add, head, block.words[:HEAD_WORDS].tolist()))
            for pair, words in _rows(block):
                name = self._name(pair)
                known = pairs.get(name)
                pairs[name] = words if known is None else list(map(add, known, words))
        return Totals(head, pairs)

    def _name(self, pair: Pair) -> Pair:
        """Its own, or OTHERS for one that came when there were PAIRS_MAX."""
        found = self._named.get(pair)
        if found is None:
            if len(self._named) > PAIRS_MAX:
                return OTHERS
            found = self._named[pair] = pair
        return found


def _rows(block: Block) -> Iterable[tuple[Pair, Words]]:
    # The names first: a row is there before its name is.
    pairs = [OTHERS, *block.pairs()]
    words = block.words[PAIRS_AT : PAIRS_AT + len(pairs) * PAIR_WORDS].tolist()
    for row, pair in enumerate(pairs):
        own = words[row * PAIR_WORDS : (row + 1) * PAIR_WORDS]
        if any(own):
            yield pair, own
