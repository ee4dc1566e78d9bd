"""The board: words that every process sees, slots, and the ring of graves."""

from __future__ import annotations

import os

import pytest

from jobvisor.jobs.keys import LANES_MAX
from jobvisor.supervisor.board import (
    BEAT,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CPU,
    CURRENT,
    CURRENT_CLAIM,
    DEADLINE,
    EXPELLED,
    FILLED,
    FOREVER,
    GRAVES,
    IDLE,
    LEASE_UNTIL,
    LEAST,
    NOTE_BYTES,
    RECALL,
    ROLE,
    SEEN_AT,
    SLOT_STATE,
    SLOTS,
    STATE,
    STOP,
    TURN,
    VERDICTS,
    Board,
    Grave,
    Running,
    jobs_text,
    state_name,
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
    words = (STATE, BEAT, ROLE, RECALL)
    for slot in board.slots:
        for word in words:
            slot[word] = slot.index * 100 + word
    for slot in board.slots:
        assert [slot[word] for word in words] == [slot.index * 100 + word for word in words]
    assert board[STOP] == 0


def test_no_two_lanes_share_a_word_and_a_column_is_that_of_its_slot() -> None:
    board = Board()
    ranges = {0: (0, 1), 1: (1, 64), 2: (65, 1), 3: (LANES_MAX - 3, 3)}
    for index, given in ranges.items():
        board.slots[index].give_lanes(*given)
    for index in ranges:
        for number, words in enumerate(board.slots[index].lanes()):
            assert len(words) == 16
            for word in range(16):
                words[word] = index * 10_000 + number * 100 + word
    for index, (_, count) in ranges.items():
        slot = board.slots[index]
        for word in (CURRENT, CPU, CANCEL_JOB, CANCEL_CLAIM):
            assert slot.column(word) == [index * 10_000 + n * 100 + word for n in range(count)]
            assert slot.lane(count - 1)[word] == slot.column(word)[-1]


def test_what_a_child_writes_and_what_the_caretaker_does_are_in_different_cache_lines() -> None:
    board = Board()
    board.slots[0].give_lanes(5, 3)
    for word in (CURRENT, CPU):
        board.slots[0].lane(2)[word] = 1
    board.slots[0].lane(0)[CANCEL_JOB] = 2
    written = board._words.tolist()
    child = {at // 8 for at, value in enumerate(written) if value == 1}
    assert written.index(2) // 8 not in child


def test_a_slot_without_lanes_runs_nothing_and_has_no_deadline() -> None:
    slot = Board().slots[3]
    assert (slot.lanes(), slot.running(), slot.first_deadline(), slot.started) == ([], [], 0, 0)
    with pytest.raises(IndexError):
        slot.lane(0)


def test_the_first_deadline_is_that_of_the_jobs_that_run() -> None:
    slot = Board().slots[3]
    slot.give_lanes(7, 4)
    for words, job, deadline in zip(slot.lanes(), (0, 8, 9, 10), (5, 0, 70, 60), strict=True):
        words[CURRENT], words[CURRENT_CLAIM], words[DEADLINE] = job, 2, deadline
    assert slot.first_deadline() == 60
    assert slot.running() == [Running(8, 2, 1), Running(9, 2, 2, 70), Running(10, 2, 3, 60)]
    slot.lane(3)[CURRENT] = 0
    assert slot.first_deadline() == 70


def test_the_jobs_of_a_slot_are_told_in_a_line_of_bounded_length() -> None:
    slot = Board().slots[3]
    slot.give_lanes(0, 64)
    assert jobs_text(slot) == "none"
    slot.lane(5)[CURRENT] = 17
    assert jobs_text(slot) == "17"
    for words in slot.lanes():
        words[CURRENT] = 3
    assert jobs_text(slot) == ", ".join(["3"] * 10 + ["..."])


def test_the_last_grave_touches_no_slot_and_the_last_slot_no_grave() -> None:
    board = Board()
    board.slots[-1][RECALL] = -1
    board.slots[0].give_lanes(0, 1)
    board.slots[0].lane(0)[CURRENT] = -1
    for number in range(GRAVES):
        board.bury(grave(number))
    board.pools[-1][SEEN_AT] = board.pools[0][LEAST] = -1
    assert (board.slots[-1][RECALL], board.slots[0].lane(0)[CURRENT]) == (-1, -1)
    assert next(board.unsettled()) == grave(0)
    assert (board.pools[-1][SEEN_AT], board.pools[0][LEAST]) == (-1, -1)


def test_the_last_lane_touches_no_note() -> None:
    board = Board()
    board.slots[0].give_lanes(LANES_MAX - 1, 1)
    board.write_note(0, "x" * NOTE_BYTES)
    board.slots[0].lane(0)[15] = -1
    assert board.read_note(0) == "x" * NOTE_BYTES


def test_a_word_takes_every_64_bit_number() -> None:
    board = Board()
    board.slots[3].give_lanes(3, 1)
    for value in (0, 1, -1, FOREVER, -(2**63)):
        board.slots[3][BEAT] = board.slots[3].lane(0)[CURRENT] = value
        assert (board.slots[3][BEAT], board.slots[3].lane(0)[CURRENT]) == (value, value)


def test_a_forked_process_sees_and_writes_the_same_words() -> None:
    board = Board()
    board[STOP] = 7
    board.slots[5].give_lanes(40, 2)
    pid = os.fork()
    if pid == 0:
        board.slots[5].lane(1)[CURRENT] = board[STOP] * 6
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.slots[5].column(CURRENT) == [0, 42]


def test_clearing_a_slot_leaves_its_neighbours_and_its_range() -> None:
    board = Board()
    for slot in board.slots[:3]:
        slot.give_lanes(slot.index * 2, 2)
        slot[BEAT] = 9
        for words in slot.lanes():
            words[CURRENT] = words[CANCEL_CLAIM] = 9
    board.slots[1].clear()
    assert [slot[BEAT] for slot in board.slots[:3]] == [9, 0, 9]
    assert [slot.column(CURRENT) for slot in board.slots[:3]] == [[9, 9], [0, 0], [9, 9]]
    assert [slot.column(CANCEL_CLAIM) for slot in board.slots[:3]] == [[9, 9], [0, 0], [9, 9]]


def test_busy_are_the_workers_that_are_in_a_turn_or_hold_jobs() -> None:
    board = Board()
    told = [(WORKER, IDLE), (WORKER, IDLE), (WORKER, BUSY), (CARETAKER, BUSY), (WORKER, BUSY)]
    for slot, (role, state) in zip(board.slots, told, strict=False):
        slot[ROLE], slot[STATE], slot[SLOT_STATE] = role.number, state, FILLED
    board.slots[1][TURN] = 1
    board.slots[4][SLOT_STATE] = 0
    assert [slot.index for slot in board.filled()] == [0, 1, 2, 3]
    assert [slot.index for slot in board.busy()] == [1, 2]


def test_a_worker_in_a_turn_is_called_so_while_it_runs_nothing() -> None:
    slot = Board().slots[0]
    slot.give_lanes(0, 2)
    slot[STATE], slot[TURN] = BUSY, 1
    assert state_name(slot) == "turn"
    slot.lane(1)[CURRENT] = 4
    assert state_name(slot) == "busy"


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
