"""Which row of a table one is at: it stays on what it is about while rows come and go around it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jobvisor.supervisor.cli.top.rows import Row

__all__ = ["Cursor"]


class Cursor:
    """A place in rows that change."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._place = 0

    def at(self, rows: Sequence[Row]) -> int:
        """Where it is in these rows: at its own, or where that was."""
        for place, row in enumerate(rows):
            if row.key == self._key:
                self._place = place
                return place
        self._place = max(0, min(self._place, len(rows) - 1))
        self._key = rows[self._place].key if rows else None
        return self._place

    def move(self, key: str, rows: Sequence[Row], page: int) -> bool:
        """Move by a key; whether it was one that moves."""
        last = len(rows) - 1
        steps = {
            "up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, " ": page,
            "home": -last, "g": -last, "end": last, "G": last,
        }  # fmt: skip
        if key not in steps:
            return False
        place = max(0, min(self.at(rows) + steps[key], last))
        self._key = rows[place].key if rows else None
        return True
