"""Whether parent and caretaker look by themselves whether a worker is busy, or are to be poked by it.

To wake both costs a job half a millisecond of its start, so they go on for a moment after the last one.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.supervisor.board import Board

LINGER_NS = SECOND // 10
"""For so long after a worker was seen busy."""


class Watch:
    """That of one of the two, by its word on the board."""

    def __init__(self, board: Board, word: int, clock: Clock) -> None:
        self._board = board
        self._word = word
        self._clock = clock
        self._until = 0

    def goes_on(self) -> bool:
        """Asked before each sleep: whether to look again soon, for nobody may poke."""
        now = self._clock.monotonic_ns()
        if self._board.busy():
            self._until = now + LINGER_NS
        watches = now < self._until
        self._board[self._word] = int(watches)
        # Looked at again: a worker that turned busy before the word was written did not poke.
        return watches or bool(self._board.busy())
