"""Whether it was told already what a configuration says: once by a family, not by each of its caretakers.

Else one that dies and comes back would tell it over what another family has said since.
"""

from __future__ import annotations

from jobvisor.supervisor.board import Board

WORD = (1 << 63) - 1


class Told:
    """One word of the board."""

    def __init__(self, board: Board, word: int, family: int, generation: int) -> None:
        """`generation` is the configuration's: a reload brings another one."""
        self._board = board
        self._word = word
        self._of = (family + generation) & WORD

    @property
    def is_told(self) -> bool:
        return self._board[self._word] == self._of

    def note(self) -> None:
        """It is, and is committed."""
        self._board[self._word] = self._of
