"""A job of several is overdue: its worker is given notice, and killed or let go on."""

from __future__ import annotations

from jobvisor.supervisor.board import (
    CURRENT,
    CURRENT_CLAIM,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
    Board,
    Slot,
)
from jobvisor.supervisor.parent.notice import Notice, has_neighbours


def running(*jobs: int) -> Slot:
    slot = Board().slots[1]
    slot.give_lanes(0, 4)
    for lane, job in enumerate(jobs):
        words = slot.lane(lane)
        words[CURRENT_CLAIM], words[CURRENT] = 7, job
    return slot


def test_the_verdict_names_the_job_and_stands_until_the_kill() -> None:
    slot = running(1, 2)
    notice = Notice(slot, "worker 1", "timeout", (2, 7), until=100)
    assert (slot[VERDICT], slot[VERDICT_JOB], slot[VERDICT_CLAIM]) == (
        VERDICT_CODES["timeout"], 2, 7,
    )  # fmt: skip
    assert (notice.has_helped(), notice.is_over(99), notice.is_over(100)) == (False, False, True)


def test_without_neighbours_nothing_is_waited_for() -> None:
    slot = running(1, 2)
    notice = Notice(slot, "worker 1", "timeout", (2, 7), until=100)
    slot.lane(0)[CURRENT] = 0
    assert notice.is_over(0)
    assert [has_neighbours(running(*jobs), (2, 7)) for jobs in ((1, 2), (2,))] == [True, False]


def test_where_the_job_has_ended_all_the_same_the_verdict_is_taken_back() -> None:
    slot = running(1, 2)
    notice = Notice(slot, "worker 1", "cancel", (2, 7), until=100)
    slot.lane(1)[CURRENT] = 0
    assert notice.has_helped()
    assert slot[VERDICT] == 0


def test_another_claim_of_the_same_job_is_another_run() -> None:
    slot = running(1, 2)
    notice = Notice(slot, "worker 1", "timeout", (2, 6), until=100)
    assert notice.has_helped()
