"""Outcomes that no ledger has a place for: their lanes wait until a turn has brought them to the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.several.bell import Bell


class Outcomes:
    """Brought by lanes, taken by the conductor."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._kept: deque[tuple[Entry, Callable[[], object]]] = deque()

    def keep(self, entry: Entry, settled: Callable[[], object]) -> None:
        """From any thread: `settled` is called, by the conductor, once it is in the database."""
        self._kept.append((entry, settled))
        self._bell.ring()

    def entries(self) -> list[Entry]:
        """Those that wait now."""
        return [entry for entry, _ in list(self._kept)]

    def settled(self, number: int) -> None:
        """The first so many are in the database, or are given up: their lanes go on."""
        for _ in range(number):
            _, settled = self._kept.popleft()
            settled()

    def __len__(self) -> int:
        return len(self._kept)
