"""Posts and their lanes: ranges of the board that are given out before a fork and taken back."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.keys import LANES_MAX
from jobvisor.supervisor.board import CURRENT, LANE_COUNT, Board
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.crew import Crew
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.parent.ranges import NONE, Range, Ranges
from jobvisor.supervisor.parent.website import Website
from jobvisor.supervisor.roster import CARETAKER, WEB, WORKER


def test_no_lane_is_given_out_twice_and_what_comes_back_is_one_piece_again() -> None:
    ranges = Ranges(10)
    taken = [ranges.take(3), ranges.take(3), ranges.take(4)]
    assert taken == [Range(0, 3), Range(3, 3), Range(6, 4)]
    assert ranges.take(1) == NONE
    for each in (taken[0], taken[2], taken[1]):
        ranges.give_back(each)
    assert ranges.take(10) == Range(0, 10)


def test_where_others_have_all_places_it_is_said_that_there_is_no_web_role(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    crew, nursery = Crew(board), Nursery(board, SYSTEM)
    config = Config.of({"web": {"enabled": True}})
    try:
        site = Website(crew, nursery, SYSTEM)
        site.furnish(config)
        assert [post.role for post in crew] == [WEB]
        crew.remove(next(iter(crew)))
        while crew.room:
            crew.add(WORKER, "default")
        with caplog.at_level(logging.WARNING, "jobvisor"):
            site.furnish(config)
        assert "there is no web role: other children have all 256 places" in caplog.text
        assert not crew.of(WEB)
    finally:
        nursery.close()


def test_where_no_piece_is_large_enough_it_is_the_largest_one() -> None:
    ranges = Ranges(10)
    first, second, third = ranges.take(2), ranges.take(5), ranges.take(3)
    ranges.give_back(first)
    ranges.give_back(third)
    assert ranges.take(4) == third
    ranges.give_back(second)
    assert ranges.take(7) == Range(0, 7)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60))
def test_ranges_never_overlap_and_none_is_lost(steps: list[tuple[bool, int]]) -> None:
    ranges, taken = Ranges(100), list[Range]()
    for takes, number in steps:
        if takes:
            got = ranges.take(number)
            assert got.length <= number
            taken += [got] if got.length else []
        elif taken:
            ranges.give_back(taken.pop(number % len(taken)))
        lanes = [lane for each in taken for lane in range(each.first, each.first + each.length)]
        assert len(set(lanes)) == len(lanes)
        assert all(0 <= lane < 100 for lane in lanes)
    for each in taken:
        ranges.give_back(each)
    assert ranges.take(100) == Range(0, 100)


def test_a_post_keeps_its_lanes_from_life_to_life_and_finds_them_empty() -> None:
    board = Board()
    crew = Crew(board)
    crew.add(CARETAKER)
    posts = [crew.add(WORKER) for _ in range(3)]
    for post in posts:
        crew.give_lanes(post, 64)
    assert [post.lanes for post in posts] == [Range(0, 64), Range(64, 64), Range(128, 64)]
    posts[1].slot.lane(63)[CURRENT] = 7
    crew.give_lanes(posts[1], 64)
    assert posts[1].lanes == Range(64, 64)
    assert not any(posts[1].slot.column(CURRENT))


def test_a_post_whose_pool_has_another_concurrency_now_gets_other_lanes() -> None:
    board = Board()
    crew = Crew(board)
    first, second = crew.add(WORKER), crew.add(WORKER)
    crew.give_lanes(first, 1)
    crew.give_lanes(second, 1)
    crew.give_lanes(first, 8)
    assert (first.lanes, first.slot[LANE_COUNT]) == (Range(2, 8), 8)
    crew.remove(first)
    assert first.slot.lanes() == []
    crew.give_lanes(second, 16)
    assert second.lanes == Range(0, 16)


def test_a_worker_that_gets_fewer_lanes_than_asked_for_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew = Crew(Board())
    posts = [crew.add(WORKER) for _ in range(17)]
    assert all(crew.give_lanes(post, 1000) for post in posts)
    left = LANES_MAX - 16_000
    assert (posts[-1].lanes.length, posts[-1].slot[LANE_COUNT]) == (left, left)
    assert f"worker 16 gets {left} lanes and not 1000" in caplog.text


def test_a_worker_for_which_no_lane_is_left_is_not_forked() -> None:
    crew = Crew(Board())
    assert crew.give_lanes(crew.add(CARETAKER), 0)
    first, second = crew.add(WORKER), crew.add(WORKER)
    assert crew.give_lanes(first, LANES_MAX)
    assert not crew.give_lanes(second, 1)
    crew.remove(first)
    assert crew.give_lanes(second, 1)
