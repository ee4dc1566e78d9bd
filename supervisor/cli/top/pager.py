"""A long text on the screen: a job with its attempts, a stack, what a job said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len, chop_cells

__all__ = ["Pager"]


class Pager:
    """Lines that may be more and longer than the screen; longer ones go on in the next line."""

    def __init__(
        self,
        title: str,
        *,
        job: int | None = None,
        question: Callable[[], list[str]] | None = None,
        live: bool = True,
        lines: Sequence[str] = ("...",),
    ) -> None:
        """`question` gives the lines, of a `live` text again and again; `job` is what they are about."""
        self.title = title
        self.job = job
        self.question = question
        self.live = live
        self._lines = lines
        self._top = 0
        self._sticks = False
        self._height = 1
        self._folded: list[str] = []
        self._width = 0

    def fill(self, lines: Sequence[str]) -> None:
        """The lines as they are now; the same ones cost nothing."""
        if lines != self._lines:
            self._lines, self._width = lines, 0

    def follow(self) -> None:
        """Show the end, and what comes after it."""
        self._sticks = True

    def move(self, key: str) -> bool:
        """Scroll by a key; whether it was one that scrolls."""
        page = max(1, self._height - 1)
        steps = {
            "up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page,
            " ": page, "home": -len(self._folded), "g": -len(self._folded), "end": len(self._folded),
            "G": len(self._folded),
        }  # fmt: skip
        if key not in steps:
            return False
        last = max(0, len(self._folded) - self._height)
        self._top = min(max(self._top + steps[key], 0), last)
        self._sticks = self._sticks and self._top == last
        if key in ("end", "G"):
            self._sticks = True
        return True

    def shown(self, width: int, height: int) -> list[str]:
        """The lines that are on the screen now."""
        self._height = height
        if width != self._width:
            self._folded = [part for line in self._lines for part in _folded(line, width)]
            self._width = width
        last = max(0, len(self._folded) - height)
        self._top = last if self._sticks else min(self._top, last)
        return self._folded[self._top : self._top + height]

    @property
    def where(self) -> str:
        """How far one has come."""
        last = len(self._folded) - self._height
        return "all" if last <= 0 else f"{100 * self._top // last}%"


def _folded(line: str, width: int) -> list[str]:
    line = line.expandtabs(4)
    if line.isascii():  # a result may have a million letters, and most of them are
        return [line[start : start + width] for start in range(0, max(1, len(line)), width)]
    return [line] if cell_len(line) <= width else chop_cells(line, width)
