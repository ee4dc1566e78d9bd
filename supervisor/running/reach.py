"""How far a worker reaches past jobs at the head of a queue that must wait for their limit or their task."""

from __future__ import annotations

from jobvisor.jobs.store import Turn

FIRST = 32
HELD_FIRST, HELD_MOST = 0.005, 0.05  # seconds until a key is asked for once more


class Reach:
    """What the last turns have found there."""

    def __init__(self) -> None:
        self.goes_on = False
        """Whether others may stand behind what the last turn has parked."""
        self._least = 0
        self._held = 0

    def turned(self, turn: Turn) -> None:
        """As long as a turn parks all that it claims, the next one claims twice as many; then as ever.

        What stands behind them is ordinary: as many of that at once would be kept from others.
        """
        self.goes_on = bool(turn.parked)
        self._least = max(FIRST, 2 * self._least) if turn.parked and not turn.jobs else 0
        self._held = self._held + 1 if turn.returned and not turn.jobs else 0

    def wish(self, wanted: int, most: int) -> int:
        """How many to claim, where otherwise it would be so many."""
        return max(wanted, min(self._least, most))

    @property
    def is_held_up(self) -> bool:
        """Whether all that was there is put back: who holds its key, or a lane of ours, is done soon."""
        return self._held > 0

    @property
    def wait(self) -> float:
        """So many seconds, then."""
        return min(HELD_MOST, HELD_FIRST * (1 << min(self._held - 1, 10)))
