"""The board: words that every process sees, slots, and the ring of graves."""

from __future__ import annotations

import os

from jobvisor.supervisor.board import (
    BEAT,
    BUSY,
    CANCEL_CLAIM,
    CURRENT,
    EXPELLED,
    FILLED,
    FOREVER,
    GRAVES,
    IDLE,
    LEASE_UNTIL,
    ROLE,
    SLOT_STATE,
    SLOTS,
    STATE,
    STOP,
    TURN,
    VERDICTS,
    Board,
    Grave,
)
from jobvisor.supervisor.roster import CARETAKER, WORKER


def grave(owner: int) -> Grave:
    return Grave(*range(owner, owner + len(Grave._fields)))


def test_a_fresh_board_is_all_zero_but_for_the_lease() -> None:
    board = Board()
    words = [board[word] for word in range(EXPELLED + 1) if word != LEASE_UNTIL]
    assert not any(words)
    assert board[LEASE_UNTIL] == FOREVER
    assert len(board.slots) == SLOTS


def test_no_two_slots_share_a_word() -> None:
    board = Board()
    for slot in board.slots:
        for word in (STATE, CURRENT, BEAT, ROLE, CANCEL_CLAIM):
            slot[word] = slot.index * 100 + word
    for slot in board.slots:
        told = [slot[word] for word in (STATE, CURRENT, BEAT, ROLE, CANCEL_CLAIM)]
        assert told == [slot.index * 100 + w for w in (STATE, CURRENT, BEAT, ROLE, CANCEL_CLAIM)]
    assert board[STOP] == 0


def test_the_last_grave_touches_no_slot_and_the_last_slot_no_grave() -> None:
    board = Board()
    board.slots[-1][CANCEL_CLAIM] = -1
    for number in range(GRAVES):
        board.bury(grave(number))
    assert board.slots[-1][CANCEL_CLAIM] == -1
    assert next(board.unsettled()) == grave(0)


def test_a_word_takes_every_64_bit_number() -> None:
    board = Board()
    for value in (0, 1, -1, FOREVER, -(2**63)):
        board.slots[3][CURRENT] = value
        assert board.slots[3][CURRENT] == value


def test_a_forked_process_sees_and_writes_the_same_words() -> None:
    board = Board()
    board[STOP] = 7
    pid = os.fork()
    if pid == 0:
        board.slots[5][CURRENT] = board[STOP] * 6
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.slots[5][CURRENT] == 42


def test_clearing_a_slot_leaves_its_neighbours() -> None:
    board = Board()
    for slot in board.slots[:3]:
        slot[CURRENT] = slot[CANCEL_CLAIM] = 9
    board.slots[1].clear()
    assert [slot[CURRENT] for slot in board.slots[:3]] == [9, 0, 9]
    assert [slot[CANCEL_CLAIM] for slot in board.slots[:3]] == [9, 0, 9]


def test_busy_are_the_workers_in_a_turn_or_a_job() -> None:
    board = Board()
    told = [(WORKER, IDLE), (WORKER, TURN), (WORKER, BUSY), (CARETAKER, BUSY), (WORKER, BUSY)]
    for slot, (role, state) in zip(board.slots, told, strict=False):
        slot[ROLE], slot[STATE], slot[SLOT_STATE] = role.number, state, FILLED
    board.slots[4][SLOT_STATE] = 0
    assert [slot.index for slot in board.filled()] == [0, 1, 2, 3]
    assert [slot.index for slot in board.busy()] == [1, 2]


def test_graves_come_in_order_and_only_until_they_are_settled() -> None:
    board = Board()
    for number in (10, 20, 30):
        board.bury(grave(number))
    assert list(board.unsettled()) == [grave(10), grave(20), grave(30)]
    board.settled_one()
    assert list(board.unsettled()) == [grave(20), grave(30)]


def test_a_full_ring_says_so_and_forgets_nobody() -> None:
    board = Board()
    for number in range(GRAVES):
        assert board.has_room_for_graves(1)
        board.bury(grave(number))
    assert not board.has_room_for_graves(1)
    board.settled_one()
    assert board.has_room_for_graves(1)
    board.bury(grave(5000))
    found = list(board.unsettled())
    assert (found[0], found[-1], len(found)) == (grave(1), grave(5000), GRAVES)


def test_no_verdict_is_the_number_0() -> None:
    assert VERDICTS[0] == ""
    assert len(set(VERDICTS)) == len(VERDICTS)
