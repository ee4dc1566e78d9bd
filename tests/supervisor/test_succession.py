"""Which workers are told to leave, and when: decided on a board that the test fills."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobvisor.supervisor.board import GOING, IDLE, LEAVE_BY, LEAVING_CODES, STATE, why_leaving
from tests.supervisor.staff import Staff

Build = Callable[..., Staff]


def test_no_more_workers_linger_than_the_pool_has(staff: Build) -> None:
    family = staff({"processes": 3})
    first = family.crew.workers()
    family.work(*first[:2])
    family.take_up({"processes": 3})
    family.go_on()
    assert family.told() == first
    family.end(first[2])
    family.work(*family.crew.staying("default"))
    family.take_up({"processes": 3})
    for _ in range(3):
        family.go_on()
    assert len(family.told()) == 3, "two that linger, and one of three that may"
    assert len(family.crew.workers()) == 6, "twice as many as the pool has"
    family.end(*first[:2])
    family.go_on()
    assert len(family.told()) == 3
    assert [post for post in family.old() if not post.leaving] == []


def test_the_idle_leave_first_so_that_more_can(staff: Build) -> None:
    family = staff({"processes": 2})
    busy, idle = family.crew.workers()
    family.take_up({"processes": 2})
    family.work(busy)
    family.parent._succession._crew.add(busy.role, "default").departs = True  # one lingers already
    family.go_on()
    assert family.told() == [idle]


def test_whoever_is_too_many_leaves_at_once_however_many_linger(staff: Build) -> None:
    family = staff({"processes": 5})
    first = family.crew.workers()
    family.work(*first)
    family.take_up({"processes": 1})
    family.go_on()
    assert family.told() == first
    assert len(family.crew.staying("default")) == 1


def test_a_pool_without_overlap_has_never_more_processes_than_workers(staff: Build) -> None:
    gpu = {"processes": 2, "overlap": False}
    family = staff(gpu)
    first = family.crew.workers()
    family.work(*first)
    family.take_up(gpu)
    for _ in range(3):
        family.go_on()
    assert family.told() == [], "the caretaker is first"
    family.end(*[post for post in family.crew if post.leaving])
    for _ in range(3):
        family.go_on()
    assert family.told() == first[:1]
    assert family.crew.workers() == first


def test_nobody_is_told_before_a_new_worker_is_ready_beside_him(staff: Build) -> None:
    family = staff({"processes": 2})
    first = family.crew.workers()
    family.take_up({"processes": 2})
    (new,) = [post for post in family.crew.workers() if post not in first]
    new.slot[STATE] = 0
    family.go_on()
    assert family.told() == []
    new.slot[STATE] = IDLE
    family.go_on()
    assert family.told() == first


def test_another_family_keeps_its_posts_and_ends_even_those_that_were_to_leave_without_a_limit(
    staff: Build,
) -> None:
    family = staff({"processes": 2})
    posts = family.crew.workers()
    family.work(*posts)
    family.parent._on_fewer()
    (scaled,) = family.told()
    assert scaled.leave_by == scaled.slot[LEAVE_BY] == 0
    family.parent._succession.replace_all(30_000)
    assert scaled.slot[LEAVE_BY] == scaled.leave_by > 0
    assert [why_leaving(post.slot) for post in posts] == ["reload", "scale"]
    assert [post.departs for post in posts] == [False, True]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_worker_that_leaves_by_itself_while_others_of_its_jobs_run_has_a_successor_at_once(
    staff: Build, overlap: bool
) -> None:
    family = staff({"processes": 2, "overlap": overlap})
    going, _other = posts = family.crew.workers()
    family.work(*posts)
    going.slot[GOING] = LEAVING_CODES["dirty"]
    family.go_on()
    assert why_leaving(going.slot) == going.leaving == "dirty"
    assert going.leave_by == going.slot[LEAVE_BY] > 0
    assert len(family.crew.workers()) == (3 if overlap else 2)
    family.end(going)
    family.go_on()
    assert len(family.crew.workers()) == 2


def test_a_worker_told_to_leave_whose_time_is_over_is_killed_for_the_reload(staff: Build) -> None:
    family = staff({"processes": 1})
    (going,) = family.crew.workers()
    family.work(going)
    going.slot[GOING] = LEAVING_CODES["recycled"]
    family.go_on()
    family.clock.move(3_600_000 - 1_000)
    family.parent._judge.look(family.parent._config.family)
    assert not going.condemned_at
    family.clock.move(1_001)
    family.parent._judge.look(family.parent._config.family)
    assert going.condemned_at


def test_a_pool_that_is_gone_leaves_no_post_for_which_nobody_can_be_forked(staff: Build) -> None:
    family = staff({"name": "first"}, {"name": "second"})
    lingers, gone = family.crew.staying("second")
    for post in family.crew:
        if post is not lingers:  # all others are in backoff
            post.pid = 0
    family.work(lingers)
    family.take_up({"name": "first"})
    assert gone not in family.crew.workers()
    assert (lingers.leaving, lingers.departs) == ("reload", True)
    family.go_on()
    family.end(lingers)
    assert {post.pool for post in family.crew.workers()} == {"first"}


def test_a_pool_whose_old_workers_linger_keeps_no_other_from_its_reload(staff: Build) -> None:
    pools = ({"name": "slow", "processes": 1}, {"name": "quick", "processes": 1})
    family = staff(*pools)
    (lingers,) = family.crew.staying("slow")
    family.work(lingers)
    family.take_up(*pools)
    family.go_on()
    family.end(*family.crew.departing("quick"))
    second = family.crew.staying("slow") + family.crew.staying("quick")
    family.work(*second)
    family.offer(*pools)
    for _ in range(3):
        family.go_on()
    assert family.old() == [lingers, second[0], second[1]]
    assert family.told() == [lingers, second[1]], "the slow pool has no room beside it"
    family.end(lingers)
    for _ in range(3):
        family.go_on()
    assert family.told() == second
    assert len(family.crew.staying("slow")) == 1
