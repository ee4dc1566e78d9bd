"""A rate as one moment: until when the starts so far have used it up (GCRA).

Each start moves it on by a step, and it may lie ahead of now by as much as a burst saves up. So no start is
ever reserved, and after a pause no more than a burst begins at once.
"""

from __future__ import annotations

from typing import NamedTuple

MS = 1_000_000


class Tokens(NamedTuple):
    """How many of one key may start now; times are nanoseconds."""

    now: int
    step: int
    """Between two starts at the rate."""
    slack: int
    """By how much a burst may be ahead of it."""
    spent: int
    """Until when the starts so far have used up the rate; never in the past."""

    @classmethod
    def of(cls, now_ms: int, rate: int, per_ms: int, burst: int, spent: int | None) -> Tokens:
        """As it stands; a moment that a clock set back has left far ahead counts as used up just now.

        >>> Tokens.of(0, rate=10, per_ms=1_000, burst=3, spent=None).free
        3
        """
        now = now_ms * MS
        step = max(1, per_ms * MS // rate)
        slack = (burst - 1) * step
        return cls(now, step, slack, max(now, min(spent or 0, now + slack + step)))

    @property
    def free(self) -> int:
        """How many may start now."""
        ahead = self.slack - (self.spent - self.now)
        return 0 if ahead < 0 else ahead // self.step + 1

    def after(self, starts: int) -> Tokens:
        """Once so many have started.

        >>> tokens = Tokens.of(0, rate=10, per_ms=1_000, burst=3, spent=None).after(3)
        >>> tokens.free, tokens.next_ms
        (0, 100.0)
        """
        return self._replace(spent=self.spent + starts * self.step)

    @property
    def next_ms(self) -> float:
        """When the next one may start, in UTC milliseconds with a fraction."""
        return (self.spent - self.slack) / MS
