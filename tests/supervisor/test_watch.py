"""Who watches, and for how long after the last worker was busy."""

from __future__ import annotations

import pytest

from jobvisor.supervisor.board import (
    BUSY,
    CARETAKER_WATCHES,
    FILLED,
    IDLE,
    PARENT_WATCHES,
    ROLE,
    SLOT_STATE,
    STATE,
    Board,
)
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.watch import LINGER_NS, Watch
from tests.clock import StandingClock

LINGER_MS = LINGER_NS // 1_000_000


class Turning(Board):
    """A worker turns busy when the word is written: it has read the one before, or pokes."""

    def __setitem__(self, word: int, value: int) -> None:
        super().__setitem__(word, value)
        if word == PARENT_WATCHES:
            self.slots[1][STATE] = BUSY


def with_a_worker(board: Board) -> Board:
    slot = board.slots[1]
    slot[ROLE], slot[STATE], slot[SLOT_STATE] = WORKER.number, IDLE, FILLED
    return board


@pytest.mark.parametrize("word", [PARENT_WATCHES, CARETAKER_WATCHES])
def test_it_goes_on_for_a_moment_after_the_last_one(word: int) -> None:
    board, clock = with_a_worker(Board()), StandingClock()
    watch = Watch(board, word, clock)
    clock.move(1_000)
    assert (watch.goes_on(), board[word]) == (False, 0)
    board.slots[1][STATE] = BUSY
    assert (watch.goes_on(), board[word]) == (True, 1)
    clock.move(LINGER_MS)
    assert (watch.goes_on(), board[word]) == (True, 1)
    board.slots[1][STATE] = IDLE
    clock.move(LINGER_MS - 1)
    assert (watch.goes_on(), board[word]) == (True, 1)
    clock.move(1)
    assert (watch.goes_on(), board[word]) == (False, 0)


def test_a_worker_that_turns_busy_while_the_word_is_written_is_seen() -> None:
    board, clock = with_a_worker(Turning()), StandingClock()
    clock.move(1_000)
    assert Watch(board, PARENT_WATCHES, clock).goes_on()
    assert board[PARENT_WATCHES] == 0  # the next one pokes
