"""How many jobs are claimed beyond those that can begin."""

from __future__ import annotations

import pytest

from jobvisor.jobs.clock import SECOND
from jobvisor.supervisor.several.flow import Flow

TURN = SECOND // 200  # 5 ms


def after(rate: int, turns: int) -> Flow:
    """So many jobs a second, for so many turns."""
    flow = Flow()
    for turn in range(turns + 1):
        flow.turned((turn + 1) * TURN, rate * TURN // SECOND if turn else 0)
    return flow


@pytest.mark.parametrize(("rate", "ahead"), [(200, 4), (5_000, 100), (20_000, 400)])
def test_as_many_as_end_in_20_ms_wait_for_a_lane(rate: int, ahead: int) -> None:
    assert after(rate, 20).ahead == ahead


def test_it_grows_by_four_at_the_most_so_that_quick_jobs_fetch_no_hundreds_of_slow_ones() -> None:
    assert [after(20_000, turns).ahead for turns in range(6)] == [0, 4, 16, 64, 256, 400]


def test_after_a_rest_nothing_is_known() -> None:
    flow = after(20_000, 20)
    flow.rested()
    assert (flow.ahead, flow.per_second) == (0, 0)


def test_turns_in_quick_succession_are_taken_together() -> None:
    flow = Flow()
    for number in range(1, 101):
        flow.turned(number * SECOND // 1_000, 5)
    assert 90 <= flow.ahead <= 110
